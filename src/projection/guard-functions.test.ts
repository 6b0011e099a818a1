import Database from "better-sqlite3-multiple-ciphers";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { installGuard } from "./guard.ts";

const plain = new Database(":memory:");
const db = new Database(":memory:");
const guard = installGuard(db, { maxValueBytes: 1 << 22, maxSqlBytes: 100_000 });

type Value = string | number | bigint | null | Uint8Array;

/** Few letters, so that matches happen; broken and multi-byte characters among them. */
const bytes = fc
  .array(
    fc.constantFrom(
      0x61,
      0x62,
      0x41,
      0x39,
      0x2d,
      0x20,
      0x00,
      0x80,
      0xbf,
      0xc3,
      0xa4,
      0xe2,
      0x82,
      0xac,
      0xf0,
      0xff,
    ),
    {
      maxLength: 12,
    },
  )
  .map((list) => Uint8Array.from(list));
const words = fc.string({ unit: fc.constantFrom("a", "b", "ä", "€", "9", "-", "😀"), maxLength: 12 });
const value: fc.Arbitrary<Value> = fc.oneof(
  words,
  bytes,
  fc.integer({ min: -99, max: 99 }),
  fc.constant(null),
  fc.constantFrom("", "ab", "a-b 9A"),
);

function both(sql: string, values: readonly Value[]): void {
  const results = [plain, db].map((connection) => {
    const statement = connection.prepare(
      `SELECT typeof(r) AS type, hex(r) AS bytes FROM (SELECT ${sql} AS r)`,
    );
    return statement.get(...values);
  });
  expect(results[1]).toEqual(results[0]);
}

describe("bounded functions", () => {
  const calls = ["instr(?, ?)", "trim(?, ?)", "ltrim(?, ?)", "rtrim(?, ?)", "unhex(?, ?)"];
  it.each(calls)("%s gives what SQLite gives", (call) => {
    const text = call.replaceAll("?", "CAST(? AS TEXT)");
    const check = (a: Value, b: Value): void => {
      both(call, [a, b]);
      both(text, [a, b]);
    };
    fc.assert(fc.property(value, value, check), { numRuns: 1_500 });
  });

  it("replace gives what SQLite gives", () => {
    const check = (a: Value, b: Value, c: Value): void => {
      both("replace(?, ?, ?)", [a, b, c]);
      both("replace(CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT))", [a, b, c]);
    };
    fc.assert(fc.property(value, value, value, check), { numRuns: 1_500 });
  });

  const escapes = fc.constantFrom("a", "%", "_", "\\", "ä", "", "ab", null);
  const patterns = fc.oneof(
    fc.string({ unit: fc.constantFrom("a", "b", "A", "%", "_", "ä", "\\", "€"), maxLength: 10 }),
    fc
      .array(fc.constantFrom(0x61, 0x41, 0x25, 0x5f, 0x80, 0xc3, 0xa4, 0xff, 0x00, 0xe2, 0x82, 0xac), {
        maxLength: 10,
      })
      .map((list) => Uint8Array.from(list)),
    value,
  );
  const globs = fc.oneof(
    fc.string({
      unit: fc.constantFrom("a", "b", "A", "*", "?", "[", "]", "^", "-", "ä", "c"),
      maxLength: 12,
    }),
    fc
      .array(
        fc.constantFrom("[a-c]", "[^a]", "[]a]", "[^]b]", "[a", "*", "?", "a", "ä", "[-a]", "[a-]", "[ä-€]"),
        { maxLength: 5 },
      )
      .map((parts) => parts.join("")),
    fc
      .array(fc.constantFrom(0x61, 0x2a, 0x3f, 0x5b, 0x5d, 0x5e, 0x2d, 0x80, 0xc3, 0xa4, 0xff), {
        maxLength: 10,
      })
      .map((list) => Uint8Array.from(list)),
  );
  const texts = fc.oneof(
    words,
    bytes,
    fc.string({ unit: fc.constantFrom("a", "b", "A", "c", "]", "-", "ä"), maxLength: 14 }),
    value,
  );

  it("LIKE and GLOB give what SQLite gives", () => {
    const like = (pattern: Value, text: Value): void => {
      both("? LIKE ?", [text, pattern]);
      both("CAST(? AS TEXT) LIKE CAST(? AS TEXT)", [text, pattern]);
    };
    fc.assert(fc.property(patterns, texts, like), { numRuns: 5_000 });
    const glob = (pattern: Value, text: Value): void =>
      both("CAST(? AS TEXT) GLOB CAST(? AS TEXT)", [text, pattern]);
    fc.assert(fc.property(globs, texts, glob), { numRuns: 5_000 });
  });

  it("LIKE with ESCAPE gives what SQLite gives, its errors too", () => {
    const outcome = (connection: typeof db, values: readonly Value[]): unknown => {
      try {
        return connection.prepare("SELECT CAST(? AS TEXT) LIKE CAST(? AS TEXT) ESCAPE ? AS r").get(...values);
      } catch (error) {
        return (error as Error).message;
      }
    };
    const check = (pattern: Value, text: Value, mark: Value): void => {
      expect(outcome(db, [text, pattern, mark])).toEqual(outcome(plain, [text, pattern, mark]));
    };
    fc.assert(fc.property(patterns, texts, escapes, check), { numRuns: 5_000 });
  });

  it("can be used in views, indexes and generated columns", () => {
    db.exec(`CREATE TABLE t (a, b AS (replace(a, 'x', 'y')));
      CREATE INDEX i ON t (instr(a, 'x'));
      CREATE VIEW v AS SELECT trim(a, 'x') AS a, b FROM t;
      INSERT INTO t (a) VALUES ('xax')`);
    expect(db.prepare("SELECT * FROM v").raw().all()).toEqual([["a", "yay"]]);
  });

  it("keep to the limit of a value", () => {
    expect(() =>
      db.prepare("SELECT replace(printf('%.*c', 100000, 'a'), 'a', printf('%.*c', 100, 'b'))").get(),
    ).toThrow(/too big/);
  });

  it.each([
    "instr(zeroblob(2000000), CAST(zeroblob(1000000) || x'01' AS BLOB))",
    "length(replace(printf('%.*c', 2000000, 'a'), printf('%.*c', 1000000, 'a') || 'b', 'x'))",
    "length(trim(printf('%.*c', 1000000, 'a'), printf('%.*c', 1000000, 'b') || 'a'))",
    "length(trim(printf('%.*c', 1000000, 'a'), printf('%.*c', 1000000, 'ä') || 'a'))",
    "length(unhex(printf('%.*c', 1000000, '-') || '00', printf('%.*c', 1000000, '+') || '-'))",
    "length(unhex(printf('%.*c', 1000000, '-') || '00', printf('%.*c', 1000000, 'ä') || '-'))",
  ])("ends by its deadline: %s", (call) => {
    const start = performance.now();
    guard.enter("read", 100);
    try {
      db.prepare(`SELECT ${call}`).get();
    } catch (error) {
      expect(error).toMatchObject({ code: "SQLITE_INTERRUPT" });
    } finally {
      guard.leave();
    }
    expect(performance.now() - start).toBeLessThan(1_500);
  });
});
