/**
 * The guard's rules one by one: what tenants' SQL may name, what is reported, how a connection is set.
 *
 * Over 500 lines because everything that the authorizer can be asked has its row.
 */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import Database from "better-sqlite3-multiple-ciphers";
import { describe, expect, it } from "vitest";
import { denialHint, type Guard, type GuardMode, type GuardReport, installGuard, NO_ROWID } from "./guard.ts";

interface Guarded {
  readonly db: Database.Database;
  readonly guard: Guard;
  readonly touched: unknown[][];
}

interface Outcome {
  readonly rows?: readonly unknown[];
  readonly error?: string;
  readonly denied: string | undefined;
  readonly report: GuardReport;
}

const header = sqliteFile("sqlite3.h");

/** A database as a projection is: bookkeeping of ours, a captured table, and a table of the tenant's beside it. */
function open(): Guarded {
  const db = new Database(":memory:");
  db.pragma("recursive_triggers = ON");
  const guard = installGuard(db, { maxValueBytes: 1 << 20, maxSqlBytes: 100_000 });
  const touched: unknown[][] = [];
  db.function("kimberlite_touch", { varargs: true }, (...values) => {
    touched.push(values);
    return null;
  });
  db.exec(`
    CREATE TABLE _kimberlite_meta (id INTEGER PRIMARY KEY, secret TEXT UNIQUE);
    INSERT INTO _kimberlite_meta VALUES (1, 'ours');
    CREATE TABLE patients (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, ward);
    CREATE TABLE wards (a, b);
    CREATE INDEX by_name ON patients (name);
    CREATE VIEW names AS SELECT name FROM patients;
    INSERT INTO patients VALUES (1, 'Ada', 7);
    CREATE TRIGGER renamed AFTER UPDATE ON patients BEGIN SELECT 1; END;
    CREATE VIRTUAL TABLE notes USING fts5(body);
    CREATE TEMP TRIGGER _kimberlite_capture_1_ins AFTER INSERT ON main.patients
      BEGIN SELECT kimberlite_touch(1, NEW.id, NULL); END;
    CREATE TEMP TRIGGER _kimberlite_capture_1_upd BEFORE UPDATE ON main.patients
      BEGIN SELECT kimberlite_touch(1, OLD.id, kimberlite_row(OLD.id, OLD.name, OLD.ward)); END;
    CREATE TEMP TRIGGER _kimberlite_capture_1_del BEFORE DELETE ON main.patients
      BEGIN SELECT kimberlite_touch(1, OLD.id, kimberlite_row(OLD.id, OLD.name, OLD.ward)); END;
  `);
  return { db, guard, touched };
}

function run({ db, guard }: Guarded, sql: string, mode: GuardMode = "write"): Outcome {
  let rows: readonly unknown[] | undefined;
  let error: string | undefined;
  guard.enter(mode, 0);
  try {
    const statement = db.prepare(sql);
    rows = statement.reader ? statement.raw().all() : [statement.run().changes];
  } catch (cause) {
    error = (cause as Error).message;
  }
  const report = guard.leave();
  const denied = guard.denied();
  const text = denied && [denied.action, denied.object].filter((part) => part !== undefined).join(" ");
  return { ...(rows ? { rows } : {}), ...(error === undefined ? {} : { error }), denied: text, report };
}

function sqliteFile(name: string): string {
  const library = createRequire(import.meta.url).resolve("better-sqlite3-multiple-ciphers/package.json");
  return readFileSync(join(dirname(library), "deps", "sqlite3", name), "utf8");
}

/** The names of a list in native/allowed.h. */
function allowed(list: string): string[] {
  const source = readFileSync(fileURLToPath(new URL("../../native/allowed.h", import.meta.url)), "utf8");
  const body = new RegExp(`${list}\\[\\] = \\{([^}]*)\\}`).exec(source)?.[1] ?? "";
  return [...body.matchAll(/"([^"]+)"/g)].map((match) => match[1] ?? "");
}

