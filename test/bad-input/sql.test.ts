/**
 * SQL that reaches for what is not the tenant's, or for more than there is: each is an error of the family with its
 * own code, and the tables, the log and the files are afterwards what they were.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type ErrorCode,
  type Kimberlite,
  KimberliteError,
  type SqlInput,
  TenantId,
} from "../../src/index.ts";
import { filesBelow, Scratch } from "../isolation/scratch.ts";

const A = TenantId(1);
const B = TenantId(2);

let scratch: Scratch;
let db: Kimberlite;

beforeAll(async () => {
  scratch = new Scratch();
  db = await scratch.open();
  for (const id of [A, B]) {
    await db.createTenant({ id, name: `tenant ${id}` });
    await db.execute(id, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    await db.insert(id, "t", { id: 1, v: `of ${id}` });
  }
});

afterAll(() => scratch[Symbol.asyncDispose]());

async function codeOf(work: () => Promise<unknown>): Promise<ErrorCode | "worked"> {
  try {
    await work();
    return "worked";
  } catch (error) {
    if (error instanceof KimberliteError) return error.code;
    throw error;
  }
}

/** Runs SQL by every way in: alone, read, in a list, in a held transaction; each must refuse it. */
async function expectRefused(sql: string, codes: readonly ErrorCode[]): Promise<void> {
  const writing: readonly (() => Promise<unknown>)[] = [
    () => db.execute(A, sql),
    () => db.transaction(A, [sql]),
    () => db.transaction(A, (transaction) => transaction.execute(sql)),
  ];
  const reading: readonly (() => Promise<unknown>)[] = [
    () => db.query(A, sql),
    () => db.query(A, sql, [], { at: 1 }),
  ];
  for (const way of writing) expect(codes, sql).toContain(await codeOf(way));
  // Where only reads are served, that it is a write may be what is noticed first.
  for (const way of reading) expect([...codes, "read_only"], sql).toContain(await codeOf(way));
}

const ELSEWHERE = (): string => join(scratch.folder, "elsewhere.db");
const OTHER = (): string => filesBelow(scratch.projection(B))[0] as string;

const REFUSALS: readonly ErrorCode[] = ["unsupported_sql", "invalid_sql"];

/** Files but those of time travel, which come and go. */
const lasting = (): string[] => filesBelow(scratch.folder).filter((path) => !path.includes("/at-"));

