/** What a connection, a stream or a cursor may do once its credential ended; what is refused, noted and counted. */
import { connect as connectTcp } from "node:net";
import { beforeAll, describe, expect, it } from "vitest";
import { TenantId } from "../../src/index.ts";
import { type Served, serve, tokenOf } from "./served.ts";
import { Speaker } from "./sockets.ts";

const TENANT = TenantId(1);
/** Counts for seconds in a lane. */
const SLOW =
  "SELECT count(*) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000) SELECT i FROM n)";
let served: Served;

beforeAll(async () => {
  served = await serve({ limits: { maxStreamsPerTenant: 8 } });
  await served.db.execute(TENANT, "CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT)");
  await served.db.transaction(TENANT, async (transaction) => transaction.query("SELECT 1"));
});

function post(
  path: string,
  body: object,
  token = tokenOf(1),
): Promise<{ status: number; body: { baton?: string; results?: { error?: { code: string } }[] } }> {
  return fetch(served.url + path, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify(body),
  }).then(async (response) => ({
    status: response.status,
    body: (await response.json().catch(() => ({}))) as { baton?: string },
  }));
}

const execute = (sql: string, baton: string | null = null) => ({
  baton,
  requests: [{ type: "execute", stmt: { sql } }],
});

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

describe("a credential that ended", () => {
  it("ends a WebSocket that says nothing, and the transaction that it holds", async () => {
    const token = tokenOf(1, "admin", "idle");
    const speaker = await Speaker.greeted(served.url, token);
    await speaker.run("BEGIN IMMEDIATE");
    await speaker.run("INSERT INTO t VALUES (1, 'x')");
    served.revoke(token);
    expect(await speaker.closed).toBe(1008);
    await served.db.execute(TENANT, "INSERT INTO t VALUES (2, 'x')");
    expect(await served.db.query(TENANT, "SELECT id FROM t")).toEqual([{ id: 2 }]);
    await served.db.execute(TENANT, "DELETE FROM t");
  });

  it("stops the statements of a text, and the steps of a batch, where they are", async () => {
    const token = tokenOf(1, "admin", "long");
    const speaker = await Speaker.greeted(served.url, token);
    const inserts = "INSERT INTO t (s) VALUES ('x');".repeat(20_000);
    const asked = speaker.ask({ type: "sequence", stream_id: 1, sql: inserts });
    await expect.poll(() => count("SELECT count(*) AS n FROM t")).toBeGreaterThan(0);
    served.revoke(token);
    expect((await asked).type).toMatch(/closed 1008|response_error/);
    // The one that was being committed may still end.
    await sleep(200);
    const done = await count("SELECT count(*) AS n FROM t");
    await sleep(200);
    expect(await count("SELECT count(*) AS n FROM t")).toBe(done);
    expect(done).toBeLessThan(20_000);
    await served.db.execute(TENANT, "DELETE FROM t");
  });

  it("gets no rows of a statement that was running", async () => {
    const [first, second] = [tokenOf(1, "admin", "http"), tokenOf(1, "admin", "socket")];
    const speaker = await Speaker.greeted(served.url, second);
    const answers = [post("/v3/pipeline", execute(SLOW), first), speaker.run(SLOW)] as const;
    await sleep(150);
    served.revoke(first);
    served.revoke(second);
    expect((await answers[0]).status).toBe(401);
    expect((await answers[1]).type).toMatch(/closed 1008/);
    expect(speaker.said.some(({ response }) => response?.result?.rows !== undefined)).toBe(false);
  });

  it("ends a cursor between two pieces, with an entry that says so", async () => {
    const token = tokenOf(1, "admin", "cursor");
    const sql =
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400) SELECT hex(zeroblob(10000)) FROM n";
    const response = await fetch(`${served.url}/v3/cursor`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify({ baton: null, batch: { steps: [{ stmt: { sql } }] } }),
    });
    const reader = (response.body as ReadableStream<Uint8Array>).getReader();
    const { value } = await reader.read();
    served.revoke(token);
    let text = Buffer.from(value as Uint8Array).toString("utf8");
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      text += Buffer.from(next.value).toString("utf8");
    }
    const entries = text.trim().split("\n");
    expect(entries.length).toBeLessThan(400);
    expect(JSON.parse(entries.at(-1) as string)).toMatchObject({
      type: "error",
      error: { code: "unauthenticated" },
    });
  });

  it("lets go of what its cursors hold, also where nobody reads them", async () => {
    const token = tokenOf(1, "admin", "stalled");
    const sql =
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT hex(zeroblob(10000)) FROM n";
    const abort = new AbortController();
    // As many snapshots as a tenant has at a time, for as long as half a minute.
    await Promise.all(
      Array.from({ length: 4 }, async () => {
        const response = await fetch(`${served.url}/v3/cursor`, {
          method: "POST",
          headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
          body: JSON.stringify({ baton: null, batch: { steps: [{ stmt: { sql } }] } }),
          signal: abort.signal,
        });
        await (response.body as ReadableStream<Uint8Array>).getReader().read();
      }),
    );
    // Until what is on the way takes no more.
    await sleep(1_500);
    served.revoke(token);
    const next = await post("/v3/pipeline", execute("BEGIN TRANSACTION READONLY"));
    expect(next.body.results?.[0]?.error).toBeUndefined();
    await post("/v3/pipeline", execute("ROLLBACK", next.body.baton ?? ""));
    abort.abort();
    // Each is one that has ended, though it was not answered to its end.
    await expect.poll(inFlight).toBe(1);
  });

  it("is not missed where a newer one of the same actor has taken its place", async () => {
    const [older, newer] = [tokenOf(1, "admin", "same~1"), tokenOf(1, "admin", "same~2")];
    const opened = await post("/v3/pipeline", execute("BEGIN"), older);
    const next = await post("/v3/pipeline", execute("SELECT 1", opened.body.baton ?? ""), newer);
    const speaker = await Speaker.greeted(served.url, older);
    expect(await speaker.hello(newer)).toBe("hello_ok");
    served.revoke(older);
    await sleep(1_200);
    const done = await post("/v3/pipeline", execute("ROLLBACK", next.body.baton ?? ""), newer);
    expect([done.status, done.body.results?.[0]?.error]).toEqual([200, undefined]);
    expect((await speaker.run("SELECT 1")).type).toBe("response_ok");
    // Another actor's credential does not take over what this one opened.
    expect(await speaker.hello(tokenOf(1, "admin", "another"))).toBe("hello_error");
    expect(await speaker.closed).toBe(1008);
  });
});

