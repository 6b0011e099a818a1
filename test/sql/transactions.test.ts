/** Transactions as lists and as callbacks, what they answer, and reading a tenant as it was. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { TenantId, Transaction } from "../../src/index.ts";
import { TestNode } from "../sim/test-node.ts";

let node: TestNode;
let tenant: TenantId;

beforeAll(async () => {
  node = await TestNode.open({ maxOpenTenants: 4 });
});

afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

beforeEach(async () => {
  tenant = await node.createTenant();
  await node.db.execute(tenant, "CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE)");
});

async function values(): Promise<unknown[]> {
  const rows = await node.db.query(tenant, "SELECT v FROM t ORDER BY id");
  return rows.map((row) => row["v"]);
}

describe("results", () => {
  test("columns, rows, counts and the offset", async () => {
    const result = await node.db.execute(
      tenant,
      "INSERT INTO t (v) VALUES (1), (2) RETURNING id, v AS value",
    );
    expect(result).toEqual({
      columns: ["id", "value"],
      rows: [
        { id: 1, value: 1 },
        { id: 2, value: 2 },
      ],
      rowsAffected: 2,
      lastInsertRowid: 2,
      offset: 1n,
    });
  });

  test("what changes nothing has no offset, and no record", async () => {
    await node.db.execute(tenant, "INSERT INTO t (v) VALUES (1)");
    for (const sql of [
      "SELECT 1",
      "UPDATE t SET v = v",
      "DELETE FROM t WHERE 0",
      "CREATE TABLE IF NOT EXISTS t (a)",
      "DROP TABLE IF EXISTS u",
    ]) {
      expect((await node.db.execute(tenant, sql)).offset, sql).toBeUndefined();
    }
    expect((await node.db.describeTenant(tenant)).size).toBe(2n);
  });

  test("rows of triggers and cascades are not counted", async () => {
    await node.db.execute(
      tenant,
      "CREATE TRIGGER r AFTER INSERT ON t WHEN NEW.v < 3 BEGIN INSERT INTO t (v) VALUES (NEW.v + 1); END",
    );
    const result = await node.db.execute(tenant, "INSERT INTO t (v) VALUES (1)");
    expect([result.rowsAffected, result.lastInsertRowid]).toEqual([1, 1]);
    expect(await values()).toEqual([1, 2, 3]);
  });
});

describe("lists", () => {
  test("all of it, at one offset", async () => {
    const results = await node.db.transaction(tenant, [
      "INSERT INTO t (v) VALUES (1)",
      { sql: "INSERT INTO t (v) VALUES (?)", params: [2] },
      "SELECT count(*) AS n FROM t",
    ]);
    expect(results.map((result) => result.offset)).toEqual([1n, 1n, 1n]);
    expect(results[2]?.rows).toEqual([{ n: 2 }]);
  });

  test("none of it, if one fails", async () => {
    const run = node.db.transaction(tenant, [
      "CREATE TABLE u (a)",
      "INSERT INTO t (v) VALUES (1)",
      "INSERT INTO t (v) VALUES (1)",
    ]);
    await expect(run).rejects.toMatchObject({
      code: "constraint_violation",
      detail: { constraint: "unique" },
    });
    expect(await values()).toEqual([]);
    await node.db.execute(tenant, "CREATE TABLE u (b)");
    expect(await node.rebuildDifferences(tenant)).toEqual([]);
  });

  test("nothing of a schema change before one that fails", async () => {
    await node.db.execute(tenant, "CREATE TABLE u (a)");
    const run = node.db.transaction(tenant, ["ALTER TABLE t ADD COLUMN w", "ALTER TABLE u ADD COLUMN a"]);
    await expect(run).rejects.toMatchObject({ code: "invalid_sql" });
    await node.db.execute(tenant, "INSERT INTO t (v) VALUES (1)");
    expect(await values()).toEqual([1]);
    expect(await node.rebuildDifferences(tenant)).toEqual([]);
  });

  test("schema changes of another thread, taken back and not", async () => {
    await node.db.execute(tenant, "CREATE TABLE u (a)");
    await node.db.transaction(tenant, async (transaction) => {
      await transaction.execute("DROP TABLE u");
      await transaction.execute("ALTER TABLE t RENAME TO w");
    });
    await expect(
      node.db.transaction(tenant, ["CREATE TABLE x (a)", "SELECT * FROM u"]),
    ).rejects.toMatchObject({ code: "invalid_sql" });
    await node.db.execute(tenant, "ALTER TABLE w RENAME TO t");
    await node.db.execute(tenant, "INSERT INTO t (v) VALUES (1)");
    expect(await values()).toEqual([1]);
    expect(await node.rebuildDifferences(tenant)).toEqual([]);
  });

  test("sequences are those of the transaction, whichever thread ran the one before", async () => {
    await node.db.execute(tenant, "CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT)");
    const abandoned = node.db.transaction(tenant, async (transaction) => {
      await transaction.execute("INSERT INTO a DEFAULT VALUES");
      throw new Error("mine");
    });
    await expect(abandoned).rejects.toThrow("mine");
    await node.db.execute(tenant, "INSERT INTO a DEFAULT VALUES");
    await node.db.transaction(tenant, async (transaction) => {
      await transaction.execute("DELETE FROM sqlite_sequence");
      await transaction.execute("INSERT INTO t (v) VALUES (1)");
    });
    expect(await node.rebuildDifferences(tenant)).toEqual([]);
  });

  test("schema and rows change together, in any order", async () => {
    await node.db.transaction(tenant, [
      "INSERT INTO t (v) VALUES (1)",
      "ALTER TABLE t ADD COLUMN w DEFAULT 'w'",
      "INSERT INTO t (v, w) VALUES (2, 'x')",
      "ALTER TABLE t RENAME TO u",
      "UPDATE u SET w = 'y' WHERE v = 1",
      "CREATE TABLE t AS SELECT * FROM u",
      "DROP TABLE u",
      "CREATE TABLE u (a)",
      "INSERT INTO u VALUES (9)",
    ]);
    expect(await node.db.query(tenant, "SELECT v, w, a FROM t, u ORDER BY v")).toEqual([
      { v: 1, w: "y", a: 9 },
      { v: 2, w: "x", a: 9 },
    ]);
    expect(await node.rebuildDifferences(tenant)).toEqual([]);
  });
});

describe("callbacks", () => {
  test("read what they wrote, and give their value", async () => {
    const value = await node.db.transaction(tenant, async (transaction) => {
      await transaction.execute("INSERT INTO t (v) VALUES (?)", [1]);
      expect(await node.db.query(tenant, "SELECT v FROM t")).toEqual([]);
      return (await transaction.query("SELECT v FROM t"))[0]?.["v"];
    });
    expect(value).toBe(1);
    expect(await values()).toEqual([1]);
  });

  test("are rolled back when they throw", async () => {
    const run = node.db.transaction(tenant, async (transaction) => {
      await transaction.execute("INSERT INTO t (v) VALUES (1)");
      await transaction.execute("DROP TABLE t");
      throw new TypeError("mine");
    });
    await expect(run).rejects.toThrow(new TypeError("mine"));
    expect(await values()).toEqual([]);
    await node.db.execute(tenant, "ALTER TABLE t ADD COLUMN w");
    expect(await node.rebuildDifferences(tenant)).toEqual([]);
  });

  test("are rolled back past their time, and can do nothing after it", async () => {
    let late: Promise<unknown> = Promise.resolve();
    const run = node.db.transaction(
      tenant,
      async (transaction) => {
        await transaction.execute("INSERT INTO t (v) VALUES (1)");
        await new Promise((resolve) => setTimeout(resolve, 200));
        late = transaction.execute("INSERT INTO t (v) VALUES (2)");
        late.catch(() => undefined);
      },
      { timeLimitMs: 50 },
    );
    await expect(run).rejects.toMatchObject({ code: "transaction_timeout" });
    await new Promise((resolve) => setTimeout(resolve, 300));
    await expect(late).rejects.toMatchObject({ code: "transaction_closed" });
    expect(await values()).toEqual([]);
  });

  test("cannot be used after their end, not even inside another", async () => {
    let ended: Transaction | undefined;
    await node.db.transaction(tenant, async (transaction) => {
      ended = transaction;
    });
    const closed = { code: "transaction_closed" };
    await expect(ended?.execute("INSERT INTO t (v) VALUES (1)")).rejects.toMatchObject(closed);
    await node.db.transaction(tenant, async () => {
      await expect(ended?.execute("INSERT INTO t (v) VALUES (1)")).rejects.toMatchObject(closed);
      await expect(ended?.query("SELECT 1")).rejects.toMatchObject(closed);
    });
    expect(await values()).toEqual([]);
  });

  test("come in turn with other callers of their tenant", async () => {
    const slow = node.db.transaction(tenant, async (transaction) => {
      await transaction.execute("INSERT INTO t (v) VALUES ('first')");
      await new Promise((resolve) => setTimeout(resolve, 50));
    });
    await Promise.all([slow, node.db.execute(tenant, "INSERT INTO t (v) VALUES ('second')")]);
    expect(await values()).toEqual(["first", "second"]);
  });
});

describe("time travel", () => {
  test("to every offset, across schema changes", async () => {
    await node.db.execute(tenant, "INSERT INTO t (v) VALUES (1)");
    await node.db.execute(tenant, "UPDATE t SET v = 2");
    await node.db.execute(tenant, "ALTER TABLE t RENAME COLUMN v TO w");
    await node.db.execute(tenant, "DELETE FROM t");
    const at = (sql: string, offset: number): Promise<unknown> =>
      node.db.query(tenant, sql, [], { at: offset });
    expect(await at("SELECT * FROM t", 0)).toEqual([]);
    expect(await at("SELECT * FROM t", 1)).toEqual([{ id: 1, v: 1 }]);
    expect(await at("SELECT * FROM t", 2)).toEqual([{ id: 1, v: 2 }]);
    expect(await at("SELECT w FROM t", 3)).toEqual([{ w: 2 }]);
    expect(await at("SELECT w FROM t", 4)).toEqual([]);
    expect(await node.db.query(tenant, "SELECT v FROM t", [], { at: 2n })).toEqual([{ v: 2 }]);
    await expect(at("SELECT w FROM t", 5)).rejects.toMatchObject({ code: "offset_out_of_range" });
    await expect(at("DELETE FROM t", 1)).rejects.toMatchObject({ code: "read_only" });
  });

  test("to a date", async () => {
    await node.db.execute(tenant, "INSERT INTO t (v) VALUES ('then')");
    await new Promise((resolve) => setTimeout(resolve, 20));
    const then = new Date();
    await new Promise((resolve) => setTimeout(resolve, 20));
    await node.db.execute(tenant, "UPDATE t SET v = 'now'");
    expect(await node.db.query(tenant, "SELECT v FROM t", [], { at: then })).toEqual([{ v: "then" }]);
    expect(await node.db.query(tenant, "SELECT v FROM t", [], { at: new Date() })).toEqual([{ v: "now" }]);
    await expect(node.db.query(tenant, "SELECT v FROM t", [], { at: new Date(0) })).rejects.toMatchObject({
      code: "offset_out_of_range",
    });
    await expect(
      node.db.query(tenant, "SELECT v FROM t", [], { at: new Date(Number.NaN) }),
    ).rejects.toMatchObject({ code: "invalid_argument" });
  });
});
