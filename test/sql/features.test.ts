/** SQL that users of SQLite expect, feature by feature: it works, and its outcome is rebuilt from the log. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { TestNode } from "../sim/test-node.ts";
import { testFeatures } from "./feature.ts";

const PEOPLE = [
  "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT, born INTEGER)",
  `INSERT INTO people (name, city, born) VALUES ('Ada', 'London', 1815), ('Alan', 'London', 1912),
   ('Grace', 'New York', 1906), ('Edsger', NULL, 1930)`,
];

const WIDE = Array.from({ length: 1000 }, (_, at) => `c${at}`);

describe("tables", () => {
  testFeatures([
    {
      name: "CREATE TABLE, and again IF NOT EXISTS",
      steps: [
        ...PEOPLE,
        "CREATE TABLE IF NOT EXISTS people (other)",
        { sql: "CREATE TABLE people (other)", fails: "invalid_sql" },
      ],
      expect: { "SELECT count(*) FROM people": [[4]] },
    },
    {
      name: "DROP TABLE, and again IF EXISTS",
      steps: [
        ...PEOPLE,
        "DROP TABLE people",
        "DROP TABLE IF EXISTS people",
        { sql: "SELECT * FROM people", fails: "invalid_sql" },
      ],
      expect: { "SELECT count(*) FROM sqlite_master WHERE name = 'people'": [[0]] },
    },
    {
      name: "STRICT tables refuse values of another type",
      steps: [
        "CREATE TABLE s (i INTEGER, r REAL, t TEXT, b BLOB, a ANY) STRICT",
        "INSERT INTO s VALUES (1, 1, 'x', x'00', '1')",
        { sql: "INSERT INTO s (i) VALUES ('x')", fails: "constraint_violation" },
      ],
      expect: { "SELECT i, typeof(r), t, hex(b), typeof(a) FROM s": [[1, "real", "x", "00", "text"]] },
    },
    {
      name: "WITHOUT ROWID with a composite key in two directions",
      steps: [
        "CREATE TABLE w (a, b, v, PRIMARY KEY (a, b DESC)) WITHOUT ROWID",
        "INSERT INTO w VALUES (1, 1, 'x'), (1, 2, 'y'), (0, 9, 'z')",
        "UPDATE w SET b = b + 10 WHERE v = 'x'",
        "DELETE FROM w WHERE a = 0",
      ],
      expect: {
        "SELECT a, b, v FROM w": [
          [1, 11, "x"],
          [1, 2, "y"],
        ],
      },
    },
    {
      name: "generated columns, virtual and stored",
      steps: [
        "CREATE TABLE g (a, b, v AS (a + b), s AS (a * b) STORED UNIQUE)",
        "INSERT INTO g (a, b) VALUES (2, 3)",
        { sql: "INSERT INTO g (a, b) VALUES (3, 2)", fails: "constraint_violation" },
        "UPDATE g SET a = 5",
      ],
      expect: { "SELECT a, b, v, s FROM g": [[5, 3, 8, 15]] },
    },
    {
      name: "AUTOINCREMENT never gives an id again",
      steps: [
        "CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT, v UNIQUE)",
        "INSERT INTO a (v) VALUES (1), (2)",
        "DELETE FROM a",
        "INSERT OR IGNORE INTO a (v) VALUES (1), (1), (2)",
        "UPDATE sqlite_sequence SET seq = 100 WHERE name = 'a'",
        "INSERT INTO a (v) VALUES (9)",
        { sql: "UPDATE sqlite_sequence SET seq = 'x'", fails: "unsupported_sql" },
        { sql: "INSERT INTO sqlite_sequence VALUES ('a', 1)", fails: "unsupported_sql" },
      ],
      expect: {
        "SELECT id, v FROM a": [
          [3, 1],
          [5, 2],
          [101, 9],
        ],
        "SELECT seq FROM sqlite_sequence": [[101]],
      },
    },
    {
      name: "CREATE TABLE AS SELECT keeps what chance gave",
      steps: [
        "CREATE TABLE r AS SELECT random() AS x, randomblob(8) AS y, datetime('now') AS z FROM json_each('[1,2,3]')",
      ],
      expect: { "SELECT count(*), count(DISTINCT x), min(length(y)) FROM r": [[3, 3, 8]] },
    },
    {
      name: "CHECK, NOT NULL, DEFAULT, and a check that chance decides",
      steps: [
        "CREATE TABLE c (a NOT NULL DEFAULT 7, b CHECK (b > 0), c DEFAULT (random()), d CHECK (random() | 1))",
        "INSERT INTO c (b) VALUES (1)",
        { sql: "INSERT INTO c (b) VALUES (0)", fails: "constraint_violation" },
        { sql: "INSERT INTO c (a) VALUES (NULL)", fails: "constraint_violation" },
      ],
      expect: { "SELECT a, b, typeof(c) FROM c": [[7, 1, "integer"]] },
    },
    {
      name: "a table with 1,000 columns",
      steps: [
        `CREATE TABLE wide (${WIDE.join(", ")})`,
        "INSERT INTO wide (c0, c999) VALUES (1, 2)",
        "UPDATE wide SET c500 = 3",
      ],
      expect: { "SELECT c0, c1, c500, c999 FROM wide": [[1, null, 3, 2]] },
    },
    {
      name: "a table whose columns take the names of the rowid",
      steps: [
        "CREATE TABLE n (rowid, oid, v)",
        "INSERT INTO n VALUES (1, 2, 3), (1, 2, 3)",
        "DELETE FROM n WHERE _rowid_ = 1",
        { sql: "CREATE TABLE m (rowid, oid, _rowid_)", fails: "unsupported_sql" },
      ],
      expect: { "SELECT _rowid_ AS r, rowid, v FROM n": [[2, 1, 3]] },
    },
    {
      name: "names in quotes, with quotes, and in other scripts",
      steps: [
        'CREATE TABLE "a ""b"" c" ("select" PRIMARY KEY, "naïve 🙂")',
        `INSERT INTO "a ""b"" c" VALUES ('x', 1)`,
      ],
      expect: { 'SELECT "select", "naïve 🙂" FROM "a ""b"" c"': [["x", 1]] },
    },
  ]);
});

describe("ALTER TABLE", () => {
  testFeatures([
    {
      name: "RENAME TO takes triggers, views and references along",
      steps: [
        "CREATE TABLE a (id INTEGER PRIMARY KEY)",
        "CREATE TABLE b (a REFERENCES a ON DELETE CASCADE)",
        "CREATE VIEW v AS SELECT id FROM a",
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN INSERT INTO b VALUES (NEW.id); END",
        "ALTER TABLE a RENAME TO c",
        "INSERT INTO c VALUES (1), (2)",
        "DELETE FROM c WHERE id = 1",
      ],
      expect: { "SELECT id FROM v": [[2]], "SELECT a FROM b": [[2]] },
    },
    {
      name: "RENAME COLUMN",
      steps: [
        ...PEOPLE,
        "CREATE INDEX i ON people (city)",
        "ALTER TABLE people RENAME COLUMN city TO town",
        "UPDATE people SET town = 'Paris' WHERE town IS NULL",
      ],
      expect: { "SELECT count(*) FROM people WHERE town = 'Paris'": [[1]] },
    },
    {
      name: "ADD COLUMN with default, check and generated value",
      steps: [
        ...PEOPLE,
        "ALTER TABLE people ADD COLUMN age INTEGER NOT NULL DEFAULT 1 CHECK (age > 0)",
        "ALTER TABLE people ADD COLUMN shout AS (upper(name))",
        "UPDATE people SET age = 2 WHERE id = 1",
        { sql: "UPDATE people SET age = 0", fails: "constraint_violation" },
      ],
      expect: {
        "SELECT age, shout FROM people WHERE id < 3": [
          [2, "ADA"],
          [1, "ALAN"],
        ],
      },
    },
    {
      name: "DROP COLUMN",
      steps: [
        ...PEOPLE,
        "ALTER TABLE people DROP COLUMN city",
        "INSERT INTO people (name, born) VALUES ('Barbara', 1939)",
      ],
      expect: { "SELECT * FROM people WHERE id = 5": [[5, "Barbara", 1939]] },
    },
    {
      name: "ALTER COLUMN SET and DROP NOT NULL",
      steps: [
        ...PEOPLE,
        "ALTER TABLE people ALTER COLUMN born SET NOT NULL",
        { sql: "INSERT INTO people (name) VALUES ('Nobody')", fails: "constraint_violation" },
        "ALTER TABLE people ALTER COLUMN name DROP NOT NULL",
        "INSERT INTO people (born) VALUES (2000)",
      ],
      expect: { "SELECT name, born FROM people WHERE id = 5": [[null, 2000]] },
    },
    {
      name: "ADD and DROP CONSTRAINT",
      steps: [
        ...PEOPLE,
        "ALTER TABLE people ADD CONSTRAINT modern CHECK (born > 1800)",
        { sql: "UPDATE people SET born = 1", fails: "constraint_violation" },
        "ALTER TABLE people DROP CONSTRAINT modern",
        "UPDATE people SET born = 1 WHERE id = 1",
      ],
      expect: { "SELECT born FROM people WHERE id = 1": [[1]] },
    },
    {
      name: "a renamed name of ours is refused, and nothing of it stays",
      steps: [
        ...PEOPLE,
        { sql: "ALTER TABLE people RENAME TO _kimberlite_x", fails: "unsupported_sql" },
        "DELETE FROM people WHERE id > 1",
      ],
      expect: { "SELECT name FROM people": [["Ada"]] },
    },
  ]);
});

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

describe("indexes, views, triggers and foreign keys", () => {
  testFeatures([
    {
      name: "unique, partial and expression indexes; REINDEX and ANALYZE",
      steps: [
        ...PEOPLE,
        "CREATE UNIQUE INDEX i ON people (lower(name))",
        "CREATE UNIQUE INDEX j ON people (city) WHERE born > 1910",
        { sql: "INSERT INTO people (name) VALUES ('ADA')", fails: "constraint_violation" },
        { sql: "UPDATE people SET born = 1999 WHERE id = 1", fails: "constraint_violation" },
        "REINDEX",
        "ANALYZE",
        "DROP INDEX j",
        "UPDATE people SET born = 1999 WHERE id = 1",
      ],
      expect: { "SELECT born FROM people WHERE lower(name) = 'ada'": [[1999]] },
    },
    {
      name: "views, and INSTEAD OF triggers that write through them",
      steps: [
        ...PEOPLE,
        "CREATE VIEW londoners AS SELECT id, name FROM people WHERE city = 'London'",
        "CREATE TRIGGER ti INSTEAD OF INSERT ON londoners BEGIN INSERT INTO people (name, city) VALUES (NEW.name, 'London'); END",
        "CREATE TRIGGER td INSTEAD OF DELETE ON londoners BEGIN DELETE FROM people WHERE id = OLD.id; END",
        "INSERT INTO londoners (name) VALUES ('Mary')",
        "DELETE FROM londoners WHERE name = 'Ada'",
      ],
      expect: { "SELECT name FROM londoners": [["Alan"], ["Mary"]] },
    },
    {
      name: "triggers that change the same row again, and recursive ones",
      steps: [
        "CREATE TABLE n (id INTEGER PRIMARY KEY, v)",
        "CREATE TRIGGER twice AFTER INSERT ON n BEGIN UPDATE n SET v = NEW.v * 2 WHERE id = NEW.id; END",
        "CREATE TRIGGER down AFTER INSERT ON n WHEN NEW.v > 1 BEGIN INSERT INTO n (v) VALUES (NEW.v - 1); END",
        "INSERT INTO n (v) VALUES (3)",
        "DROP TRIGGER twice",
      ],
      expect: {
        "SELECT id, v FROM n": [
          [1, 6],
          [2, 4],
          [3, 2],
        ],
      },
    },
    {
      name: "RAISE(IGNORE) and RAISE(ABORT)",
      steps: [
        "CREATE TABLE n (v)",
        "CREATE TRIGGER skip BEFORE INSERT ON n WHEN NEW.v = 1 BEGIN SELECT RAISE(IGNORE); END",
        "CREATE TRIGGER stop BEFORE INSERT ON n WHEN NEW.v = 2 BEGIN SELECT RAISE(ABORT, 'two'); END",
        "INSERT INTO n VALUES (0), (1), (3)",
        { sql: "INSERT INTO n VALUES (4), (2)", fails: "constraint_violation" },
      ],
      expect: { "SELECT v FROM n": [[0], [3]] },
    },
    {
      name: "foreign keys: CASCADE, SET NULL, SET DEFAULT, RESTRICT",
      steps: [
        "CREATE TABLE p (id INTEGER PRIMARY KEY)",
        "CREATE TABLE c (p REFERENCES p ON DELETE CASCADE ON UPDATE CASCADE)",
        "CREATE TABLE n (p REFERENCES p ON DELETE SET NULL)",
        "CREATE TABLE d (p DEFAULT 1 REFERENCES p ON DELETE SET DEFAULT)",
        "CREATE TABLE r (p REFERENCES p ON DELETE RESTRICT)",
        "INSERT INTO p VALUES (1), (2), (3)",
        "INSERT INTO c VALUES (2), (3)",
        "INSERT INTO n VALUES (2)",
        "INSERT INTO d VALUES (2)",
        "INSERT INTO r VALUES (1)",
        { sql: "INSERT INTO c VALUES (9)", fails: "constraint_violation" },
        { sql: "DELETE FROM p WHERE id = 1", fails: "constraint_violation" },
        "DELETE FROM p WHERE id = 2",
        "UPDATE p SET id = 30 WHERE id = 3",
      ],
      expect: { "SELECT p FROM c": [[30]], "SELECT p FROM n": [[null]], "SELECT p FROM d": [[1]] },
    },
    {
      name: "DROP TABLE of a parent empties its children, and their triggers see it",
      steps: [
        "CREATE TABLE p (id INTEGER PRIMARY KEY)",
        "CREATE TABLE c (p REFERENCES p ON DELETE CASCADE)",
        "CREATE TABLE seen (p)",
        "CREATE TRIGGER t AFTER DELETE ON c BEGIN INSERT INTO seen VALUES (OLD.p); END",
        "INSERT INTO p VALUES (1), (2)",
        "INSERT INTO c VALUES (1), (2)",
        "DROP TABLE p",
      ],
      expect: { "SELECT count(*) FROM c": [[0]] },
    },
  ]);
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
