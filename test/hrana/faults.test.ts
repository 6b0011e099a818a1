/** What nobody should send: each gets a coded answer, and the server goes on. */
import { connect as connectTcp } from "node:net";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { beforeAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { TenantId } from "../../src/index.ts";
import { type Served, serve, tokenOf } from "./served.ts";

let served: Served;
beforeAll(async () => {
  served = await serve({
    limits: {
      transactionTimeLimitMs: 2_500,
      busyTimeoutMs: 1_000,
      streamIdleMs: 3_500,
      maxStreamsPerTenant: 12,
    },
    settings: { limits: { maxBodyBytes: 2_000_000 } },
  });
  await served.db.execute(TenantId(1), "CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT)");
  // The first transaction waits for a thread to start.
  await served.db.transaction(TenantId(1), async (transaction) => transaction.query("SELECT 1"));
});

interface Answer {
  readonly status: number;
  readonly body: { readonly baton?: string; readonly code?: string; readonly results?: Result[] };
}

interface Result {
  readonly type: string;
  readonly error?: { readonly code: string };
  readonly response?: { readonly result: { readonly rows: { value: string }[][] } };
}

async function post(
  body: string | Uint8Array,
  { token = tokenOf(1), path = "/v3/pipeline", type = "application/json" as string | null } = {},
): Promise<Answer> {
  const headers = { authorization: `Bearer ${token}`, ...(type === null ? {} : { "content-type": type }) };
  const response = await fetch(served.url + path, {
    method: "POST",
    headers,
    body: body as Uint8Array<ArrayBuffer>,
  });
  const text = await response.text();
  return { status: response.status, body: text.startsWith("{") ? JSON.parse(text) : {} };
}

function run(sql: string[], baton?: string, token?: string): Promise<Answer> {
  const requests = sql.map((text) => ({ type: "execute", stmt: { sql: text } }));
  return post(JSON.stringify({ baton: baton ?? null, requests }), token === undefined ? {} : { token });
}

async function serves(): Promise<void> {
  const { body } = await post(
    JSON.stringify({ requests: [{ type: "execute", stmt: { sql: "SELECT 1" } }, { type: "close" }] }),
  );
  expect(body.results?.map(({ type }) => type)).toEqual(["ok", "ok"]);
}

const EXECUTE = (stmt: string): string => `{"requests":[{"type":"execute","stmt":${stmt}},{"type":"close"}]}`;

describe("bodies", () => {
  it.each([
    ["no JSON", "{"],
    ["nothing", ""],
    ["nested 100,000 deep", "[".repeat(100_000) + "]".repeat(100_000)],
    ["a key twice", '{"requests":[],"requests":[]}'],
    ["a prototype", '{"__proto__":{},"requests":[]}'],
    ["no requests", "{}"],
    ["an unknown request", '{"requests":[{"type":"drop"}]}'],
    ["a statement that is none", EXECUTE("7")],
    ["an integer that is no text", EXECUTE('{"sql":"SELECT ?","args":[{"type":"integer","value":1}]}')],
    [
      "an integer past 64 bits",
      EXECUTE('{"sql":"SELECT ?","args":[{"type":"integer","value":"9223372036854775808"}]}'),
    ],
    ["a blob that is no base64", EXECUTE('{"sql":"SELECT ?","args":[{"type":"blob","base64":"*"}]}')],
    ["too many requests", `{"requests":[${'{"type":"close"},'.repeat(10_000)}{"type":"close"}]}`],
    [
      "a condition nested too deep",
      `{"requests":[{"type":"batch","batch":{"steps":[{"condition":${'{"type":"not","cond":'.repeat(20)}{"type":"is_autocommit"}${"}".repeat(20)},"stmt":{"sql":"SELECT 1"}}]}}]}`,
    ],
  ])("%s is refused", async (_, body) => {
    const answer = await post(body);
    expect([answer.status, answer.body.code]).toEqual([400, "invalid_argument"]);
  });

  it("that are no UTF-8, too large, or of another type are refused", async () => {
    expect((await post(new Uint8Array([0x7b, 0xff, 0x7d]))).status).toBe(400);
    expect((await post("x".repeat(2_000_001))).status).toBe(413);
    const wrong = await post("{}", { type: "text/xml" });
    expect([wrong.status, wrong.body.code]).toEqual([415, "media_type_unsupported"]);
    await serves();
  });

  it("of Protobuf that lie about themselves are refused", async () => {
    const path = "/v3-protobuf/pipeline";
    const type = "application/x-protobuf";
    let deep = new BinaryWriter().tag(6, WireType.LengthDelimited).bytes(new Uint8Array()).finish();
    for (let depth = 0; depth < 5_000; depth += 1) {
      deep = new BinaryWriter().tag(3, WireType.LengthDelimited).bytes(deep).finish();
    }
    const wrap = (field: number, part: Uint8Array): Uint8Array =>
      new BinaryWriter().tag(field, WireType.LengthDelimited).bytes(part).finish();
    const nulls = new Uint8Array(Buffer.concat(new Array(30_000).fill(Buffer.from([0x1a, 2, 0x0a, 0]))));
    const bombs: Uint8Array[] = [
      new Uint8Array([0x12, 0xff, 0xff, 0xff, 0xff, 0x0f]),
      new Uint8Array([0x12, 0x05, 0x12]),
      new Uint8Array(10_000).fill(0x13),
      new Uint8Array(100).fill(0xff),
      new Uint8Array(300_000).fill(0x12),
      wrap(2, wrap(3, wrap(1, wrap(1, wrap(1, deep))))),
      wrap(2, wrap(2, wrap(1, wrap(1, new Uint8Array([0xff, 0xfe]))))),
      // Many small statements, each of many NULLs.
      new Uint8Array(Buffer.concat(new Array(9).fill(wrap(2, wrap(2, wrap(1, nulls)))))),
    ];
    for (const [index, bomb] of bombs.entries()) {
      expect((await post(bomb, { path, type })).status, `bomb ${index}`).toBe(400);
    }
    await serves();
  });

  it("that are cut short or half closed do not hold the server up", async () => {
    const { port } = new URL(served.url);
    for (const end of ["destroy", "end"] as const) {
      const socket = connectTcp(Number(port), "127.0.0.1");
      socket.on("error", () => undefined);
      socket.write(
        `POST /v3/pipeline HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${tokenOf(1)}\r\ncontent-length: 500\r\n\r\n{"requests"`,
      );
      await new Promise((resolve) => setTimeout(resolve, 20));
      socket[end]();
    }
    await serves();
  });
});

describe("batons", () => {
  it("are new each time, and good once, for their caller alone", async () => {
    const opened = await run(["BEGIN", "INSERT INTO t VALUES (100, 'x')"]);
    const baton = opened.body.baton as string;
    expect(Buffer.from(baton.split(".")[1] as string, "base64url").length).toBe(32);
    const guesses = [
      baton.slice(0, -1) + (baton.endsWith("A") ? "B" : "A"),
      baton.split(".")[0] as string,
      `${baton.split(".")[0]}.${"A".repeat(43)}`,
      `${"A".repeat(22)}.${baton.split(".")[1]}`,
      `${baton}A`,
      "",
      "x".repeat(100_000),
    ];
    for (const guess of guesses) expect((await run(["SELECT 1"], guess)).body.code).toBe("baton_invalid");
    for (const token of [tokenOf(2), tokenOf(1, "reader"), tokenOf(1, "admin", "other")]) {
      expect((await run(["COMMIT"], baton, token)).body.code).toBe("baton_invalid");
    }
    const next = await run(["SELECT count(*) FROM t"], baton);
    expect(next.body.baton).not.toBe(baton);
    expect((await run(["SELECT 1"], baton)).body.code).toBe("baton_invalid");
    const done = await run(["ROLLBACK"], next.body.baton);
    expect(done.body.results?.[0]?.type).toBe("ok");
    expect(await served.db.query(TenantId(1), "SELECT * FROM t")).toEqual([]);
  });

  it("end with their stream when it is idle too long, and their transaction before", async () => {
    const opened = await run(["BEGIN IMMEDIATE", "INSERT INTO t VALUES (200, 'x')"]);
    const busy = await run(["BEGIN IMMEDIATE"]);
    expect(busy.body.results?.[0]?.error?.code).toBe("SQLITE_BUSY");
    await new Promise((resolve) => setTimeout(resolve, 1_800));
    const late = await run(
      ["INSERT INTO t VALUES (201, 'x')", "COMMIT", "INSERT INTO t VALUES (202, 'x')"],
      opened.body.baton,
    );
    expect(late.body.results?.map(({ type, error }) => error?.code ?? type)).toEqual([
      "transaction_timeout",
      "transaction_timeout",
      "ok",
    ]);
    expect(await served.db.query(TenantId(1), "SELECT id FROM t")).toEqual([{ id: 202 }]);
    await new Promise((resolve) => setTimeout(resolve, 4_500));
    expect((await run(["SELECT 1"], late.body.baton)).body.code).toBe("baton_invalid");
  });

  it("are bounded in number, for each tenant by itself", async () => {
    const opened = [];
    for (let count = 0; count < 12; count += 1) opened.push(await run(["SELECT 1"], undefined, tokenOf(2)));
    const more = await run(["SELECT 1"], undefined, tokenOf(2));
    expect([more.status, more.body.code]).toEqual([429, "quota_exceeded"]);
    await serves();
    await Promise.all(
      opened.map(({ body: { baton } }) =>
        post(JSON.stringify({ baton, requests: [{ type: "close" }] }), { token: tokenOf(2) }),
      ),
    );
    expect((await run(["SELECT 1"], undefined, tokenOf(2))).status).toBe(200);
  });

  it("do not outlive their credential or their tenant", async () => {
    const token = tokenOf(1, "admin", "revoked");
    const opened = await run(["BEGIN", "DELETE FROM t"], undefined, token);
    served.revoke(token);
    expect((await run(["COMMIT"], opened.body.baton, token)).status).toBe(401);
    // Its transaction ends long before its time.
    const next = await run(["BEGIN IMMEDIATE", "ROLLBACK"]);
    expect(next.body.results?.map(({ type }) => type)).toEqual(["ok", "ok"]);
    const other = await run(["SELECT 1"]);
    await served.db.suspendTenant(TenantId(1));
    const refused = await run(["SELECT 1"], other.body.baton);
    await served.db.resumeTenant(TenantId(1));
    expect(refused.body.results?.[0]?.error?.code).toBe("tenant_suspended");
    expect((await served.db.query(TenantId(1), "SELECT id FROM t")).length).toBe(1);
  });
});

describe("WebSockets", () => {
  function open(protocols: string[] = ["hrana3"], path = ""): Promise<WebSocket> {
    const socket = new WebSocket(served.url.replace("http", "ws") + path, protocols);
    return new Promise((resolve, reject) => {
      socket.once("open", () => resolve(socket));
      socket.once("error", reject);
    });
  }

  const closing = (socket: WebSocket): Promise<number> =>
    new Promise((resolve) => socket.once("close", (code) => resolve(code)));

  const greeted = async (): Promise<WebSocket> => {
    const socket = await open();
    const ok = new Promise((resolve) => socket.once("message", resolve));
    socket.send(JSON.stringify({ type: "hello", jwt: tokenOf(1) }));
    await ok;
    return socket;
  };

  it.each([
    [
      "no hello",
      JSON.stringify({ type: "request", request_id: 1, request: { type: "open_stream", stream_id: 1 } }),
      1002,
    ],
    ["no JSON", "{", 1002],
    ["a frame of the other encoding", Buffer.from("{}"), 1003],
    ["a hello that is refused", JSON.stringify({ type: "hello", jwt: "x" }), 1008],
    ["a message that is too large", "x".repeat(2_000_001), 1009],
    ["more than a hello has", "x".repeat(500_000), 1006],
    ["a string that never ends", `"${'\\"'.repeat(30_000)}`, 1002],
  ])("with %s are closed", async (_, message, code) => {
    const socket = await open();
    const closed = closing(socket);
    socket.send(message);
    expect(await closed).toBe(code);
    await serves();
  });

  it("are not opened for unknown protocols, or at other paths", async () => {
    await expect(open(["chat"])).rejects.toThrow("400");
    await expect(open(["hrana3"], "/v1/tenants")).rejects.toThrow("404");
    expect((await open(["hrana1", "hrana3-protobuf"])).protocol).toBe("hrana3-protobuf");
  });

  it("roll back what they held when they are cut off", async () => {
    const socket = await greeted();
    const send = (id: number, request: object): void =>
      socket.send(JSON.stringify({ type: "request", request_id: id, request }));
    const answered = new Promise<void>((resolve) => {
      socket.on("message", (data: Buffer) => {
        if (data.toString("utf8").includes('"request_id":3')) resolve();
      });
    });
    send(1, { type: "open_stream", stream_id: 1 });
    send(2, { type: "execute", stream_id: 1, stmt: { sql: "BEGIN IMMEDIATE" } });
    send(3, { type: "execute", stream_id: 1, stmt: { sql: "DELETE FROM t" } });
    await answered;
    socket.terminate();
    await served.db.execute(TenantId(1), "INSERT INTO t VALUES (300, 'x')");
    expect((await served.db.query(TenantId(1), "SELECT id FROM t")).length).toBe(2);
  });

  it("of clients that do not read are cut off, and take nobody's memory", async () => {
    const strict = await serve({ settings: { limits: { idleTimeoutMs: 1_000, maxUnreadBytes: 4_000_000 } } });
    const socket = new WebSocket(strict.url.replace("http", "ws"), ["hrana3"]);
    await new Promise((resolve) => socket.once("open", resolve));
    const closed = closing(socket);
    const send = (message: object): void => socket.send(JSON.stringify(message));
    send({ type: "hello", jwt: tokenOf(1) });
    send({ type: "request", request_id: 1, request: { type: "open_stream", stream_id: 1 } });
    socket.pause();
    const sql =
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60) SELECT hex(zeroblob(8000)) FROM n";
    for (let id = 2; id < 40; id += 1) {
      send({ type: "request", request_id: id, request: { type: "execute", stream_id: 1, stmt: { sql } } });
    }
    await new Promise((resolve) => setTimeout(resolve, 4_000));
    socket.resume();
    expect(await closed).not.toBe(1000);
    await strict.close();
  });
});
