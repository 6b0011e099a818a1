/** What a statement answers: rows whatever their columns are called, and the rowid of what it inserted. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { SqlInput, TenantId } from "../../src/index.ts";
import { TestNode } from "../sim/test-node.ts";

describe("results", () => {
  let node: TestNode;
  let tenant: TenantId;

  beforeAll(async () => {
    node = await TestNode.open();
    tenant = await node.createTenant();
    await node.db.execute(tenant, "CREATE TABLE r (id INTEGER PRIMARY KEY, v UNIQUE)");
    await node.db.execute(tenant, "CREATE TABLE w (k TEXT PRIMARY KEY) WITHOUT ROWID");
  });

  afterAll(() => node[Symbol.asyncDispose]());

  it.each([
    ["an INSERT", "INSERT INTO r VALUES (9007199254740993, 1)", 9007199254740993n],
    ["the largest", "INSERT INTO r VALUES (9223372036854775807, 2)", 9223372036854775807n],
    ["the least", "INSERT INTO r VALUES (-9223372036854775808, 3)", -9223372036854775808n],
    ["one that fits a number", "INSERT INTO r VALUES (0, 4)", 0],
    ["RETURNING", "INSERT INTO r VALUES (9007199254740995, 5) RETURNING v", 9007199254740995n],
    ["an upsert that inserts", "INSERT INTO r VALUES (7, 6) ON CONFLICT (v) DO UPDATE SET v = 9", 7],
    ["an upsert that updates", "INSERT INTO r VALUES (8, 6) ON CONFLICT (v) DO UPDATE SET v = 66", undefined],
    ["INSERT OR IGNORE", "INSERT OR IGNORE INTO r VALUES (9, 66)", undefined],
    ["INSERT without a rowid", "INSERT INTO w VALUES ('a')", undefined],
    ["UPDATE", "UPDATE r SET v = v WHERE id = 7", undefined],
    ["DELETE", "DELETE FROM r WHERE id = 0", undefined],
    ["SELECT", "SELECT 1", undefined],
    ["DDL", "CREATE INDEX r_v ON r (v)", undefined],
    ["the last rowid asked for", "INSERT INTO r VALUES (last_insert_rowid() + 1, 10)", 8],
  ])("gives the rowid of %s", async (_what, sql, rowid) => {
    const direct = await node.db.execute(tenant, sql.replace("last_insert_rowid()", "7"));
    expect(direct.lastInsertRowid).toEqual(rowid);
  });

  it("lets a statement ask for the rowid of the one before, past statements that insert nothing", async () => {
    const results = await node.db.transaction(tenant, [
      "INSERT INTO r VALUES (9007199254741001, 'first')",
      "UPDATE r SET v = 'second' WHERE v = 'first'",
      "INSERT OR IGNORE INTO r VALUES (1, 'second')",
      "INSERT INTO r VALUES (last_insert_rowid() + 1, 'third')",
      "SELECT last_insert_rowid() AS id",
    ]);
    expect(results.map((result) => result.lastInsertRowid)).toEqual([
      9007199254741001n,
      undefined,
      undefined,
      9007199254741002n,
      undefined,
    ]);
    expect(results.at(-1)?.rows).toEqual([{ id: 9007199254741002n }]);
  });

  it.each([
    ["query", (sql: string) => node.db.query(tenant, sql)],
    ["execute", async (sql: string) => (await node.db.execute(tenant, sql)).rows],
    ["a lane", (sql: string) => node.db.transaction(tenant, (transaction) => transaction.query(sql))],
  ])("gives columns of any name as the row's own: %s", async (_how, run) => {
    const [row] = await run(
      "SELECT x'01' AS __proto__, 2 AS constructor, 9007199254740993 AS toString, 4 AS \"\", 5 AS a, 6 AS a",
    );
    expect(Object.entries(row ?? {})).toEqual(
      [
        ["__proto__", Buffer.from([1])],
        ["constructor", 2],
        ["toString", 9007199254740993n],
        ["", 4],
        ["a", 6],
      ].map(([name, value]) => [name, value instanceof Buffer ? expect.any(Uint8Array) : value]),
    );
    expect(Object.getPrototypeOf(row)).toBe(Object.prototype);
  });

  it("inserts and reads fields of any name", async () => {
    await node.db.execute(tenant, 'CREATE TABLE names ("__proto__", constructor, "a""b", "?1", ":x")');
    const row = JSON.parse('{"__proto__":"p","constructor":"c","a\\"b":1,"?1":2,":x":3}') as Record<
      string,
      SqlInput
    >;
    await node.db.insert(tenant, "names", row);
    expect((await node.db.query(tenant, "SELECT * FROM names")).map(Object.entries)).toEqual([
      Object.entries(row),
    ]);
    for (const nonsense of [new Map(), new Uint8Array(3), "text", 3, null])
      await expect(node.db.insert(tenant, "names", nonsense as never)).rejects.toMatchObject({
        code: "invalid_argument",
      });
    expect(await node.rebuildDifferences(tenant)).toEqual([]);
  });
});
