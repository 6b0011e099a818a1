import Database from "better-sqlite3-multiple-ciphers";
import { describe, expect, it } from "vitest";
import { installGuard } from "./guard.ts";
import { filterSchemaTable, hideSchemaTable, isSchemaTableDenial } from "./schema-table.ts";

const db = new Database(":memory:");
const guard = installGuard(db, { maxValueBytes: 1 << 20, maxSqlBytes: 100_000 });
db.exec(`
  CREATE TABLE _kimberlite_meta (id INTEGER PRIMARY KEY, a UNIQUE);
  CREATE TABLE patients (id INTEGER PRIMARY KEY, name);
  CREATE INDEX by_name ON patients (name);
  CREATE VIEW tables AS SELECT name FROM sqlite_master;
`);
const view = hideSchemaTable(guard);

/** As a caller does: once as it is, and once more filtered if the schema table was refused. */
function run(sql: string): unknown {
  const first = attempt(sql);
  if (!(first instanceof Error) || !isSchemaTableDenial(guard.denied())) return first;
  const filtered = filterSchemaTable(sql, view);
  return filtered === undefined ? first : attempt(filtered);
}

function attempt(sql: string): unknown {
  guard.enter("write", 0);
  try {
    const statement = db.prepare(sql);
    return statement.reader ? statement.raw().all() : statement.run().changes;
  } catch (error) {
    return error;
  } finally {
    guard.leave();
  }
}

describe("schema table", () => {
  it.each([
    ["SELECT name FROM sqlite_master WHERE type = 'table'", [["patients"]]],
    ["select count(*) from SQLITE_SCHEMA", [[3]]],
    [
      "/* a */ -- b\n SELECT m.name, p.name FROM sqlite_master m, pragma_index_info(m.name) p",
      [["by_name", "name"]],
    ],
    ["WITH x AS (SELECT 'table' AS t) SELECT name FROM x JOIN sqlite_master ON type = t", [["patients"]]],
    [
      "with recursive x(n) as (select 1) select x.n, s.name from x left join sqlite_schema s limit 1",
      [[1, "patients"]],
    ],
    ["SELECT 1 FROM patients LEFT JOIN sqlite_master", []],
    ["SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name LIKE '%kimberlite%')", [[0]]],
    ["SELECT (SELECT count(*) FROM sqlite_master a, sqlite_schema b)", [[9]]],
    ["VALUES ((SELECT count(*) FROM sqlite_master))", [[3]]],
    ["INSERT INTO patients (name) SELECT name FROM sqlite_master", 3],
    ["UPDATE patients SET name = (SELECT max(name) FROM sqlite_master)", 3],
    ["DELETE FROM patients WHERE name IN (SELECT name FROM sqlite_master)", 3],
  ])("%s", (sql, expected) => {
    expect(run(sql)).toEqual(expected);
  });

  it.each([
    "SELECT name FROM main.sqlite_master",
    "SELECT count(*) FROM main.sqlite_schema",
    "CREATE TABLE copy AS SELECT name FROM sqlite_master",
    "SELECT * FROM tables",
    "WITH sqlite_master AS (SELECT * FROM main.sqlite_master) SELECT * FROM sqlite_master",
    "WITH _kimberlite_schema_1 AS (SELECT * FROM main.sqlite_master) SELECT * FROM _kimberlite_schema_1",
    "SELECT name FROM main.sqlite_master, sqlite_schema",
  ])("refuses %s", (sql) => {
    expect(run(sql)).toBeInstanceOf(Error);
  });

  it("leaves DDL working", () => {
    for (const sql of [
      "CREATE TABLE t (a INTEGER PRIMARY KEY AUTOINCREMENT, b)",
      "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END",
      "CREATE INDEX i ON t (b)",
      "ALTER TABLE t ADD COLUMN c",
      "ALTER TABLE t RENAME COLUMN c TO d",
      "ALTER TABLE t DROP COLUMN d",
      "ALTER TABLE t RENAME TO u",
      "DROP TRIGGER g",
      "DROP INDEX i",
      "CREATE VIRTUAL TABLE f USING fts5(a)",
      "ALTER TABLE f RENAME TO f2",
      "DROP TABLE f2",
      "CREATE TABLE c AS SELECT name FROM patients",
      "CREATE VIEW v AS SELECT * FROM c",
      "DROP VIEW v",
      "DROP TABLE c",
      "ANALYZE",
      "REINDEX",
      "PRAGMA integrity_check",
      "PRAGMA foreign_key_check",
      "DROP TABLE u",
    ]) {
      expect([sql, run(sql)]).toEqual([sql, expect.not.objectContaining({ message: expect.anything() })]);
    }
  });

  it("puts nothing before a statement that cannot have it", () => {
    for (const sql of ["", "PRAGMA table_list", "CREATE TABLE t (a)", "selected", "-- SELECT"]) {
      expect(filterSchemaTable(sql, view)).toBeUndefined();
    }
  });
});
