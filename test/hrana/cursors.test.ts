/** Cursors: results are found as they are taken, in one snapshot, and let go of what they hold. */
import { openWs } from "@libsql/hrana-client";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { TenantId } from "../../src/index.ts";
import { type Served, serve, tokenOf } from "./served.ts";
import { Speaker } from "./sockets.ts";

const TENANT = TenantId(1);
/** Rows without end, of about 1 KB. */
const ENDLESS =
  "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, hex(zeroblob(500)) FROM n";
const many = (count: number): string => `${ENDLESS} LIMIT ${count}`;

interface Entry {
  readonly type: string;
  readonly step?: number;
  readonly row?: readonly { readonly value: string }[];
  readonly error?: { readonly code: string };
  readonly baton?: string | null;
}

let served: Served;
beforeAll(async () => {
  served = await serve();
  await served.db.execute(TENANT, "CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT)");
});

interface Reading {
  /** The next lines that come; undefined at the end. */
  next(): Promise<Entry[] | undefined>;
  leave(): Promise<void>;
}

async function open(steps: object[], token = tokenOf(1)): Promise<Reading> {
  const abort = new AbortController();
  const response = await fetch(`${served.url}/v3/cursor`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify({ baton: null, batch: { steps } }),
    signal: abort.signal,
  });
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  let rest = "";
  return {
    async next() {
      const { value, done } = await reader.read();
      if (done) return undefined;
      const lines = (rest + Buffer.from(value).toString("utf8")).split("\n");
      rest = lines.pop() ?? "";
      return lines.map((line) => JSON.parse(line) as Entry);
    },
    async leave() {
      abort.abort();
      await reader.cancel().catch(() => undefined);
    },
  };
}

async function all(reading: Reading): Promise<Entry[]> {
  const entries: Entry[] = [];
  for (let some = await reading.next(); some !== undefined; some = await reading.next())
    entries.push(...some);
  return entries;
}

const step = (sql: string, condition?: object): object => ({ stmt: { sql }, condition: condition ?? null });

describe("a cursor over HTTP", () => {
  it("gives the first rows of a result without end, and is over when its client leaves", async () => {
    // More than a tenant may hold at a time: each must be let go of.
    for (let count = 0; count < 6; count += 1) {
      const reading = await open([step(ENDLESS)]);
      const entries = [...((await reading.next()) ?? []), ...((await reading.next()) ?? [])];
      expect(entries.slice(1, 3).map(({ type }) => type)).toEqual(["step_begin", "row"]);
      await reading.leave();
    }
  });

  it("goes on past what one answer holds, up to what a statement may give", async () => {
    const entries = await all(await open([step(many(20_000)), step("SELECT 7")]));
    const rows = entries.filter(({ type }) => type === "row");
    expect(rows.length).toBe(20_001);
    expect([rows[19_999]?.row?.[0]?.value, rows[20_000]?.row?.[0]?.value]).toEqual(["20000", "7"]);
    const ends = entries.filter(({ type }) => type !== "row").map(({ type }) => type);
    expect(ends.slice(1)).toEqual(["step_begin", "step_end", "step_begin", "step_end"]);
  });

  it("ends a step that is too large with an error, and goes on with the next", async () => {
    const entries = await all(await open([step(ENDLESS), step("SELECT 1", { type: "error", step: 0 })]));
    const ends = entries.filter(({ type }) => type !== "row").slice(1);
    expect(ends.map(({ type, error }) => error?.code ?? type)).toEqual([
      "step_begin",
      "result_too_large",
      "step_begin",
      "step_end",
    ]);
    expect(entries.filter(({ type }) => type === "row").length).toBeGreaterThan(60_000);
  });

  it("reads one snapshot, whatever is written meanwhile", async () => {
    await served.db.execute(TENANT, `INSERT INTO t ${many(3_000)}`);
    const reading = await open([step("SELECT id, s FROM t ORDER BY id")]);
    const first = (await reading.next()) ?? [];
    await served.db.execute(TENANT, "DELETE FROM t");
    const entries = [...first, ...(await all(reading))];
    expect(entries.filter(({ type }) => type === "row").length).toBe(3_000);
  });

  it("writes and reads in one transaction, with its conditions", async () => {
    const entries = await all(
      await open([
        step("BEGIN"),
        step(`INSERT INTO t ${many(1_000)}`),
        step("SELECT id, s FROM t", { type: "ok", step: 1 }),
        step("SELECT nothing"),
        step("COMMIT", { type: "ok", step: 3 }),
        step("ROLLBACK", { type: "not", cond: { type: "is_autocommit" } }),
      ]),
    );
    expect(entries.filter(({ type }) => type === "row").length).toBe(1_000);
    expect(entries.filter(({ type }) => type === "step_error").map((entry) => entry.step)).toEqual([3]);
    expect(entries.filter(({ type }) => type === "step_begin").map((entry) => entry.step)).toEqual([
      0, 1, 2, 5,
    ]);
    expect(await served.db.query(TENANT, "SELECT * FROM t")).toEqual([]);
  });

  it("stops when its tenant is suspended", async () => {
    const reading = await open([step(ENDLESS)]);
    await reading.next();
    await served.db.suspendTenant(TENANT);
    const entries = await all(reading);
    await served.db.resumeTenant(TENANT);
    expect(entries.at(-1)?.error?.code).toBe("tenant_suspended");
  });

  it("that nobody reads holds up no other tenant, and not its own either", async () => {
    const stalled = await Promise.all(
      Array.from({ length: 4 }, async () => {
        const reading = await open([step(ENDLESS)]);
        await reading.next();
        return reading;
      }),
    );
    const other = await all(await open([step(many(1_000))], tokenOf(2)));
    expect(other.filter(({ type }) => type === "row").length).toBe(1_000);
    await served.db.execute(TENANT, "INSERT INTO t VALUES (1, 'x')");
    expect(await served.db.query(TENANT, "SELECT id FROM t")).toEqual([{ id: 1 }]);
    for (const reading of stalled) await reading.leave();
    expect((await all(await open([step(many(1_000))]))).length).toBe(1_003);
  });
});

describe("a cursor over WebSocket", () => {
  let speaker: Speaker;
  beforeAll(async () => {
    speaker = await Speaker.greeted(served.url, tokenOf(1));
  });
  afterAll(() => speaker.socket.terminate());

  it("is fetched in pieces, and closed in the middle", async () => {
    const batch = { steps: [step(ENDLESS)] };
    for (let count = 0; count < 6; count += 1) {
      await speaker.ask({ type: "open_cursor", stream_id: 1, cursor_id: count, batch });
      const fetched = await speaker.ask({ type: "fetch_cursor", cursor_id: count, max_count: 600 });
      expect(fetched.response?.entries?.find(({ error }) => error !== undefined)).toBeUndefined();
      expect(fetched.response?.entries?.length).toBeGreaterThan(100);
      expect(fetched.response?.done).toBe(false);
      await speaker.ask({ type: "close_cursor", cursor_id: count });
    }
    expect((await speaker.run("SELECT 1")).type).toBe("response_ok");
  });

  it("carries a batch that is larger than one answer, by the client library of its makers", async () => {
    const client = openWs(served.url.replace("http", "ws"), tokenOf(1), 3);
    await client.getVersion();
    const stream = client.openStream();
    const batch = stream.batch(true);
    const large = batch.step().query(many(15_000));
    const small = batch.step().queryValue("SELECT 5");
    await batch.execute();
    expect([(await large)?.rows.length, (await small)?.value]).toEqual([15_000, 5]);
    client.close();
  });
});