describe("SQL that reaches outside the tenant", () => {
  it("is refused before it does anything", async () => {
    const files = lasting();
    const statements = [
      `ATTACH '${ELSEWHERE()}' AS other`,
      `ATTACH DATABASE '${OTHER()}' AS other KEY 'x'`,
      "ATTACH ':memory:' AS m",
      "DETACH main",
      "ATTACH '' AS x",
      `VACUUM INTO '${ELSEWHERE()}'`,
      "VACUUM",
      "VACUUM main",
      "PRAGMA key = 'x'",
      "PRAGMA rekey = 'x'",
      "PRAGMA hexkey = 'aa'",
      "PRAGMA hexrekey = 'aa'",
      "PRAGMA cipher = 'chacha20'",
      "PRAGMA writable_schema = 1",
      "PRAGMA journal_mode = DELETE",
      "PRAGMA journal_mode = OFF",
      "PRAGMA synchronous = OFF",
      "PRAGMA temp_store = FILE",
      "PRAGMA temp_store_directory = '/'",
      "PRAGMA locking_mode = EXCLUSIVE",
      "PRAGMA recursive_triggers = 0",
      "PRAGMA foreign_keys = 0",
      "PRAGMA query_only = 0",
      "PRAGMA trusted_schema = 1",
      "PRAGMA mmap_size = 1000000",
      "PRAGMA page_size = 512",
      "PRAGMA cache_spill = 1",
      "PRAGMA max_page_count = 1",
      "PRAGMA wal_checkpoint(TRUNCATE)",
      "PRAGMA legacy_alter_table = 1",
      "PRAGMA database_list",
      "PRAGMA main.writable_schema = 1",
      "PRAGMA schema_version = 1",
      "PRAGMA application_id = 5",
      "PRAGMA incremental_vacuum",
      "PRAGMA data_store_directory = 'x'",
      "PRAGMA optimize = 1",
      "PRAGMA encoding = 'UTF-16'",
      "PRAGMA cell_size_check = 1",
      "PRAGMA ignore_check_constraints = 1",
      "PRAGMA case_sensitive_like = 1",
      "SELECT load_extension('x')",
      "SELECT load_extension('x', 'y')",
      "SELECT writefile('x', 'y')",
      "SELECT readfile('x')",
      "SELECT edit('x')",
      "SELECT sqlite3mc_config('cipher')",
      "SELECT sqlite3mc_config('aegis', 'algorithm')",
      "SELECT sqlite3mc_codec_data('salt')",
      "SELECT sqlite3mc_version()",
      "SELECT fts3_tokenizer('simple')",
      "SELECT kimberlite_enter(1, 2, 3)",
      "SELECT kimberlite_leave(1)",
      "SELECT kimberlite_config(1, 'defensive', 0)",
      "SELECT kimberlite_setup(1, 2, 3)",
      "SELECT kimberlite_row(1)",
      "SELECT kimberlite_col(x'00', 0)",
      "SELECT kimberlite_touch(1, 2)",
      "SELECT kimberlite_denied(1)",
      "CREATE TEMP TABLE x (a)",
      "CREATE TEMP VIEW x AS SELECT 1",
      "CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END",
      "CREATE TABLE temp.x (a)",
      "SELECT * FROM temp.sqlite_master",
      "SELECT * FROM sqlite_temp_master",
      "DROP TRIGGER _kimberlite_capture_100_insert",
      "BEGIN",
      "BEGIN IMMEDIATE",
      "COMMIT",
      "ROLLBACK",
      "END",
      "SAVEPOINT s",
      "RELEASE kimberlite_job",
      "ROLLBACK TO kimberlite_job",
      "RELEASE s",
      "CREATE VIRTUAL TABLE x USING csv(filename='x')",
      "CREATE VIRTUAL TABLE x USING rtree(a, b, c)",
      "CREATE VIRTUAL TABLE x USING dbstat",
      "SELECT * FROM dbstat",
      "SELECT * FROM sqlite_dbpage",
      "SELECT * FROM sqlite_stmt",
      "SELECT * FROM bytecode('SELECT 1')",
      "SELECT * FROM pragma_database_list",
    ];
    for (const sql of statements) await expectRefused(sql, REFUSALS);
    expect(lasting()).toEqual(files);
    expect(fs.existsSync(ELSEWHERE())).toBe(false);
  });

  it("never sees, makes or changes our tables, in any position", async () => {
    for (const name of [
      "_kimberlite_meta",
      "_KIMBERLITE_STREAMS",
      "_kimberlite_events",
      "_kimberlite_idempotency",
      "_kimberlite_new",
    ]) {
      for (const quoted of [
        name,
        `"${name}"`,
        `[${name}]`,
        `\`${name}\``,
        `main.${name}`,
        `main."${name}"`,
      ]) {
        const statements = [
          `SELECT * FROM ${quoted}`,
          `SELECT (SELECT count(*) FROM ${quoted})`,
          `SELECT 1 WHERE EXISTS (SELECT 1 FROM ${quoted})`,
          `SELECT * FROM t JOIN ${quoted}`,
          `WITH x AS (SELECT * FROM ${quoted}) SELECT * FROM x`,
          `SELECT * FROM t UNION SELECT * FROM ${quoted}`,
          `DELETE FROM ${quoted}`,
          `UPDATE ${quoted} SET id = 1`,
          `INSERT INTO ${quoted} VALUES (1)`,
          `INSERT INTO t SELECT * FROM ${quoted}`,
          `DROP TABLE ${quoted}`,
          `ALTER TABLE ${quoted} RENAME TO mine`,
          `ALTER TABLE ${quoted} ADD COLUMN x`,
          `CREATE INDEX i ON ${quoted.replace("main.", "")} (id)`,
          `CREATE TABLE ${quoted} (a)`,
          `CREATE VIEW ${quoted} AS SELECT 1`,
          `CREATE TABLE copy AS SELECT * FROM ${quoted}`,
          `ALTER TABLE t RENAME TO ${quoted.replace("main.", "")}`,
          `UPDATE t SET v = (SELECT 1 FROM ${quoted})`,
          `SELECT * FROM t WHERE id IN ${quoted}`,
        ];
        for (const sql of statements) expect(REFUSALS, sql).toContain(await codeOf(() => db.execute(A, sql)));
      }
    }
    await db.execute(B, "ANALYZE");
    await db.execute(B, "ANALYZE _kimberlite_meta");
    expect(await db.query(B, "SELECT tbl FROM sqlite_stat1")).toEqual([{ tbl: "t" }]);
    await db.execute(B, "DROP TABLE sqlite_stat1");
    for (const sql of [
      "SELECT name FROM sqlite_master",
      "SELECT name FROM sqlite_schema",
      "SELECT name FROM pragma_table_list",
    ]) {
      const rows = await db.query(A, sql).catch(() => []);
      expect(JSON.stringify(rows), sql).not.toMatch(/_kimberlite_/i);
    }
  });

  it("cannot write the schema table", async () => {
    const statements = [
      "UPDATE sqlite_master SET sql = 'CREATE TABLE t (x)'",
      "DELETE FROM sqlite_master",
      "INSERT INTO sqlite_master VALUES ('table','x','x',0,'')",
      "UPDATE sqlite_schema SET name = 'y'",
      "DROP TABLE sqlite_master",
      "ALTER TABLE sqlite_master ADD COLUMN x",
      "CREATE INDEX i ON sqlite_master (name)",
      "DELETE FROM sqlite_stat1",
      "CREATE TABLE sqlite_x (a)",
      "ALTER TABLE t RENAME TO sqlite_y",
      "CREATE TRIGGER g AFTER INSERT ON sqlite_master BEGIN SELECT 1; END",
    ];
    for (const sql of statements) await expectRefused(sql, REFUSALS);
  });

  it("that writes is refused to query(), however it is dressed", async () => {
    const statements = [
      "INSERT INTO t VALUES (9, 1)",
      "DELETE FROM t RETURNING *",
      "WITH x AS (SELECT 1) DELETE FROM t",
      "UPDATE t SET v = 1 RETURNING v",
      "CREATE TABLE u (a)",
      "EXPLAIN DELETE FROM t",
      "DROP TABLE t",
      "REPLACE INTO t VALUES (1, 2)",
      "PRAGMA user_version = 5",
      "ANALYZE",
      "REINDEX",
    ];
    for (const sql of statements) {
      if (sql.startsWith("EXPLAIN")) continue;
      expect(["read_only", "unsupported_sql"], sql).toContain(await codeOf(() => db.query(A, sql)));
    }
    expect(await db.query(A, "SELECT * FROM t")).toEqual([{ id: 1, v: "of 1" }]);
  });
});