/** For every action of SQLite: statements that need it, and what each is refused as ("" for permitted). */
const ACTIONS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  COPY: {},
  CREATE_INDEX: {
    "CREATE INDEX i ON patients (ward)": "",
    "CREATE INDEX _kimberlite_i ON patients (ward)": "CREATE_INDEX _kimberlite_i",
    "CREATE INDEX i ON _kimberlite_meta (secret)": "CREATE_INDEX _kimberlite_meta",
  },
  CREATE_TABLE: {
    "CREATE TABLE t (a)": "",
    "CREATE TABLE _Kimberlite_t (a)": "CREATE_TABLE _Kimberlite_t",
    "CREATE TABLE temp.t (a)": "CREATE_TABLE t",
    "CREATE TABLE t AS SELECT * FROM _kimberlite_meta": "READ _kimberlite_meta",
  },
  CREATE_TEMP_INDEX: { "CREATE INDEX temp.i ON patients (ward)": "" },
  CREATE_TEMP_TABLE: { "CREATE TEMP TABLE t (a)": "CREATE_TEMP_TABLE t" },
  CREATE_TEMP_TRIGGER: {
    "CREATE TEMP TRIGGER g AFTER INSERT ON patients BEGIN SELECT 1; END": "CREATE_TEMP_TRIGGER g",
  },
  CREATE_TEMP_VIEW: { "CREATE TEMP VIEW v AS SELECT 1": "CREATE_TEMP_VIEW v" },
  CREATE_TRIGGER: {
    "CREATE TRIGGER g AFTER INSERT ON patients BEGIN SELECT 1; END": "",
    "CREATE TRIGGER _kimberlite_capture_g AFTER INSERT ON patients BEGIN SELECT 1; END":
      "CREATE_TRIGGER _kimberlite_capture_g",
    "CREATE TRIGGER g AFTER INSERT ON _kimberlite_meta BEGIN SELECT 1; END":
      "CREATE_TRIGGER _kimberlite_meta",
  },
  CREATE_VIEW: {
    "CREATE VIEW v AS SELECT * FROM patients": "",
    "CREATE VIEW _kimberlite_v AS SELECT 1": "CREATE_VIEW _kimberlite_v",
  },
  DELETE: {
    "DELETE FROM patients": "",
    "DELETE FROM _kimberlite_meta": "DELETE _kimberlite_meta",
    "DELETE FROM sqlite_sequence": "",
    "DELETE FROM sqlite_master": "",
    "DELETE FROM sqlite_temp_master": "",
  },
  DROP_INDEX: {
    "DROP INDEX by_name": "",
    "DROP INDEX sqlite_autoindex__kimberlite_meta_1": "",
  },
  DROP_TABLE: { "DROP TABLE patients": "", "DROP TABLE _kimberlite_meta": "DROP_TABLE _kimberlite_meta" },
  DROP_TEMP_INDEX: {},
  DROP_TEMP_TABLE: {},
  DROP_TEMP_TRIGGER: {
    "DROP TRIGGER _kimberlite_capture_1_ins": "DROP_TEMP_TRIGGER _kimberlite_capture_1_ins",
    "EXPLAIN DROP TRIGGER temp._kimberlite_capture_1_ins": "DROP_TEMP_TRIGGER _kimberlite_capture_1_ins",
  },
  DROP_TEMP_VIEW: {},
  DROP_TRIGGER: { "DROP TRIGGER renamed": "" },
  DROP_VIEW: { "DROP VIEW names": "" },
  INSERT: {
    "INSERT INTO patients (name) VALUES ('Bob')": "",
    "INSERT INTO _kimberlite_meta VALUES (2, 'x')": "INSERT _kimberlite_meta",
    "INSERT INTO sqlite_temp_master VALUES ('view', 'x', 'x', 0, 'x')": "",
    "INSERT INTO sqlite_stat1 VALUES ('a', 'b', 'c')": "INSERT sqlite_stat1",
  },
  PRAGMA: { "PRAGMA table_info(patients)": "", "PRAGMA key = 'x'": "PRAGMA key" },
  READ: {
    "SELECT * FROM patients": "",
    "SELECT secret FROM _kimberlite_meta": "READ _kimberlite_meta",
    "SELECT count(*) FROM _KIMBERLITE_META": "READ _KIMBERLITE_META",
    "SELECT * FROM sqlite_sequence": "",
    "SELECT * FROM sqlite_temp_master": "READ sqlite_temp_master",
    "SELECT count(*) FROM sqlite_temp_schema": "READ sqlite_temp_schema",
    "SELECT count(*) FROM temp.sqlite_master": "READ sqlite_master",
    "SELECT sql FROM sqlite_temp_schema WHERE 1 IN (VALUES (1), (2))": "READ sqlite_temp_master",
    "SELECT * FROM dbstat": "READ dbstat",
    "SELECT count(*) FROM dbstat": "READ dbstat",
  },
  SELECT: { "SELECT 1": "" },
  TRANSACTION: { BEGIN: "TRANSACTION BEGIN", COMMIT: "TRANSACTION COMMIT", ROLLBACK: "TRANSACTION ROLLBACK" },
  UPDATE: {
    "UPDATE patients SET ward = 8": "",
    "UPDATE _kimberlite_meta SET secret = 'x'": "UPDATE _kimberlite_meta",
    "UPDATE sqlite_sequence SET seq = 9": "",
    "UPDATE sqlite_temp_schema SET sql = ''": "",
  },
  ATTACH: {
    "ATTACH 'elsewhere.db' AS e": "ATTACH",
    VACUUM: "ATTACH",
    "VACUUM INTO 'copy.db'": "ATTACH",
  },
  DETACH: { "DETACH main": "DETACH main" },
  ALTER_TABLE: {
    "ALTER TABLE patients ADD COLUMN a DEFAULT 1": "",
    "ALTER TABLE patients RENAME COLUMN ward TO room": "",
    "ALTER TABLE wards DROP COLUMN b": "",
    "ALTER TABLE patients ADD CONSTRAINT k CHECK (id > 0)": "",
    "ALTER TABLE notes RENAME TO remarks": "",
    "ALTER TABLE _kimberlite_meta ADD COLUMN a": "ALTER_TABLE _kimberlite_meta",
  },
  REINDEX: { REINDEX: "", "REINDEX patients": "", "REINDEX _kimberlite_meta": "" },
  ANALYZE: { ANALYZE: "", "ANALYZE patients": "", "ANALYZE _kimberlite_meta": "" },
  CREATE_VTABLE: {
    "CREATE VIRTUAL TABLE f USING fts5(a)": "",
    "CREATE VIRTUAL TABLE f USING fts4(a)": "CREATE_VTABLE f",
    "CREATE VIRTUAL TABLE f USING rtree(a, b, c)": "CREATE_VTABLE f",
    "CREATE VIRTUAL TABLE f USING dbstat": "CREATE_VTABLE f",
  },
  DROP_VTABLE: { "DROP TABLE notes": "" },
  FUNCTION: { "SELECT upper('a')": "", "SELECT load_extension('x')": "FUNCTION load_extension" },
  SAVEPOINT: { "SAVEPOINT s": "SAVEPOINT BEGIN", "RELEASE s": "SAVEPOINT RELEASE" },
  RECURSIVE: {
    "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 3) SELECT n FROM c": "",
  },
};

