/** Tables and what stands around them, feature by feature: they work, and are rebuilt from the log. */
import { describe } from "vitest";
import { PEOPLE, testFeatures } from "./feature.ts";

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
      name: "ANALYZE of nothing",
      steps: ["ANALYZE"],
      expect: { "SELECT count(*) FROM sqlite_stat1": [[0]] },
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