describe("SQL text and values past their limits", () => {
  it("of a megabyte runs, of more is value_too_large", async () => {
    const padded = (bytes: number): string => `SELECT 1 AS one${" ".repeat(bytes - 15)}`;
    expect(await db.query(A, padded(1_000_000))).toEqual([{ one: 1 }]);
    for (const way of [db.query.bind(db), db.execute.bind(db)]) {
      expect(await codeOf(() => way(A, padded(1_000_002)))).toBe("value_too_large");
      expect(await codeOf(() => way(A, padded(50_000_000)))).toBe("value_too_large");
    }
  });

  it("a value of 100 MB is value_too_large, as text, as blob, as event, and made by SQL", async () => {
    const size = 100_000_000;
    const ways: readonly (() => Promise<unknown>)[] = [
      () => db.insert(A, "t", { id: 5, v: "x".repeat(size) }),
      () => db.insert(A, "t", { id: 5, v: Buffer.alloc(size) }),
      () => db.query(A, "SELECT length(?)", [Buffer.alloc(size)]),
      () => db.execute(A, `INSERT INTO t VALUES (5, zeroblob(${size}))`),
      () => db.query(A, `SELECT printf('%*c', ${size}, 'x')`),
    ];
    for (const way of ways) expect(["value_too_large", "result_too_large"]).toContain(await codeOf(way));
    const stream = await db.createStream(A, "big");
    expect(await codeOf(() => db.append(A, stream, [Buffer.alloc(size)]))).toBe("value_too_large");
    expect(await db.query(A, "SELECT count(*) n FROM t")).toEqual([{ n: 1 }]);
  });

  const values: readonly (readonly [string, unknown, ErrorCode | "worked"])[] = [
    ["a bigint of 2^63", 2n ** 63n, "invalid_parameter"],
    ["a bigint of -2^63-1", -(2n ** 63n) - 1n, "invalid_parameter"],
    ["the largest integer", 2n ** 63n - 1n, "worked"],
    ["the smallest integer", -(2n ** 63n), "worked"],
    ["NaN", Number.NaN, "invalid_parameter"],
    ["infinity", Number.POSITIVE_INFINITY, "worked"],
    ["a lone surrogate", "a\ud800b", "invalid_parameter"],
    ["undefined", undefined, "invalid_parameter"],
    ["an object", {}, "invalid_parameter"],
    ["a Date", new Date(0), "invalid_parameter"],
    ["text with NUL", "a\0b", "worked"],
    ["minus zero", -0, "worked"],
  ];

  it.each(values)("%s comes back as it was, or is refused", async (_name, value, outcome) => {
    expect(await codeOf(() => db.query(A, "SELECT ? AS v", [value as SqlInput]))).toBe(outcome);
    expect(await codeOf(() => db.insert(A, "t", { id: 700, v: value as SqlInput }))).toBe(outcome);
    if (outcome !== "worked") return;
    expect(await db.query(A, "SELECT v FROM t WHERE id = 700")).toEqual([{ v: value }]);
    await db.execute(A, "DELETE FROM t WHERE id = 700");
  });

  it("32,000 parameters work, 40,000 are refused, and so is the wrong number of them", async () => {
    const list = (count: number): string => Array.from({ length: count }, () => "?").join(",");
    const params = (count: number): number[] => Array.from({ length: count }, (_, index) => index);
    expect(await db.query(A, `SELECT 1 AS one WHERE 31999 IN (${list(32_000)})`, params(32_000))).toEqual([
      { one: 1 },
    ]);
    expect(["invalid_parameter", "invalid_sql"]).toContain(
      await codeOf(() => db.query(A, `SELECT 1 WHERE 1 IN (${list(40_000)})`, params(40_000))),
    );
    expect(await codeOf(() => db.query(A, "SELECT ?", params(40_000)))).toBe("invalid_parameter");
    expect(await codeOf(() => db.query(A, "SELECT ?, ?", [1]))).toBe("invalid_parameter");
    expect(await codeOf(() => db.query(A, "SELECT ?", [1, 2]))).toBe("invalid_parameter");
    expect(await codeOf(() => db.query(A, "SELECT :a", { b: 1 }))).toBe("invalid_parameter");
  });

  it("nonsense texts are invalid_sql", async () => {
    const texts = [
      "",
      " ",
      ";",
      "-- only a comment",
      "/* never ends",
      "SELEC 1",
      "SELECT 1; SELECT 2",
      "SELECT '\0'",
      "\ud800",
      "SELECT (((((",
      "'",
      "\u0000",
      'SELECT "',
      "🙂",
    ];
    for (const text of texts) {
      for (const way of [db.query.bind(db), db.execute.bind(db)])
        expect(await codeOf(() => way(A, text)), JSON.stringify(text)).toBe("invalid_sql");
      expect(await codeOf(() => db.transaction(A, [text]))).toBe("invalid_sql");
    }
  });

  it("depth without end is refused, not overrun", async () => {
    const deep = `SELECT ${"(".repeat(5_000)}1${")".repeat(5_000)}`;
    const long = `SELECT ${Array.from({ length: 5_000 }, () => "1").join(" + ")}`;
    const wide = `SELECT ${Array.from({ length: 5_000 }, () => "1").join(", ")}`;
    const unions = Array.from({ length: 2_000 }, () => "SELECT 1").join(" UNION ALL ");
    for (const sql of [deep, long, wide, unions])
      expect(["invalid_sql", "value_too_large"]).toContain(await codeOf(() => db.query(A, sql)));
  });
});