/** Permitted by the authorizer, because SQLite's DDL asks for the same, and refused by SQLite itself. */
const REFUSED_BY_SQLITE: Readonly<Record<string, RegExp>> = {
  "CREATE INDEX temp.i ON patients (ward)": /cannot create a TEMP index/,
  "DELETE FROM sqlite_master": /may not be modified/,
  "DELETE FROM sqlite_temp_master": /may not be modified/,
  "UPDATE sqlite_temp_schema SET sql = ''": /may not be modified/,
  "INSERT INTO sqlite_temp_master VALUES ('view', 'x', 'x', 0, 'x')": /may not be modified/,
  "DROP INDEX sqlite_autoindex__kimberlite_meta_1": /cannot be dropped/,
};

describe("authorizer", () => {
  it("has a verdict for every action of the header", () => {
    const codes = header.slice(
      header.indexOf("Authorizer Action Codes"),
      header.indexOf("Deprecated Tracing"),
    );
    const names = [...codes.matchAll(/^#define SQLITE_(\w+)\s+\d+\s/gm)].map((match) => match[1] ?? "");
    expect(names.length).toBeGreaterThan(30);
    expect(Object.keys(ACTIONS).sort()).toEqual(names.sort());
  });

  const cases = Object.entries(ACTIONS).flatMap(([action, statements]) =>
    Object.entries(statements).map(([sql, refusal]) => ({ action, sql, refusal })),
  );
  it.each(cases)("$action: $sql", ({ sql, refusal }) => {
    const database = open();
    if (/sqlite_stat/.test(sql)) database.db.exec("ANALYZE");
    const outcome = run(database, sql);
    expect(outcome.denied ?? "").toBe(refusal);
    if (refusal !== "") expect(outcome.error).toMatch(/not authorized|prohibited|authorization denied/);
    else if (sql in REFUSED_BY_SQLITE) expect(outcome.error).toMatch(REFUSED_BY_SQLITE[sql] ?? /^$/);
    else expect(outcome.error).toBeUndefined();
    expect(database.db.prepare("SELECT * FROM _kimberlite_meta").raw().all()).toEqual([[1, "ours"]]);
  });

  it("serves queries only in read mode", () => {
    const database = open();
    const refused = cases.filter(({ sql, refusal }) => {
      const query = /^(SELECT|WITH|PRAGMA table_info)/.test(sql);
      const error = run(database, sql, "read").error;
      if (query && refusal === "") expect(error).toBeUndefined();
      return !query && error === undefined;
    });
    expect(refused).toEqual([]);
    expect(run(database, "PRAGMA user_version = 3", "read").denied).toBe("PRAGMA user_version");
    expect(run(database, "PRAGMA user_version", "read").rows).toEqual([[0]]);
    expect(run(database, "SELECT count(*) FROM notes('x')", "read").rows).toEqual([[0]]);
  });

  it("captures, and does not let tenants imitate the capture", () => {
    const database = open();
    run(database, "INSERT INTO patients (name) VALUES ('Bob') RETURNING id");
    run(database, "INSERT OR REPLACE INTO patients (id, name) VALUES (1, 'Eve')");
    expect(database.touched.map(([stream, id]) => [stream, id])).toEqual([
      [1, 2],
      [1, 1],
      [1, 1],
    ]);
    const imitation = "WITH _kimberlite_capture_1_ins AS (SELECT kimberlite_touch(1, 2, 3) AS name)";
    const from = "FROM _kimberlite_capture_1_ins";
    database.touched.length = 0;
    for (const sql of [
      "SELECT kimberlite_touch(1, 2, NULL)",
      `${imitation} SELECT name ${from}`,
      `INSERT INTO notes (body) ${imitation} SELECT name ${from}`,
      `INSERT INTO notes (body) VALUES (1), ((${imitation} SELECT name ${from}))`,
      `INSERT INTO notes (body) VALUES ('a') RETURNING (${imitation} SELECT name ${from})`,
    ]) {
      expect(run(database, sql).denied).toBe("FUNCTION kimberlite_touch");
    }
    run(database, `CREATE TRIGGER g AFTER DELETE ON notes_config BEGIN SELECT 1; END`);
    run(database, `CREATE TABLE t (a)`);
    run(
      database,
      `CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO notes SELECT name FROM (${imitation} SELECT name ${from}); END`,
    );
    expect(run(database, "INSERT INTO t VALUES (1)").error).toMatch(/unsafe use of kimberlite_touch/);
    expect(database.touched).toEqual([]);
  });

  it("keeps the capture triggers out of sight and reach after DDL in the same entry", () => {
    const { db, guard } = open();
    guard.enter("write", 0);
    for (const ddl of [
      "EXPLAIN DROP TABLE patients",
      "ALTER TABLE patients ADD COLUMN z",
      "DROP VIEW names",
    ]) {
      const statement = db.prepare(ddl);
      if (statement.reader) statement.all();
      else statement.run();
      expect(() => db.prepare("DROP TRIGGER _kimberlite_capture_1_ins")).toThrow(/not authorized/);
      expect(() => db.prepare("SELECT sql FROM sqlite_temp_master WHERE 1 IN (VALUES (1), (2))")).toThrow(
        /prohib/,
      );
    }
    expect(() => db.prepare("DROP VIEW patients")).toThrow(/use DROP TABLE/);
    expect(() => db.prepare("DROP TRIGGER _kimberlite_capture_1_ins")).toThrow(/not authorized/);
    guard.leave();
  });
});

describe("lists", () => {
  const { db } = open();
  const functions = db.prepare("SELECT DISTINCT name FROM pragma_function_list ORDER BY 1").pluck().all();
  const refusedFunctions = new RegExp(
    "^(load_extension|sqlite3mc_\\w+|sqlite_log|fts3_tokenizer|fts5|matchinfo|offsets|optimize" +
      "|geopoly_\\w+|rtree\\w+|kimberlite_\\w+|jsonb?_patch)$",
  );

  it("names every function of the library or refuses it for a reason", () => {
    const ours = allowed("FUNCTIONS");
    expect(ours).toEqual([...new Set(ours)].sort());
    const unnamed = functions.filter((name) => !ours.includes(String(name)));
    expect(unnamed.filter((name) => !refusedFunctions.test(String(name)))).toEqual([]);
    expect(ours.filter((name) => refusedFunctions.test(name) || !functions.includes(name))).toEqual([]);
  });

  it("has SQLite's internal functions as they are in the library, and tenants cannot call them", () => {
    const internal = [...sqliteFile("sqlite3.c").matchAll(/^ {4}INTERNAL_FUNCTION\((\w+),/gm)].map((m) =>
      String(m[1]),
    );
    expect(allowed("ALTER_FUNCTIONS")).toEqual([...new Set(internal)].sort());
    for (const name of internal) expect(run(open(), `SELECT ${name}(1, 2)`).error).toBeDefined();
  });

  it.each([
    "load_extension('x')",
    "sqlite3mc_config('cipher')",
    "sqlite3mc_codec_data('salt')",
    "sqlite3mc_vle_decrypt('x')",
    "fts3_tokenizer('simple')",
    "sqlite_log(1, 'x')",
    "kimberlite_row(1)",
    "kimberlite_col(x'8101', 0)",
    "kimberlite_setup(zeroblob(16), 1, 1, 1)",
    "kimberlite_enter(zeroblob(16), 1, 1)",
    "kimberlite_denied(zeroblob(16))",
    "kimberlite_config(zeroblob(16), 'defensive', 0)",
    "kimberlite_leave(zeroblob(16))",
  ])("refuses %s", (call) => {
    const outcome = run(open(), `SELECT ${call}`);
    expect(outcome.rows).toBeUndefined();
    expect(outcome.error).toMatch(/not authorized|no such function|wrong number/);
  });

  it("permits the pragmas listed, bare or with a name, and no others", () => {
    const names = db.prepare("SELECT name FROM pragma_pragma_list").pluck().all().map(String);
    const known = ["PRAGMAS_BARE", "PRAGMAS_WITH_NAME", "PRAGMAS_SETTABLE"].map(allowed);
    const [bare = [], named = [], settable = []] = known;
    for (const list of known) expect(list).toEqual([...list].sort());
    expect([...bare, ...named, ...settable].filter((name) => !names.includes(name))).toEqual([]);
    const verdicts = [
      ...names,
      "key",
      "rekey",
      "cipher",
      "hexkey",
      "temp_store_directory",
      "data_store_directory",
    ].map((name) => ({
      name,
      bare: run(open(), `PRAGMA ${name}`).denied === undefined,
      argument: run(open(), `PRAGMA ${name} = 1`).denied === undefined,
      table: run(open(), `SELECT * FROM pragma_${name}`).error === undefined,
    }));
    for (const verdict of verdicts) {
      expect([verdict.name, verdict.bare]).toEqual([verdict.name, known.flat().includes(verdict.name)]);
      expect([verdict.name, verdict.argument]).toEqual([
        verdict.name,
        [...named, ...settable].includes(verdict.name),
      ]);
      if (!known.flat().includes(verdict.name))
        expect([verdict.name, verdict.table]).toEqual([verdict.name, false]);
    }
    for (const sql of [
      "PRAGMA table_info(_kimberlite_meta)",
      "PRAGMA index_info(sqlite_autoindex__kimberlite_meta_1)",
    ]) {
      expect(run(open(), sql).denied).toMatch(/^PRAGMA/);
    }
    expect(run(open(), "SELECT * FROM pragma_table_xinfo('_kimberlite_meta')").denied).toBe(
      "PRAGMA table_xinfo",
    );
  });

  it("knows every table that the library offers without CREATE", () => {
    const eponymous = db.prepare("SELECT name FROM pragma_module_list").pluck().all().map(String);
    for (const name of eponymous) {
      const outcome = run(open(), `SELECT count(*) FROM ${name}`);
      const served = outcome.error === undefined;
      expect([name, served]).toEqual([name, /^json_(each|tree)$/.test(name)]);
    }
  });
});

describe("report", () => {
  const bits = (sql: string, database = open()): string[] =>
    Object.entries(run(database, sql).report)
      .filter(([, set]) => set === true)
      .map(([name]) => name);

  it.each([
    ["SELECT * FROM patients", []],
    ["INSERT INTO patients (name) VALUES ('x')", ["rowWrites", "inserts"]],
    ["UPDATE patients SET name = 'x'", ["rowWrites"]],
    ["SELECT last_insert_rowid()", ["asksRowid"]],
    ["CREATE TABLE t (a)", ["schemaChange"]],
    ["CREATE INDEX i ON patients (ward)", ["schemaChange", "analyzeOrReindex"]],
    ["ALTER TABLE patients ADD COLUMN z", ["schemaChange", "alterTable"]],
    ["ANALYZE", ["analyzeOrReindex"]],
    ["CREATE VIRTUAL TABLE f USING fts5(a)", ["schemaChange", "virtualTable", "rowWrites", "inserts"]],
    ["PRAGMA user_version = 7", ["pragmaSet"]],
    ["PRAGMA user_version", []],
    ["UPDATE sqlite_sequence SET seq = 4", ["sequenceWrites"]],
    ["PRAGMA key = 'x'", []],
  ])("%s", (sql, expected) => {
    expect(bits(sql)).toEqual(expected);
  });

  it("tells of deferred violations", () => {
    const database = open();
    database.db.exec("CREATE TABLE c (p REFERENCES patients DEFERRABLE INITIALLY DEFERRED); BEGIN");
    expect(bits("INSERT INTO c VALUES (99)", database)).toEqual([
      "deferredViolations",
      "rowWrites",
      "inserts",
    ]);
    expect(bits("INSERT INTO patients (id) VALUES (99)", database)).toEqual(["rowWrites", "inserts"]);
    database.db.exec("COMMIT");
  });

  it("tells how much memory what was compiled takes, and nothing of what was there", () => {
    const { db, guard } = open();
    const kept = [db.prepare("SELECT 1")];
    guard.enter("read", 0);
    kept.push(db.prepare(`SELECT '${"x".repeat(10_000)}'`));
    expect(guard.leave().compiledBytes).toBeGreaterThan(10_000);
    guard.enter("read", 0);
    expect(guard.leave().compiledBytes).toBe(0);
    expect(kept).toHaveLength(2);
  });

  it("marks the last rowid for a statement that may insert, and gives it back", () => {
    const { db, guard } = open();
    db.exec("INSERT INTO patients (id) VALUES (41)");
    const last = db.prepare("SELECT last_insert_rowid()").pluck().safeIntegers();
    guard.enter("insert", 0);
    expect(last.get()).toBe(NO_ROWID);
    guard.leave();
    expect(last.get()).toBe(41n);
    guard.enter("insert", 0);
    db.prepare("INSERT INTO patients (id) VALUES (42)").run();
    guard.leave();
    expect(last.get()).toBe(42n);
  });

  it("trusts what is replayed, and stops it at its deadline", () => {
    const { db, guard } = open();
    guard.enter("replay", 20);
    expect(() =>
      db.exec(
        "CREATE TABLE t AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c",
      ),
    ).toThrow(/interrupted/);
    expect(guard.leave().deadlineFired).toBe(true);
  });

  it("survives a statement of ours being compiled again in tenant mode", () => {
    const { db, guard } = open();
    guard.enter("write", 0);
    guard.leave();
    db.exec("SAVEPOINT s");
    guard.enter("write", 0);
    db.prepare("CREATE TABLE t (a)").run();
    guard.leave();
    db.exec("ROLLBACK TO s");
    guard.enter("write", 0);
    expect(guard.leave().schemaChange).toBe(false);
    db.exec("RELEASE s");
  });
});

describe("connection", () => {
  it("is set up once and refuses wrong secrets", () => {
    const { db } = open();
    expect(() => installGuard(db, { maxValueBytes: 1, maxSqlBytes: 1 })).toThrow(/does not load/);
    for (const call of ["leave(?)", "denied(?)", "enter(?, 1, 0)", "config(?, 'defensive', 0)"]) {
      for (const secret of [Buffer.alloc(16), Buffer.alloc(15), Buffer.alloc(0), "x".repeat(16), null, 7]) {
        expect(() => db.prepare(`SELECT kimberlite_${call}`).get(secret)).toThrow(/not authorized/);
      }
    }
  });

  it("refuses configuration in tenant mode, and entering twice", () => {
    const { guard } = open();
    guard.enter("read", 0);
    expect(() => guard.configure("triggers", false)).toThrow();
    expect(() => guard.enter("write", 0)).toThrow();
    guard.leave();
    guard.configure("triggers", false);
    guard.configure("triggers", true);
  });

  it("turns the schema's triggers off and on for replay; temporary ones always fire", () => {
    const database = open();
    const { db, guard, touched } = database;
    db.exec("CREATE TRIGGER g AFTER UPDATE ON patients BEGIN INSERT INTO wards VALUES (1, 1); END");
    const wards = db.prepare("SELECT count(*) FROM wards").pluck();
    guard.configure("triggers", false);
    db.exec("UPDATE patients SET ward = 1");
    expect([wards.get(), touched.length]).toEqual([0, 1]);
    guard.configure("triggers", true);
    db.exec("UPDATE patients SET ward = 1");
    expect([wards.get(), touched.length]).toEqual([1, 2]);
  });

  it("limits values and statements, and leaves FTS5's own tables to FTS5", () => {
    const database = open();
    expect(run(database, "SELECT length(zeroblob(1048577))").error).toMatch(/too big/);
    expect(run(database, `SELECT '${"x".repeat(100_000)}'`).error).toBeDefined();
    expect(run(database, "DELETE FROM notes_data").error).toMatch(/may not be modified/);
    expect(run(database, "INSERT INTO notes (body) VALUES ('an early note')").error).toBeUndefined();
    expect(run(database, "SELECT highlight(notes, 0, '<', '>') FROM notes('early')").rows).toEqual([
      ["an <early> note"],
    ]);
  });

  it("says what to do instead", () => {
    expect(denialHint({ action: "ATTACH" })).toMatch(/own database/);
    expect(denialHint({ action: "TRANSACTION", object: "BEGIN" })).toMatch(/transaction\(\)/);
    expect(denialHint({ action: "READ", object: "_kimberlite_meta" })).toMatch(/reserved/);
    expect(denialHint({ action: "CREATE_TEMP_TABLE", object: "t" })).toMatch(/temporary/);
    expect(denialHint({ action: "INSERT", object: "patients" })).toMatch(/execute\(\)/);
  });
});
