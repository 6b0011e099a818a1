/**
 * Callers that share a batch share one SQLite transaction, and some failures roll back all of it. Whatever one caller
 * does, it alone fails: the others are committed with the right results, and the log holds nothing of the guilty one.
 */
import { expect, test } from "vitest";
import type { ErrorCode, ExecuteResult, TenantId } from "../../src/index.ts";
import { encodeChanges } from "../../src/log/record.ts";
import { openBlocks } from "../../src/pipeline/log-records.ts";
import { TestNode } from "../sim/test-node.ts";

interface Guilt {
  readonly name: string;
  readonly code: ErrorCode;
  readonly policy?: string;
  /** What the guilty caller sends, as one transaction. */
  readonly statements: readonly string[];
}

const SCHEMA = [
  "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT, u UNIQUE ON CONFLICT ROLLBACK)",
  "CREATE TABLE p (id INTEGER PRIMARY KEY)",
  "CREATE TABLE c (p REFERENCES p DEFERRABLE INITIALLY DEFERRED, u UNIQUE)",
  "CREATE TRIGGER rollback BEFORE INSERT ON t WHEN NEW.v = 'guilty rollback' BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
  "CREATE TRIGGER failing BEFORE INSERT ON t WHEN NEW.v = 'guilty fail' BEGIN SELECT RAISE(FAIL, 'no'); END",
  "INSERT INTO t (v, u) VALUES ('first', 'taken')",
  "INSERT INTO c VALUES (NULL, 'taken')",
];

const GUILTY = "INSERT INTO t (v) VALUES ('guilty')";
const ENDLESS = "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n)";

const GUILTS: readonly Guilt[] = [
  {
    name: "RAISE(ROLLBACK)",
    code: "constraint_violation",
    statements: [GUILTY, "INSERT INTO t (v) VALUES ('guilty rollback')"],
  },
  {
    name: "ON CONFLICT ROLLBACK",
    code: "constraint_violation",
    statements: [GUILTY, "INSERT INTO t (v, u) VALUES ('guilty', 'taken')"],
  },
  {
    name: "OR ROLLBACK",
    code: "constraint_violation",
    statements: [GUILTY, "INSERT OR ROLLBACK INTO c VALUES (NULL, 'taken')"],
  },
  {
    name: "RAISE(FAIL) after other rows",
    code: "constraint_violation",
    statements: ["INSERT INTO t (v) VALUES ('guilty'), ('guilty fail')"],
  },
  {
    name: "OR FAIL after other rows",
    code: "constraint_violation",
    statements: ["INSERT OR FAIL INTO c VALUES (NULL, 'guilty'), (NULL, 'taken')"],
  },
  {
    name: "a deferred foreign key",
    code: "constraint_violation",
    statements: [GUILTY, "INSERT INTO c VALUES (99, 'guilty')"],
  },
  {
    name: "a deferred foreign key that a pragma would forget",
    code: "constraint_violation",
    statements: [
      "PRAGMA defer_foreign_keys = ON",
      "INSERT INTO c VALUES (99, 'guilty')",
      "PRAGMA defer_foreign_keys = OFF",
    ],
  },
  {
    name: "a statement that is interrupted",
    code: "statement_timeout",
    statements: [GUILTY, `INSERT INTO t (v) ${ENDLESS} SELECT 'guilty' || i FROM n WHERE i < 0`],
  },
  {
    name: "changes too large for a record",
    code: "transaction_too_large",
    statements: [
      GUILTY,
      `INSERT INTO t (v) SELECT 'guilty' || hex(zeroblob(1000)) FROM json_each('[${"1,".repeat(99)}1]')`,
    ],
  },
  {
    name: "a value too large",
    code: "value_too_large",
    statements: [GUILTY, "INSERT INTO t (v) VALUES (hex(zeroblob(600000)))"],
  },
  {
    name: "rows of RETURNING past the limit",
    code: "result_too_large",
    statements: [`INSERT INTO t (v) SELECT 'guilty' FROM json_each('[${"1,".repeat(60)}1]') RETURNING id`],
  },
  {
    name: "a schema change, and then a failure",
    code: "invalid_sql",
    statements: [
      "CREATE TABLE guilty (a)",
      "ALTER TABLE t ADD COLUMN guilty",
      "INSERT INTO t (guilty) VALUES ('guilty')",
      "SELECT * FROM nothing",
    ],
  },
  { name: "SQL that is not available", code: "unsupported_sql", statements: [GUILTY, "COMMIT"] },
];

