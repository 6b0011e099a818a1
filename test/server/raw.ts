/** Bytes on a socket, as no well-behaved client sends them. */
import { connect, type Socket } from "node:net";
import type { Served } from "./served.ts";

/** Opens a connection. */
export function openSocket(served: Served): Promise<Socket> {
  const { host, port } = served.server.address;
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, allowHalfOpen: true }, () => resolve(socket));
    socket.once("error", reject);
  });
}

/** Sends bytes and reads until the server closes, or for `waitMs`. */
export async function exchange(
  served: Served,
  bytes: string | Uint8Array,
  { end = false, waitMs = 4_000 }: { readonly end?: boolean; readonly waitMs?: number } = {},
): Promise<{ readonly text: string; readonly closed: boolean }> {
  const socket = await openSocket(served);
  socket.on("error", () => undefined);
  const pieces: Buffer[] = [];
  socket.on("data", (piece: Buffer) => pieces.push(piece));
  const closed = new Promise<boolean>((resolve) => {
    const timer = setTimeout(() => resolve(false), waitMs);
    for (const event of ["close", "end"]) {
      socket.once(event, () => {
        clearTimeout(timer);
        resolve(true);
      });
    }
  });
  socket.write(bytes);
  if (end) socket.end();
  const wasClosed = await closed;
  socket.destroy();
  return { text: Buffer.concat(pieces).toString("latin1"), closed: wasClosed };
}