async function inFlight(): Promise<number> {
  const text = await (await fetch(`${served.url}/metrics`)).text();
  return Number(/kimberlite_http_requests_in_flight (\d+)/.exec(text)?.[1]);
}

async function count(sql: string): Promise<number> {
  return Number((await served.db.query(TENANT, sql))[0]?.["n"]);
}

describe("what comes before it is known who asks", () => {
  it("is one hello at a time, and nothing more is read meanwhile", async () => {
    const speaker = await Speaker.open(served.url);
    served.tokens.most = 0;
    served.tokens.delayMs = 400;
    for (let hello = 0; hello < 50; hello += 1) speaker.send({ type: "hello", jwt: tokenOf(1) });
    const large = JSON.stringify({ type: "hello", jwt: tokenOf(1), filler: "x".repeat(900_000) });
    for (let message = 0; message < 60; message += 1) speaker.socket.send(large);
    await sleep(300);
    served.tokens.delayMs = 0;
    // The system's buffers take some megabytes, the server none.
    expect(speaker.socket.bufferedAmount).toBeGreaterThan(20_000_000);
    expect(served.tokens.most).toBe(1);
    speaker.socket.terminate();
  });

  it("is not answered with more than the client reads, also to pings", async () => {
    const { port } = new URL(served.url);
    const socket = connectTcp(Number(port), "127.0.0.1");
    socket.write(
      "GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: hrana3\r\n\r\n",
    );
    const frame = (opcode: number, payload: Buffer): Buffer =>
      Buffer.concat([Buffer.from([0x80 | opcode, 0x80 | payload.length, 0, 0, 0, 0]), payload]);
    socket.write(frame(1, Buffer.from(JSON.stringify({ type: "hello", jwt: tokenOf(1) }))));
    await sleep(100);
    socket.pause();
    const pings = Buffer.concat(new Array(1_000).fill(frame(9, Buffer.alloc(120))));
    for (let sent = 0; sent < 300; sent += 1) socket.write(pings);
    await sleep(1_000);
    let bytes = 0;
    socket.on("data", (data: Buffer) => {
      bytes += data.length;
    });
    socket.resume();
    await sleep(500);
    expect(bytes).toBeLessThan(20_000_000);
    socket.destroy();
  });
});