const LIMITS = {
  timeLimitMs: 300,
  maxTransactionBytes: 100_000,
  maxValueBytes: 1_000_000,
  maxResultRows: 50,
};

/** Everything that the tenant's log says, as bytes. */
function logText(node: TestNode, tenant: TenantId): Promise<Buffer> {
  return node.inspect(tenant, (engine) => {
    const parts = { keys: engine.keys, tenant };
    const records = [...openBlocks(parts, engine.log, 0n)].flatMap((block) => block.records);
    return Buffer.concat(records.map((record) => encodeChanges(record.changes)));
  });
}

async function runAmongOthers(
  node: TestNode,
  tenant: TenantId,
  guilty: () => Promise<unknown>,
): Promise<unknown> {
  const innocent = (name: string): Promise<ExecuteResult> =>
    node.db.execute(tenant, "INSERT INTO t (v) VALUES (?) RETURNING v", [name]);
  const before = [
    innocent("a"),
    node.db.transaction(tenant, ["PRAGMA defer_foreign_keys = ON", "INSERT INTO p VALUES (1)"]),
  ];
  const failure = guilty().then(
    () => expect.fail("the guilty caller was committed"),
    (error: unknown) => error,
  );
  const after = [innocent("b"), innocent("c")];
  const paid = node.db.transaction(tenant, ["INSERT INTO c VALUES (2, 2)", "INSERT INTO p VALUES (2)"]);
  const results = await Promise.all([before[0], ...after, paid]);
  await before[1];
  const rows = results.slice(0, 3).map((result) => (result as ExecuteResult).rows);
  expect(rows).toEqual([[{ v: "a" }], [{ v: "b" }], [{ v: "c" }]]);
  return failure;
}

async function checkInnocent(node: TestNode, tenant: TenantId): Promise<void> {
  const rows = await node.db.query(tenant, "SELECT v FROM t ORDER BY id");
  expect(rows.map((row) => row["v"])).toEqual(["first", "a", "b", "c"]);
  expect(await node.db.query(tenant, "SELECT count(*) AS n FROM c")).toEqual([{ n: 2 }]);
  const said = await logText(node, tenant);
  const schema = Buffer.concat(SCHEMA.map((sql) => Buffer.from(sql)));
  expect(countOf(said, "guilty")).toBe(countOf(schema, "guilty"));
  expect(await node.rebuildDifferences(tenant)).toEqual([]);
}

function countOf(bytes: Buffer, word: string): number {
  return bytes.toString("latin1").split(word).length - 1;
}

test.for(GUILTS)("$name", async ({ code, statements }) => {
  await using node = await TestNode.open({ limits: LIMITS });
  const tenant = await node.createTenant();
  for (const sql of SCHEMA) await node.db.execute(tenant, sql);
  const size = (await node.db.describeTenant(tenant)).size;
  const error = await runAmongOthers(node, tenant, () => node.db.transaction(tenant, statements));
  expect(error).toMatchObject({ code });
  await checkInnocent(node, tenant);
  expect((await node.db.describeTenant(tenant)).size).toBe(size + 5n);
});

test.for(GUILTS)("in a callback: $name", async ({ code, statements }) => {
  await using node = await TestNode.open({ limits: LIMITS });
  const tenant = await node.createTenant();
  for (const sql of SCHEMA) await node.db.execute(tenant, sql);
  const guilty = (): Promise<void> =>
    node.db.transaction(tenant, async (transaction) => {
      for (const sql of statements) await transaction.execute(sql);
    });
  expect(await runAmongOthers(node, tenant, guilty)).toMatchObject({ code });
  await checkInnocent(node, tenant);
});

test("a quota refuses one caller of a batch, and lets smaller ones through", async () => {
  await using node = await TestNode.open();
  const tenant = await node.createTenant();
  for (const sql of SCHEMA) await node.db.execute(tenant, sql);
  const { logBytes } = await node.db.describeTenant(tenant);
  await node.db.setQuota(tenant, { maxLogBytes: logBytes + 10_000 });
  const guilty = (): Promise<unknown> =>
    node.db.execute(tenant, "INSERT INTO t (v) VALUES ('guilty' || hex(zeroblob(50000)))");
  expect(await runAmongOthers(node, tenant, guilty)).toMatchObject({
    code: "quota_exceeded",
    detail: { policy: "maxLogBytes" },
  });
  await checkInnocent(node, tenant);
});

