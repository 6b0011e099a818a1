/**
 * A server that answers every statement of Hrana with the same row, from memory: what is left when a database costs nothing.
 * Against it a client shows the most that it can ask. Prints its port, and serves until it is killed.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type WebSocket, WebSocketServer } from "ws";
import { patient } from "./dataset.ts";

const { name, dob, note } = patient(1);
const RESULT = {
  cols: ["id", "name", "dob", "note"].map((column) => ({ name: column })),
  rows: [[{ type: "integer", value: "1" }, ...[name, dob, note].map((value) => ({ type: "text", value }))]],
  affected_row_count: 0,
  last_insert_rowid: null,
};

interface Asked {
  readonly type: string;
}

function answerOf({ type }: Asked): object {
  return type === "execute" ? { type, result: RESULT } : { type };
}

async function answerPipeline(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  const { requests } = JSON.parse(Buffer.concat(parts).toString()) as { readonly requests: Asked[] };
  const results = requests.map((asked) => ({ type: "ok", response: answerOf(asked) }));
  const text = JSON.stringify({ baton: null, base_url: null, results });
  response.writeHead(200, { "content-type": "application/json", "content-length": Buffer.byteLength(text) });
  response.end(text);
}

function serveSocket(socket: WebSocket): void {
  socket.on("message", (data: Buffer) => {
    const message = JSON.parse(data.toString()) as {
      readonly type: string;
      readonly request_id: number;
      readonly request: Asked;
    };
    const answer =
      message.type === "hello"
        ? { type: "hello_ok" }
        : { type: "response_ok", request_id: message.request_id, response: answerOf(message.request) };
    socket.send(JSON.stringify(answer));
  });
}

const server = createServer((request, response) => void answerPipeline(request, response));
const sockets = new WebSocketServer({ server, handleProtocols: (offered) => [...offered][0] ?? false });
sockets.on("connection", serveSocket);
server.listen(0, "127.0.0.1", () => {
  process.stdout.write(`${(server.address() as AddressInfo).port}\n`);
});
