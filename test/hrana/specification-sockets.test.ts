/**
 * The parts of Hrana's specifications (HRANA_1_SPEC to HRANA_3_SPEC) that are about WebSockets, their streams, cursors and
 * stored texts, sentence by sentence on the wire.
 */
import { createClient } from "@libsql/client";
import { openWs } from "@libsql/hrana-client";
import { beforeAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { TenantId } from "../../src/index.ts";
import { Asker, codesOf, execute, firstValue, manyRows } from "./asking.ts";
import { type Served, serve, tokenOf } from "./served.ts";
import { type Said, Speaker } from "./sockets.ts";

const TENANT = TenantId(1);
/** As many as a client has of its own at once, and more. */
const STREAMS = 24;
let served: Served;
let asker: Asker;
beforeAll(async () => {
  served = await serve({ limits: { maxStreamsPerConnection: STREAMS } });
  asker = new Asker(served);
  await served.db.execute(TENANT, "CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT)");
  // The first transaction waits for a thread to start.
  await served.db.transaction(TENANT, async (transaction) => transaction.query("SELECT 1"));
});

async function count(where: string): Promise<number> {
  return Number((await served.db.query(TENANT, `SELECT count(*) AS n FROM t WHERE ${where}`))[0]?.["n"]);
}

describe("SQL texts that are stored", () => {
  it("are meant as they were when they were referred to, though they are closed right after", async () => {
    const client = openWs(served.url.replace("http", "ws"), tokenOf(1), 3);
    await client.getVersion();
    const stream = client.openStream();
    const sql = client.storeSql("SELECT 42");
    const found = stream.queryValue(sql);
    sql.close();
    expect((await found).value).toBe(42);
    client.close();
  });

  it("may be more than a client keeps, which closes those it used before", async () => {
    const client = createClient({ url: served.url.replace("http", "ws"), authToken: tokenOf(1) });
    const batches = Array.from({ length: 20 }, (_, batch) =>
      client.batch(Array.from({ length: 10 }, (_each, step) => `SELECT ${batch * 10 + step} AS n`)),
    );
    const found = (await Promise.all(batches)).flat().map(({ rows }) => rows[0]?.["n"]);
    expect(found).toEqual(Array.from({ length: 200 }, (_, index) => index));
    client.close();
  });

  it("have their own numbers: one in use ends the connection, one that is not may be closed", async () => {
    const speaker = await Speaker.greeted(served.url, tokenOf(1));
    const store = (sql: string): Promise<Said> => speaker.ask({ type: "store_sql", sql_id: -7, sql });
    const close = (): Promise<Said> => speaker.ask({ type: "close_sql", sql_id: -7 });
    expect(codesOf([await close(), await store("SELECT 1"), await close(), await store("SELECT 2")])).toEqual(
      new Array(4).fill("response_ok"),
    );
    const run = speaker.ask({ type: "execute", stream_id: 1, stmt: { sql_id: -7 } });
    expect((await run).response?.result?.rows?.[0]?.[0]?.value).toBe("2");
    void store("INSERT INTO t VALUES (1, 'x')");
    void speaker.ask({ type: "execute", stream_id: 1, stmt: { sql_id: -7 } });
    expect(await speaker.closed).toBe(1002);
    const twice = { type: "store_sql", sql_id: 1, sql: "SELECT 1" };
    expect(codesOf(await asker.ask(twice, twice))).toEqual(["ok", "invalid_argument"]);
    // Over HTTP they are of the stream.
    const opened = await asker.pipeline([twice]);
    expect(codesOf(await asker.ask({ type: "execute", stmt: { sql_id: 1 } }))).toEqual(["invalid_argument"]);
    const kept = await asker.pipeline(
      [{ type: "execute", stmt: { sql_id: 1 } }, { type: "close" }],
      opened.baton,
    );
    expect(firstValue(kept.results[0])).toBe("1");
  });

  it("are referred to by exactly one of text and number; else nothing runs", async () => {
    const insert = { stmt: { sql: "INSERT INTO t VALUES (10, 'x')" } };
    const wrong = [{}, { sql: "SELECT 1", sql_id: 1 }, { sql_id: 99 }];
    const results = await asker.ask(
      ...wrong.flatMap((reference) => [
        { type: "execute", stmt: reference },
        { type: "sequence", ...reference },
        { type: "describe", ...reference },
        { type: "batch", batch: { steps: [insert, { stmt: reference }] } },
      ]),
    );
    expect(codesOf(results)).toEqual(new Array(12).fill("invalid_argument"));
    expect(await count("id = 10")).toBe(0);
  });
});

describe("a WebSocket", () => {
  const raw = async (protocols: string[]): Promise<{ socket: WebSocket; heard: string[] }> => {
    const socket = new WebSocket(served.url.replace("http", "ws"), protocols);
    const heard: string[] = [];
    socket.on("message", (data: Buffer) => heard.push(data.toString("utf8")));
    await new Promise((resolve) => socket.once("open", resolve));
    return { socket, heard };
  };

  it.each([[[]], [["hrana1"]], [["hrana2", "hrana1"]], [["hrana3", "chat"]]])(
    "that offers %j speaks JSON, also before its hello is answered, and ignores what it does not know",
    async (protocols) => {
      const { socket, heard } = await raw(protocols);
      expect(socket.protocol).toBe(protocols[0] ?? "");
      socket.send(JSON.stringify({ type: "hello", jwt: tokenOf(1), later: { of: ["a", "version"] } }));
      const open = { type: "open_stream", stream_id: -(2 ** 31), later: 1 };
      socket.send(JSON.stringify({ type: "request", request_id: -1, request: open, later: null }));
      const stmt = { sql: "SELECT 7", want_rows: true, later: true };
      const request = { type: "execute", stream_id: -(2 ** 31), stmt };
      socket.send(JSON.stringify({ type: "request", request_id: 2 ** 31 - 1, request }));
      await expect.poll(() => heard.length).toBe(3);
      expect(JSON.parse(heard[0] as string)).toEqual({ type: "hello_ok" });
      expect(JSON.parse(heard[1] as string)).toEqual({
        type: "response_ok",
        request_id: -1,
        response: { type: "open_stream" },
      });
      expect(JSON.parse(heard[2] as string)).toMatchObject({
        request_id: 2 ** 31 - 1,
        response: { type: "execute", result: { rows: [[{ type: "integer", value: "7" }]] } },
      });
      socket.terminate();
    },
  );

  it("ignores whatever follows a hello that is refused", async () => {
    const { socket, heard } = await raw(["hrana3"]);
    const closed = new Promise((resolve) => socket.once("close", resolve));
    socket.send(JSON.stringify({ type: "hello", jwt: "nonsense" }));
    socket.send(JSON.stringify({ type: "hello", jwt: tokenOf(1) }));
    for (const [id, request] of [
      { type: "open_stream", stream_id: 1 },
      { type: "execute", stream_id: 1, stmt: { sql: "INSERT INTO t VALUES (20, 'x')" } },
    ].entries()) {
      socket.send(JSON.stringify({ type: "request", request_id: id, request }));
    }
    expect(await closed).toBe(1008);
    expect(heard.map((said) => (JSON.parse(said) as Said).type)).toEqual(["hello_error"]);
    expect(await count("id = 20")).toBe(0);
  });

  it.each([
    ["a frame of another encoding", Buffer.from("{}"), 1003],
    ["a message of an unknown type", JSON.stringify({ type: "goodbye" }), 1002],
    ["a message of no type", JSON.stringify({ request_id: 1, request: {} }), 1002],
    [
      "a request of an unknown type",
      JSON.stringify({ type: "request", request_id: 1, request: { type: "drop", stream_id: 1 } }),
      1002,
    ],
  ])("that sends %s is closed, and runs nothing after it", async (_, message, code) => {
    const speaker = await Speaker.greeted(served.url, tokenOf(1));
    speaker.socket.send(message);
    void speaker.run("INSERT INTO t VALUES (30, 'x')");
    expect(await speaker.closed).toBe(code);
    expect(await count("id = 30")).toBe(0);
  });

  it("is told of a request that holds more than is taken, and goes on", async () => {
    const speaker = await Speaker.greeted(served.url, tokenOf(1));
    const insert = { stmt: { sql: "INSERT INTO t VALUES (35, 'x')" } };
    const deep = (depth: number): object =>
      depth === 0 ? { type: "is_autocommit" } : { type: "not", cond: deep(depth - 1) };
    const args = new Array(32_767).fill({ type: "null" });
    const batch = (...steps: object[]): object => ({ type: "batch", stream_id: 1, batch: { steps } });
    const said = [
      await speaker.ask(batch(insert, ...new Array(10_000).fill({ stmt: { sql: "SELECT 1" } }))),
      await speaker.ask(batch(insert, { stmt: { sql: "SELECT 1" }, condition: deep(16) })),
      await speaker.ask(batch(insert, { stmt: { sql: "SELECT 1", args } })),
      await speaker.ask(batch({ stmt: { sql: "SELECT 1" }, condition: deep(15) })),
    ];
    expect(codesOf(said)).toEqual([...new Array(3).fill("invalid_argument"), "response_ok"]);
    expect(await count("id = 35")).toBe(0);
    speaker.socket.terminate();
  });

  it("does what it is asked of one stream in order, until that is closed", async () => {
    const speaker = await Speaker.greeted(served.url, tokenOf(1));
    const on = (request: object): Promise<Said> => speaker.ask({ stream_id: 2, ...request });
    const said = await Promise.all([
      on({ type: "open_stream" }),
      on({ type: "open_stream" }),
      on({ type: "sequence", sql: "INSERT INTO t VALUES (40, 'x'); UPDATE t SET s = 'y' WHERE id = 40" }),
      on(execute("DELETE FROM t WHERE id = 40 AND s = 'y'")),
      on({ type: "close_stream" }),
      on(execute("INSERT INTO t VALUES (41, 'x')")),
      on({ type: "get_autocommit" }),
    ]);
    expect(codesOf(said)).toEqual([
      "response_ok",
      "invalid_argument",
      "response_ok",
      "response_ok",
      "response_ok",
      "invalid_argument",
      "invalid_argument",
    ]);
    expect(await count("id IN (40, 41)")).toBe(0);
    expect(codesOf([await on({ type: "open_stream" }), await on(execute("SELECT 1"))])).toEqual([
      "response_ok",
      "response_ok",
    ]);
    speaker.socket.terminate();
  });

  it("goes on when a stream does not open, with errors for what is asked of it", async () => {
    const speaker = await Speaker.greeted(served.url, tokenOf(1));
    for (let id = 1; id < STREAMS; id += 1) await speaker.ask({ type: "open_stream", stream_id: 10 + id });
    const batch = { steps: [{ stmt: { sql: "SELECT 1" } }] };
    const said = await Promise.all([
      speaker.ask({ type: "open_stream", stream_id: 4 }),
      speaker.ask({ type: "execute", stream_id: 4, stmt: { sql: "SELECT 1" } }),
      speaker.ask({ type: "open_cursor", stream_id: 4, cursor_id: 1, batch }),
      speaker.ask({ type: "fetch_cursor", cursor_id: 1, max_count: 1 }),
      speaker.ask({ type: "open_cursor", stream_id: 1, cursor_id: 1, batch }),
      speaker.ask({ type: "close_cursor", cursor_id: 1 }),
      speaker.ask({ type: "close_stream", stream_id: 4 }),
      speaker.run("SELECT 1"),
    ]);
    expect(codesOf(said)).toEqual([
      "overloaded",
      ...new Array(4).fill("invalid_argument"),
      ...new Array(3).fill("response_ok"),
    ]);
    speaker.socket.terminate();
  });
});

describe("a cursor over WebSocket", () => {
  const steps = (...sql: string[]): object => ({ steps: sql.map((each) => ({ stmt: { sql: each } })) });
  const open = (speaker: Speaker, cursor: number, batch: object): Promise<Said> =>
    speaker.ask({ type: "open_cursor", stream_id: 1, cursor_id: cursor, batch });
  const fetched = (speaker: Speaker, cursor: number, most = 10): Promise<Said> =>
    speaker.ask({ type: "fetch_cursor", cursor_id: cursor, max_count: most });

  it("has its stream for itself, and is closed with it", async () => {
    const speaker = await Speaker.greeted(served.url, tokenOf(1));
    const batch = steps(manyRows(5));
    expect(codesOf([await open(speaker, 1, batch), await open(speaker, 1, batch)])).toEqual([
      "response_ok",
      "invalid_argument",
    ]);
    const refused = [await open(speaker, 2, batch), await fetched(speaker, 2), await speaker.run("SELECT 1")];
    expect(codesOf(refused)).toEqual(new Array(3).fill("invalid_argument"));
    expect((await fetched(speaker, 1, 0)).response).toEqual({
      type: "fetch_cursor",
      entries: [],
      done: false,
    });
    expect((await fetched(speaker, 1, 2)).response?.entries?.map(({ type }) => type)).toEqual([
      "step_begin",
      "row",
    ]);
    // What was fetched is not all: no answer says that it was.
    const late = await Promise.all([
      speaker.ask({ type: "close_stream", stream_id: 1 }),
      fetched(speaker, 1),
      speaker.ask({ type: "open_stream", stream_id: 5 }),
      speaker.ask({ type: "open_cursor", stream_id: 5, cursor_id: 1, batch }),
      fetched(speaker, 1, 1_000),
      fetched(speaker, 1, 1_000),
    ]);
    expect(codesOf(late)).toEqual(["response_ok", "invalid_argument", ...new Array(4).fill("response_ok")]);
    expect(late.slice(4).map(({ response }) => [response?.entries?.length, response?.done])).toEqual([
      [7, true],
      [0, true],
    ]);
    speaker.socket.terminate();
  });

  it("whose batch fails as a whole ends with an entry that says so", async () => {
    const speaker = await Speaker.greeted(served.url, tokenOf(1));
    await open(speaker, 1, steps("BEGIN", "INSERT INTO t VALUES (50, 'x')", "COMMIT"));
    await served.db.suspendTenant(TENANT);
    const ended = await fetched(speaker, 1);
    await served.db.resumeTenant(TENANT);
    expect(ended.response?.entries?.map(({ type, error }) => [type, error?.code])).toEqual([
      ["error", "tenant_suspended"],
    ]);
    expect([ended.response?.done, (await fetched(speaker, 1)).response?.entries]).toEqual([true, []]);
    expect(await count("id = 50")).toBe(0);
    const condition = { type: "ok", step: 1 };
    const forward = { steps: [{ stmt: { sql: "SELECT 1" }, condition }, { stmt: { sql: "SELECT 2" } }] };
    expect(codesOf([await open(speaker, 2, forward), await fetched(speaker, 2)])).toEqual(
      new Array(2).fill("invalid_argument"),
    );
    speaker.socket.terminate();
  });
});