test("a failure that a callback catches leaves nothing, and what came before it stays", async () => {
  await using node = await TestNode.open();
  const tenant = await node.createTenant();
  for (const sql of SCHEMA) await node.db.execute(tenant, sql);
  await node.db.transaction(tenant, async (transaction) => {
    await transaction.execute("INSERT INTO t (v) VALUES ('kept')");
    await expect(
      transaction.execute("INSERT INTO c VALUES (NULL, 'lost'), (NULL, 'taken')"),
    ).rejects.toMatchObject({ code: "constraint_violation" });
    await expect(
      transaction.execute("INSERT OR FAIL INTO c VALUES (NULL, 'kept'), (NULL, 'taken')"),
    ).rejects.toMatchObject({ code: "constraint_violation" });
  });
  expect(await node.db.query(tenant, "SELECT v FROM t")).toEqual([{ v: "first" }, { v: "kept" }]);
  expect(await node.db.query(tenant, "SELECT u FROM c ORDER BY rowid")).toEqual([
    { u: "taken" },
    { u: "kept" },
  ]);
  expect(await node.rebuildDifferences(tenant)).toEqual([]);
});

test("after RAISE(ROLLBACK) was caught, a callback can neither go on nor commit", async () => {
  await using node = await TestNode.open();
  const tenant = await node.createTenant();
  for (const sql of SCHEMA) await node.db.execute(tenant, sql);
  const run = node.db.transaction(tenant, async (transaction) => {
    await transaction.execute("INSERT INTO t (v) VALUES ('lost')");
    await expect(transaction.execute("INSERT INTO t (v) VALUES ('guilty rollback')")).rejects.toMatchObject({
      code: "constraint_violation",
    });
    await expect(transaction.execute("INSERT INTO t (v) VALUES ('lost')")).rejects.toMatchObject({
      code: "transaction_closed",
    });
  });
  await expect(run).rejects.toMatchObject({ code: "transaction_closed" });
  expect(await node.db.query(tenant, "SELECT v FROM t")).toEqual([{ v: "first" }]);
  expect(await node.rebuildDifferences(tenant)).toEqual([]);
});

test("a debt left by OR FAIL is found before the log has the block", async () => {
  await using node = await TestNode.open();
  const tenant = await node.createTenant();
  for (const sql of SCHEMA) await node.db.execute(tenant, sql);
  const run = node.db.transaction(tenant, async (transaction) => {
    await transaction
      .execute("INSERT OR FAIL INTO c VALUES (99, 'guilty'), (NULL, 'taken')")
      .catch(() => undefined);
  });
  await expect(run).rejects.toMatchObject({ code: "constraint_violation" });
  expect(await node.db.query(tenant, "SELECT u FROM c")).toEqual([{ u: "taken" }]);
});

test("deferring foreign keys ends with its transaction", async () => {
  await using node = await TestNode.open();
  const tenant = await node.createTenant();
  await node.db.execute(tenant, "CREATE TABLE p (id INTEGER PRIMARY KEY)");
  await node.db.execute(tenant, "CREATE TABLE c (p REFERENCES p)");
  const pay = ["INSERT INTO c VALUES (1)", "INSERT INTO p VALUES (1)"];
  const [deferred, immediate, failed] = await Promise.allSettled([
    node.db.transaction(tenant, ["PRAGMA defer_foreign_keys = ON", ...pay]),
    node.db.transaction(tenant, ["INSERT INTO c VALUES (2)", "INSERT INTO p VALUES (2)"]),
    node.db.transaction(tenant, ["PRAGMA defer_foreign_keys = ON; SELECT 1"]),
  ]);
  expect([deferred.status, immediate.status, failed.status]).toEqual(["fulfilled", "rejected", "rejected"]);
  await expect(
    node.db.transaction(tenant, ["INSERT INTO c VALUES (2)", "INSERT INTO p VALUES (2)"]),
  ).rejects.toMatchObject({ code: "constraint_violation" });
});