describe("what is refused", () => {
  it("is noted for the tenant of the credential", async () => {
    const noted = served.tokens.refusals;
    noted.length = 0;
    expect((await post("/tenants/2/v3/pipeline", execute("SELECT 1"))).status).toBe(403);
    const speaker = await Speaker.open(served.url, "/tenants/2/");
    expect(await speaker.hello(tokenOf(1, "admin", "wrong"))).toBe("hello_error");
    await post("/v3/pipeline", execute("DELETE FROM t"), tokenOf(1, "reader", "rita"));
    await post("/v3/pipeline", execute("DROP TABLE t"), tokenOf(1, "writer", "will"));
    const batch = { steps: [{ stmt: { sql: "CREATE TABLE x (a)" } }] };
    await post("/v3/pipeline", { requests: [{ type: "batch", batch }] }, tokenOf(1, "writer", "walt"));
    for (const grant of ["grant_0123456789abcdef0123456789abcdef", "grant___proto__"]) {
      const refused = await post("/v3/pipeline", execute("SELECT 1"), tokenOf(1, "reader", grant));
      expect(refused.status).toBe(404);
    }
    expect(noted).toEqual([
      expect.stringMatching(/^test:test /),
      expect.stringMatching(/^test:wrong /),
      "test:rita sql.write",
      "test:will sql.schema",
      "test:walt sql.schema",
      "test:grant_0123456789abcdef0123456789abcdef shared.read",
      "test:grant___proto__ shared.read",
    ]);
  });

  it("and what is answered is counted, whatever the protocol", async () => {
    const speaker = await Speaker.greeted(served.url, tokenOf(1));
    await speaker.run("SELECT 1");
    await speaker.run("SELECT nothing");
    await post("/v3/pipeline", execute("SELECT nothing"));
    speaker.socket.close();
    const text = await (await fetch(`${served.url}/metrics`)).text();
    expect(text).toContain(
      'kimberlite_http_request_duration_seconds_count{method="WS",route="hrana/execute",status="200"}',
    );
    expect(Number(/kimberlite_errors_total\{code="invalid_sql"\} (\d+)/.exec(text)?.[1])).toBeGreaterThan(1);
    expect(text).toMatch(/kimberlite_http_requests_in_flight [01]\n/);
  });
});

describe("a client that goes away", () => {
  it("before its cursor began leaves no stream behind", async () => {
    const leaving = await serve({ limits: { maxStreamsPerTenant: 4, streamIdleMs: 500 } });
    const { port } = new URL(leaving.url);
    const body = JSON.stringify({ baton: null, batch: { steps: [{ stmt: { sql: "SELECT 1" } }] } });
    leaving.tokens.delayMs = 60;
    for (let client = 0; client < 60; client += 1) {
      const socket = connectTcp(Number(port), "127.0.0.1");
      socket.on("error", () => undefined);
      socket.write(
        `POST /v3/cursor HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${tokenOf(1)}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
      );
      setTimeout(() => socket.resetAndDestroy(), 20 + client * 2);
    }
    await sleep(400);
    leaving.tokens.delayMs = 0;
    const asked = async (): Promise<number> => {
      const response = await fetch(`${leaving.url}/v3/pipeline`, {
        method: "POST",
        headers: { authorization: `Bearer ${tokenOf(1)}`, "content-type": "application/json" },
        body: JSON.stringify({
          requests: [{ type: "execute", stmt: { sql: "SELECT 1" } }, { type: "close" }],
        }),
      });
      await response.arrayBuffer();
      return response.status;
    };
    // Streams of those that are gone are given back at once, or when they were idle too long.
    await expect.poll(asked, { interval: 200 }).toBe(200);
    await leaving.close();
  });
});

describe("a server that goes down", () => {
  it("answers what a WebSocket has asked before it closes it", async () => {
    const going = await serve();
    const speaker = await Speaker.greeted(going.url, tokenOf(1));
    await speaker.run("CREATE TABLE t (a)");
    const slow = speaker.run(SLOW.replace("3000000", "400000"));
    const insert = speaker.run("INSERT INTO t VALUES (1)");
    await sleep(100);
    const closed = going.close();
    expect([(await slow).type, (await insert).type]).toEqual(["response_ok", "response_ok"]);
    expect(await speaker.closed).toBe(1012);
    await closed;
  });

  it("is not begun with, nor asked more, when it is overloaded", async () => {
    const full = await serve({ settings: { limits: { maxConnections: 1 } } });
    const speaker = await Speaker.greeted(full.url, tokenOf(1));
    await expect(Speaker.open(full.url)).rejects.toThrow("503");
    expect((await speaker.run("SELECT 1")).type).toBe("response_ok");
    speaker.socket.terminate();
    await full.close();
  });
});
