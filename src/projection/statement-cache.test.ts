import Database from "better-sqlite3-multiple-ciphers";
import { describe, expect, it } from "vitest";
import type { Connection } from "./connection.ts";
import { installGuard } from "./guard.ts";
import type { SqliteDatabase } from "./sqlite.ts";
import { StatementCache } from "./statement-cache.ts";

function connect(inline: boolean): Connection {
  const db: SqliteDatabase = new Database(":memory:");
  db.exec("CREATE TABLE t (id INTEGER PRIMARY KEY)");
  return {
    db,
    guard: installGuard(db, { maxValueBytes: 1 << 20, maxSqlBytes: 1_000_000 }),
    schemaView: 1,
    inline,
  };
}

/** A short text whose compiled form is as large as is wanted: each term is several instructions. */
function terms(count: number, what: string): string {
  return `SELECT ${what}, ${Array.from({ length: count }, () => "(id IN (1,2,3))").join()} FROM t`;
}

describe("statement cache", () => {
  it("keeps what is used, by its text", () => {
    const cache = new StatementCache(connect(true), "read");
    const first = cache.compile("SELECT 1");
    expect(cache.compile("SELECT 1")).toBe(first);
    cache.clear();
    expect(cache.compile("SELECT 1")).not.toBe(first);
  });

  it("bounds the memory of statements, not their number alone", () => {
    const cache = new StatementCache(connect(false), "read");
    const first = cache.compile("SELECT 1");
    const large = cache.compile(terms(400, "0"));
    expect(large.seen.compiledBytes).toBeGreaterThan(130_000);
    // The collector is told of each as of an array of its size.
    expect(large.weight?.byteLength).toBe(large.seen.compiledBytes);
    for (let at = 1; at < 3; at += 1) cache.compile(terms(400, `${at}`));
    expect(cache.compile("SELECT 1")).toBe(first);
    for (let at = 3; at < 40; at += 1) cache.compile(terms(400, `${at}`));
    expect(cache.compile(terms(400, "0"))).not.toBe(large);
  });

  it("leaves long texts to a lane, and compiles them there", () => {
    const text = `SELECT '${"x".repeat(40_000)}'`;
    expect(() => new StatementCache(connect(true), "read").compile(text, { mayMove: true })).toThrow(
      /takes long/,
    );
    expect(new StatementCache(connect(true), "read").compile(text).returnsRows).toBe(true);
    expect(new StatementCache(connect(false), "read").compile(text, { mayMove: true }).returnsRows).toBe(
      true,
    );
  });
});