describe("absent things", () => {
  it("have a code of their own", async () => {
    const absent = TenantId(999);
    expect(await codeOf(() => db.query(absent, "SELECT 1"))).toBe("tenant_not_found");
    expect(await codeOf(() => db.describeTenant(absent))).toBe("tenant_not_found");
    expect(await codeOf(() => db.verifyTenant(absent))).toBe("tenant_not_found");
    expect(await codeOf(() => db.query(0n as TenantId, "SELECT * FROM tenants"))).toBe("invalid_argument");
    expect(await codeOf(() => db.execute(0n as TenantId, "DELETE FROM tenants"))).toBe("invalid_argument");
    expect(await codeOf(() => db.createTenant({ id: 0n as TenantId, name: "zero" }))).toBe(
      "invalid_argument",
    );
    expect(await codeOf(() => db.query(A, "SELECT * FROM absent"))).toBe("invalid_sql");
    expect(await codeOf(() => db.insert(A, "absent", { a: 1 }))).toBe("invalid_sql");
    expect(await codeOf(() => db.insert(A, "t", { absent: 1 }))).toBe("invalid_sql");
  });
});

describe("after all of it", () => {
  it("the tenants hold what they held, and their logs verify", async () => {
    for (const id of [A, B]) {
      expect(await db.query(id, "SELECT * FROM t")).toEqual([{ id: 1, v: `of ${id}` }]);
      expect((await db.verifyTenant(id)).ok).toBe(true);
    }
    await db.rebuildProjection(A);
    expect(await db.query(A, "SELECT * FROM t")).toEqual([{ id: 1, v: "of 1" }]);
    expect(await db.query(A, "SELECT name FROM sqlite_master ORDER BY name")).toEqual([{ name: "t" }]);
  });
});
