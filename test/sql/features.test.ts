/** Changing and reading rows, feature by feature: it works, and its outcome is rebuilt from the log. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { TestNode } from "../sim/test-node.ts";
import { PEOPLE, testFeatures } from "./feature.ts";

describe("changing rows", () => {
  testFeatures([
    {
      name: "INSERT, UPDATE and DELETE with RETURNING",
      steps: [
        ...PEOPLE,
        "INSERT INTO people (name) VALUES ('X') RETURNING *",
        "UPDATE people SET born = born + 1 WHERE id < 3 RETURNING id",
        "DELETE FROM people WHERE name = 'X' RETURNING id",
      ],
      expect: { "SELECT sum(born) FROM people": [[7565]] },
    },
    {
      name: "upsert with several clauses",
      steps: [
        "CREATE TABLE u (a UNIQUE, b UNIQUE, n DEFAULT 0)",
        "INSERT INTO u (a, b) VALUES (1, 1), (2, 2)",
        "INSERT INTO u (a, b) VALUES (1, 9) ON CONFLICT (a) DO UPDATE SET n = n + 1 ON CONFLICT DO NOTHING",
        "INSERT INTO u (a, b) VALUES (9, 2) ON CONFLICT (a) DO NOTHING ON CONFLICT (b) DO UPDATE SET a = excluded.a",
      ],
      expect: {
        "SELECT a, b, n FROM u": [
          [1, 1, 1],
          [9, 2, 0],
        ],
      },
    },
    {
      name: "INSERT OR REPLACE takes every row in its way, and their triggers see it",
      steps: [
        "CREATE TABLE u (a UNIQUE, b UNIQUE)",
        "CREATE TABLE gone (a)",
        "CREATE TRIGGER t AFTER DELETE ON u BEGIN INSERT INTO gone VALUES (OLD.a); END",
        "INSERT INTO u VALUES (1, 1), (2, 2), (3, 3)",
        "INSERT OR REPLACE INTO u VALUES (1, 2)",
      ],
      expect: {
        "SELECT a, b FROM u ORDER BY a": [
          [1, 2],
          [3, 3],
        ],
        "SELECT a FROM gone ORDER BY a": [[1], [2]],
      },
    },
    {
      name: "unique values and rowids change places",
      steps: [
        "CREATE TABLE u (id INTEGER PRIMARY KEY, v UNIQUE)",
        "INSERT INTO u VALUES (1, 'a'), (2, 'b')",
        "UPDATE u SET id = -id",
        "UPDATE u SET id = CASE id WHEN -1 THEN 2 ELSE 1 END",
      ],
      expect: {
        "SELECT id, v FROM u": [
          [1, "b"],
          [2, "a"],
        ],
      },
    },
    {
      name: "UPDATE FROM",
      steps: [
        ...PEOPLE,
        "CREATE TABLE moves (id, city)",
        "INSERT INTO moves VALUES (1, 'Turin')",
        "UPDATE people SET city = moves.city FROM moves WHERE moves.id = people.id",
      ],
      expect: { "SELECT city FROM people WHERE id = 1": [["Turin"]] },
    },
    {
      name: "INSERT SELECT, and DELETE without WHERE",
      steps: [
        ...PEOPLE,
        "CREATE TABLE copy (id, name)",
        "INSERT INTO copy SELECT id, name FROM people",
        "DELETE FROM people",
      ],
      expect: { "SELECT count(*) FROM copy": [[4]], "SELECT count(*) FROM people": [[0]] },
    },
    {
      name: "a key that differs in case is the same row",
      steps: [
        "CREATE TABLE k (k TEXT COLLATE NOCASE PRIMARY KEY, v) WITHOUT ROWID",
        "INSERT INTO k VALUES ('a', 1)",
        "UPDATE k SET k = 'A'",
        "UPDATE k SET v = 2 WHERE k = 'a'",
      ],
      expect: { "SELECT k, v FROM k": [["A", 2]] },
    },
    {
      name: "PRAGMA user_version",
      steps: ["PRAGMA user_version = 42"],
      expect: { "SELECT user_version FROM pragma_user_version": [[42]] },
    },
  ]);
});

describe("rows that change more than once in a transaction", () => {
  let node: TestNode;
  beforeAll(async () => {
    node = await TestNode.open();
  });
  afterAll(async () => {
    await node[Symbol.asyncDispose]();
  });

  test.for([
    [
      "CREATE TABLE t AS SELECT value AS v FROM json_each('[1,2]')",
      "DELETE FROM t WHERE v = 1",
      "UPDATE t SET v = 3",
    ],
    [
      "CREATE TABLE t (v)",
      "INSERT INTO t VALUES (1), (2)",
      "DROP INDEX IF EXISTS none",
      "DELETE FROM t WHERE v = 1",
    ],
    [
      "CREATE TABLE t (v UNIQUE)",
      "INSERT INTO t VALUES (1), (2)",
      "ANALYZE",
      "UPDATE t SET v = -v",
      "REINDEX",
      "DELETE FROM t",
    ],
    [
      "CREATE TABLE t (v)",
      "INSERT INTO t VALUES (1)",
      "PRAGMA user_version = 0",
      "PRAGMA user_version = 1",
      "UPDATE t SET v = 2",
    ],
    [
      "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT)",
      "INSERT INTO t VALUES (1)",
      "UPDATE t SET id = 9",
      "DELETE FROM t",
    ],
  ])("%#", async (statements) => {
    const tenant = await node.createTenant();
    await node.db.transaction(tenant, statements);
    expect(await node.rebuildDifferences(tenant)).toEqual([]);
  });
});

describe("queries", () => {
  testFeatures([
    {
      name: "common table expressions, recursive too",
      steps: [],
      expect: {
        "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT sum(i) FROM n":
          [[15]],
        "WITH a AS MATERIALIZED (SELECT 1 AS x), b AS (SELECT x + 1 FROM a) SELECT * FROM b": [[2]],
      },
    },
    {
      name: "window functions",
      steps: PEOPLE,
      expect: {
        "SELECT name, row_number() OVER (ORDER BY born), lag(name) OVER (ORDER BY born) FROM people ORDER BY born LIMIT 2":
          [
            ["Ada", 1, null],
            ["Grace", 2, "Ada"],
          ],
        "SELECT city, sum(born) OVER (PARTITION BY city ORDER BY id ROWS UNBOUNDED PRECEDING) FROM people WHERE city = 'London'":
          [
            ["London", 1815],
            ["London", 3727],
          ],
      },
    },
    {
      name: "JSON functions and operators",
      steps: [
        "CREATE TABLE j (doc)",
        `INSERT INTO j VALUES ('{"a":{"b":[1,2,3]},"c":"x"}')`,
        "UPDATE j SET doc = json_set(doc, '$.a.b[1]', 20)",
      ],
      expect: {
        "SELECT doc -> '$.a.b', doc ->> '$.c', doc ->> '$.a.b[1]' FROM j": [["[1,20,3]", "x", 20]],
        "SELECT value FROM j, json_each(doc, '$.a.b')": [[1], [20], [3]],
        "SELECT json_group_array(value) FROM json_each(jsonb('[1,2]'))": [["[1,2]"]],
      },
    },
    {
      name: "joins of every kind, compounds and aggregates",
      steps: [
        "CREATE TABLE l (a)",
        "CREATE TABLE r (a)",
        "INSERT INTO l VALUES (1), (2)",
        "INSERT INTO r VALUES (2), (3)",
      ],
      expect: {
        "SELECT l.a AS x, r.a AS y FROM l FULL JOIN r ON l.a = r.a ORDER BY coalesce(l.a, r.a)": [
          [1, null],
          [2, 2],
          [null, 3],
        ],
        "SELECT a FROM l EXCEPT SELECT a FROM r": [[1]],
        "SELECT a FROM l INTERSECT SELECT a FROM r": [[2]],
        "SELECT count(*) FILTER (WHERE a > 1), group_concat(a, '+' ORDER BY a DESC), string_agg(a, ',') FROM l":
          [[1, "2+1", "1,2"]],
      },
    },
    {
      name: "an expression hundreds deep; one too deep is refused",
      steps: [{ sql: `SELECT ${"(".repeat(5000)}1${")".repeat(5000)}`, fails: "invalid_sql" }],
      expect: { [`SELECT ${Array.from({ length: 450 }, () => "1").join(" + ")} AS n`]: [[450]] },
    },
  ]);
});

describe("texts that are no statement", () => {
  testFeatures([
    {
      name: "several statements, none, and comments only",
      steps: [
        { sql: "SELECT 1; SELECT 2", fails: "invalid_sql" },
        { sql: "", fails: "invalid_sql" },
        { sql: " ; ", fails: "invalid_sql" },
        { sql: "-- nothing", fails: "invalid_sql" },
        { sql: "/* nothing */", fails: "invalid_sql" },
        { sql: "SELEC 1", fails: "invalid_sql" },
        { sql: "SELECT 1 \0", fails: "invalid_sql" },
        "SELECT 1; -- and that is all",
      ],
    },
    {
      name: "transactions as SQL, other databases and files",
      steps: [
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT x",
        "ATTACH 'x' AS x",
        "VACUUM",
        "VACUUM INTO 'x'",
        "CREATE TEMP TABLE x (a)",
        "PRAGMA journal_mode = DELETE",
      ].map((sql) => ({ sql, fails: "unsupported_sql" as const })),
    },
  ]);
});
