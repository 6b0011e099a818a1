/** The neighbour: told to be noisy with an address and a token, and to be quiet; answers when it is. */
import { connect, type Socket } from "node:net";
import { type Client, createClient } from "@libsql/client";

export type NoiseOrder = "quiet" | { readonly url: string; readonly token: string };

const CALLERS = 32;
const IDLE_CONNECTIONS = 500;
/** Clients that ask for a large result and never read it. */
const SLOW_READERS = 8;
const PAUSE_MS = 5;

/** Full scan, endless recursion, sort without index, a result of tens of megabytes, a join of everything, many writes. */
const WORST = [
  "SELECT count(*) FROM patients WHERE note LIKE '%nothing has this%'",
  "WITH RECURSIVE r (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT max(i) FROM r",
  "SELECT id FROM patients ORDER BY note || id DESC LIMIT 1",
  "SELECT p.*, hex(randomblob(1500)) FROM patients AS p",
  "SELECT count(*) FROM patients AS a, patients AS b WHERE a.id <> b.id",
  "UPDATE patients SET note = note || ' ' WHERE id % 7 = abs(random() % 7)",
];

let stop: (() => Promise<void>) | undefined;

process.on("message", (order: NoiseOrder) => {
  void obey(order).then(() => process.send?.("done"));
});

async function obey(order: NoiseOrder): Promise<void> {
  await stop?.();
  stop = order === "quiet" ? undefined : beNoisy(order.url, order.token);
}

function beNoisy(url: string, token: string): () => Promise<void> {
  const client = createClient({ url, authToken: token, concurrency: CALLERS });
  let going = true;
  const callers = Array.from({ length: CALLERS }, async (_, index) => {
    for (let turn = index; going; turn += 1) {
      await ask(client, WORST[turn % WORST.length] as string);
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  });
  const sockets = [
    ...Array.from({ length: IDLE_CONNECTIONS }, () => open(url, "")),
    ...Array.from({ length: SLOW_READERS }, () => open(url, pipeline(token, WORST[3] as string))),
  ];
  return async () => {
    going = false;
    for (const socket of sockets) socket.destroy();
    client.close();
    await Promise.race([Promise.all(callers), new Promise((resolve) => setTimeout(resolve, 1_000))]);
  };
}

/** What is refused, stopped or cut off is what a noisy tenant gets; the next question follows. */
async function ask(client: Client, sql: string): Promise<void> {
  try {
    await client.execute(sql);
  } catch {
    // Expected: limits are what is measured.
  }
}

function open(url: string, text: string): Socket {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname, () => socket.write(text));
  socket.on("error", () => undefined);
  if (text !== "") socket.pause();
  return socket;
}

function pipeline(token: string, sql: string): string {
  const body = JSON.stringify({ requests: [{ type: "execute", stmt: { sql } }, { type: "close" }] });
  return [
    "POST /v2/pipeline HTTP/1.1",
    "Host: bench",
    `Authorization: Bearer ${token}`,
    "Content-Type: application/json",
    `Content-Length: ${Buffer.byteLength(body)}`,
    "",
    body,
  ].join("\r\n");
}
