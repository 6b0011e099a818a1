/** What a statement did to rows, as the log will say it: the net change of each, from its first image to its last. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Change } from "../log/record.ts";
import { DEFAULT_LIMITS, openConnection } from "./connection.ts";
import { decodeImage } from "./image.ts";
import { ProjectionWriter } from "./writer.ts";

const LIMITS = { ...DEFAULT_LIMITS, maxTransactionBytes: 20_000 };

let folder: string;
let writer: ProjectionWriter;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "kimberlite-capture-"));
  const connection = openConnection({
    path: join(folder, "p.db"),
    key: Buffer.alloc(32, 7),
    role: "write",
    limits: LIMITS,
  });
  writer = new ProjectionWriter(connection, LIMITS);
  writer.begin();
});

afterEach(() => {
  writer.close();
  rmSync(folder, { recursive: true });
});

function run(...statements: string[]): readonly Change[] {
  const work = (session: { run: (request: { sql: string }) => unknown }): void => {
    for (const sql of statements) session.run({ sql });
  };
  const outcome = writer.runJob(work, () => undefined);
  if (!outcome.ok) throw outcome.error;
  return outcome.changes;
}

function rows(changes: readonly Change[]): unknown[] {
  return changes
    .filter((change) => change.kind === "row")
    .map(({ key, before, after }) => ({
      key: typeof key === "bigint" ? key : decodeImage(key),
      before: before === null ? null : decodeImage(before),
      after: after === null ? null : decodeImage(after),
    }));
}

describe("net changes", () => {
  test("our trigger sees an inserted row before the tenant's trigger changes it", () => {
    run("CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    run("CREATE TRIGGER first AFTER INSERT ON t BEGIN UPDATE t SET v = v + 1 WHERE id = NEW.id; END");
    expect(rows(run("INSERT INTO t VALUES (1, 1)"))).toEqual([{ key: 1n, before: null, after: [1, 2] }]);
  });

  test("of several changes of a row the first image and the last are kept", () => {
    run("CREATE TABLE t (id INTEGER PRIMARY KEY, v)", "INSERT INTO t VALUES (1, 'a')");
    const changes = run(
      "UPDATE t SET v = 'b'",
      "UPDATE t SET v = 'c'",
      "DELETE FROM t",
      "INSERT INTO t VALUES (1, 'd')",
    );
    expect(rows(changes)).toEqual([{ key: 1n, before: [1, "a"], after: [1, "d"] }]);
  });

  test("what ends as it began is no change", () => {
    run("CREATE TABLE t (id INTEGER PRIMARY KEY, v)", "INSERT INTO t VALUES (1, 'a')");
    expect(run("UPDATE t SET v = 'b'", "UPDATE t SET v = 'a'")).toEqual([]);
    expect(run("INSERT INTO t VALUES (2, 'x')", "DELETE FROM t WHERE id = 2")).toEqual([]);
  });

  test("a row that moves is gone from one key and new at another", () => {
    run("CREATE TABLE t (id INTEGER PRIMARY KEY, v)", "INSERT INTO t VALUES (1, 'a')");
    expect(rows(run("UPDATE t SET id = 2"))).toEqual([
      { key: 1n, before: [1, "a"], after: null },
      { key: 2n, before: null, after: [2, "a"] },
    ]);
  });

  test("a key without rowid is its columns in key order", () => {
    run("CREATE TABLE t (a, b, v, PRIMARY KEY (b, a)) WITHOUT ROWID");
    expect(rows(run("INSERT INTO t VALUES (1, 2, 3)"))).toEqual([
      { key: [2, 1], before: null, after: [1, 2, 3] },
    ]);
  });

  test("REPLACE, cascades and INSTEAD OF triggers are seen", () => {
    run("CREATE TABLE p (id INTEGER PRIMARY KEY, u UNIQUE)");
    run("CREATE TABLE c (p REFERENCES p ON DELETE CASCADE)", "CREATE VIEW v AS SELECT id FROM p");
    run("CREATE TRIGGER r INSTEAD OF DELETE ON v BEGIN DELETE FROM p WHERE id = OLD.id; END");
    run("INSERT INTO p VALUES (1, 'x'), (2, 'y')", "INSERT INTO c VALUES (1), (2)");
    expect(rows(run("INSERT OR REPLACE INTO p VALUES (3, 'x')"))).toHaveLength(3);
    expect(rows(run("DELETE FROM v WHERE id = 2"))).toHaveLength(2);
    expect(rows(run("DELETE FROM p"))).toEqual([{ key: 3n, before: [3, "x"], after: null }]);
  });

  test("generated columns are left out, for they follow from the others", () => {
    run("CREATE TABLE t (a, g AS (a + 1), b, h AS (a + 2) STORED)");
    expect(rows(run("INSERT INTO t (a, b) VALUES (1, 2)"))).toEqual([
      { key: 1n, before: null, after: [1, 2] },
    ]);
  });
});

describe("boundaries", () => {
  test("rows that a table is made with, and that change then, are two runs", () => {
    const kinds = run("CREATE TABLE t AS SELECT 1 AS v", "DELETE FROM t").map((change) => change.kind);
    expect(kinds).toEqual(["ddl", "row", "ddl", "row"]);
  });

  test("what a failed statement touched is as it was", () => {
    run("CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE)", "INSERT INTO t VALUES (1, 'a'), (2, 'b')");
    expect(() => run("UPDATE t SET v = 'c'")).toThrow(/UNIQUE/);
    expect(rows(run("UPDATE t SET v = 'd' WHERE id = 2"))).toEqual([
      { key: 2n, before: [2, "b"], after: [2, "d"] },
    ]);
  });

  test("a transaction is bounded by the bytes of what it touched", () => {
    run(
      "CREATE TABLE t (v)",
      "INSERT INTO t SELECT hex(zeroblob(500)) FROM json_each('[1,2,3,4,5,6,7,8,9,0]')",
    );
    run("INSERT INTO t SELECT v FROM t", "INSERT INTO t SELECT v FROM t WHERE rowid < 11");
    expect(() => run("INSERT INTO t SELECT v FROM t", "UPDATE t SET v = 1")).toThrow(
      expect.objectContaining({ code: "transaction_too_large" }),
    );
    expect(rows(run("DELETE FROM t WHERE rowid = 1"))).toHaveLength(1);
  });
});

describe("sequences", () => {
  const sequences = (changes: readonly Change[]): unknown[] =>
    changes.filter((change) => change.kind === "sequence");

  test("move with rows, and without", () => {
    run("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, v UNIQUE)");
    expect(sequences(run("INSERT INTO t (v) VALUES (1)"))).toEqual([
      { kind: "sequence", table: "t", value: 1n },
    ]);
    expect(run("INSERT OR IGNORE INTO t (v) VALUES (1), (1)")).toEqual([
      { kind: "sequence", table: "t", value: 3n },
    ]);
    expect(run("UPDATE t SET v = 1")).toEqual([]);
  });

  test("are told when replay would move them and SQLite did not", () => {
    run("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, v)", "INSERT INTO t (v) VALUES (1)");
    expect(sequences(run("UPDATE t SET id = 50"))).toEqual([{ kind: "sequence", table: "t", value: 1n }]);
    expect(sequences(run("UPDATE t SET v = 2"))).toEqual([{ kind: "sequence", table: "t", value: 1n }]);
  });

  test("end with a DELETE of their own, and hold integers only", () => {
    run("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT)", "INSERT INTO t VALUES (7)");
    expect(() => run("UPDATE sqlite_sequence SET seq = 1.5")).toThrow(
      expect.objectContaining({ code: "unsupported_sql" }),
    );
    expect(run("DELETE FROM sqlite_sequence")).toEqual([{ kind: "sequence", table: "t", value: null }]);
  });
});
