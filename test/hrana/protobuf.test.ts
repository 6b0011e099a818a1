/** The third version of the protocol, in Protobuf and with cursors, by the client library of its makers. */
import { type Client, openHttp, openWs, type SqlOwner, Stmt } from "@libsql/hrana-client";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { TenantId } from "../../src/index.ts";
import { type Served, serve, tokenOf } from "./served.ts";

let served: Served;
beforeAll(async () => {
  served = await serve();
  // The first transaction waits for a thread to start.
  await served.db.transaction(TenantId(1), async (transaction) => transaction.query("SELECT 1"));
});

const connections: Client[] = [];
afterAll(() => {
  for (const client of connections) client.close();
});

async function connect(scheme: "http" | "ws"): Promise<Client> {
  const client =
    scheme === "http"
      ? openHttp(served.url, tokenOf(1), undefined, undefined, 3)
      : openWs(served.url.replace("http", "ws"), tokenOf(1), 3);
  client.intMode = "bigint";
  connections.push(client);
  expect(await client.getVersion()).toBe(3);
  return client;
}

describe.each(["http", "ws"] as const)("over %s", (scheme) => {
  it("carries every kind of value exactly", async () => {
    const stream = (await connect(scheme)).openStream();
    const blob = new Uint8Array([0, 255, 7]);
    const stmt = new Stmt("SELECT ?, ?, ?, ?, ?, 9e999, typeof(?1), typeof(?2)");
    stmt.bindIndexes([-(2n ** 63n), 1.5, "žába 🐸", blob.buffer, null]);
    const row = await stream.queryRow(stmt);
    const cells = Array.from(row.row as unknown as ArrayLike<unknown>);
    expect(cells[0]).toBe(-(2n ** 63n));
    expect(cells.slice(1, 3)).toEqual([1.5, "žába 🐸"]);
    expect(new Uint8Array(cells[3] as ArrayBuffer)).toEqual(blob);
    expect(cells.slice(4)).toEqual([null, Number.POSITIVE_INFINITY, "integer", "real"]);
    stream.close();
  });

  it("describes statements, stores texts and tells whether a transaction is open", async () => {
    const client = await connect(scheme);
    const stream = client.openStream();
    await stream.sequence(`CREATE TABLE IF NOT EXISTS d_${scheme} (id INTEGER PRIMARY KEY, s TEXT)`);
    const described = await stream.describe(`SELECT s, 1 AS one FROM d_${scheme} WHERE id = :id AND s = ?`);
    expect(described.paramNames).toEqual([":id", undefined]);
    expect(described.columns).toEqual([
      { name: "s", decltype: "TEXT" },
      { name: "one", decltype: undefined },
    ]);
    expect([described.isReadonly, described.isExplain]).toEqual([true, false]);
    expect((await stream.describe(`DELETE FROM d_${scheme}`)).isReadonly).toBe(false);
    expect((await stream.describe("EXPLAIN SELECT 1")).isExplain).toBe(true);
    const owner = (scheme === "ws" ? client : stream) as unknown as SqlOwner;
    const sql = owner.storeSql("SELECT 42");
    expect((await stream.queryValue(sql)).value).toBe(42n);
    sql.close();
    expect(await stream.getAutocommit()).toBe(true);
    await stream.run("BEGIN");
    expect(await stream.getAutocommit()).toBe(false);
    await stream.run(`INSERT INTO d_${scheme} VALUES (1, 'x')`);
    await stream.run("ROLLBACK");
    expect(await stream.getAutocommit()).toBe(true);
    expect((await stream.queryValue(`SELECT count(*) FROM d_${scheme}`)).value).toBe(0n);
    stream.close();
  });

  it("streams a result through a cursor, many times as large as a piece", async () => {
    const stream = (await connect(scheme)).openStream();
    const batch = stream.batch(true);
    const rows = batch
      .step()
      .query(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000) SELECT i, hex(zeroblob(64)) FROM n",
      );
    const failing = batch.step().query("SELECT * FROM nowhere");
    const refused = failing.catch((error: unknown) => (error as { code?: string }).code);
    const after = batch.step().queryValue("SELECT 7");
    await batch.execute();
    expect((await rows)?.rows.length).toBe(4_000);
    expect((await rows)?.rows[3_999]?.[0]).toBe(4_000n);
    expect(await refused).toBe("SQLITE_ERROR");
    expect((await after)?.value).toBe(7n);
    expect((await stream.queryValue("SELECT 8")).value).toBe(8n);
    stream.close();
  });
});
