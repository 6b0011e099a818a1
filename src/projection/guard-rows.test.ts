import Database from "better-sqlite3-multiple-ciphers";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { installGuard } from "./guard.ts";

/** A value as SQL sees it: storage class and bytes. TEXT is bytes too, so that invalid UTF-8 can be had. */
type SqlValue =
  | { readonly type: "integer"; readonly integer: bigint }
  | { readonly type: "real"; readonly real: number }
  | { readonly type: "text" | "blob"; readonly bytes: Uint8Array }
  | { readonly type: "null" };

const db = new Database(":memory:");
installGuard(db, { maxValueBytes: 1 << 20, maxSqlBytes: 100_000 });
db.defaultSafeIntegers(true);
const packed = new Map<number, Database.Statement>();
const column = db.prepare("SELECT kimberlite_col(?, ?)").pluck();
const described = db.prepare(
  "SELECT typeof(v) AS type, quote(v) AS quoted, hex(CAST(v AS BLOB)) AS bytes FROM (SELECT kimberlite_col(?, ?) AS v)",
);

function pack(values: readonly SqlValue[]): Buffer {
  const sql = values.map((value) => (value.type === "text" ? "CAST(? AS TEXT)" : "?")).join(", ");
  const statement = packed.get(values.length) ?? db.prepare(`SELECT kimberlite_row(${sql})`).pluck();
  return statement.get(...values.map(bound)) as Buffer;
}

function bound(value: SqlValue): bigint | number | Uint8Array | null {
  if (value.type === "integer") return value.integer;
  if (value.type === "real") return value.real;
  return value.type === "null" ? null : value.bytes;
}

function isUtf8(bytes: Uint8Array): boolean {
  try {
    new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    return true;
  } catch {
    return false;
  }
}

/** The same encoding written from RFC 8949 section 4.2.1. */
function encode(values: readonly SqlValue[]): Buffer {
  return Buffer.concat([head(4, BigInt(values.length)), ...values.map(encodeItem)]);
}

function encodeItem(value: SqlValue): Buffer {
  if (value.type === "null" || (value.type === "real" && Number.isNaN(value.real))) return Buffer.of(0xf6);
  if (value.type === "integer")
    return value.integer < 0n ? head(1, -1n - value.integer) : head(0, value.integer);
  if (value.type === "real") {
    const float = Buffer.alloc(9, 0xfb);
    float.writeDoubleBE(value.real, 1);
    return float;
  }
  const length = BigInt(value.bytes.length);
  if (value.type === "blob") return Buffer.concat([head(2, length), value.bytes]);
  if (isUtf8(value.bytes)) return Buffer.concat([head(3, length), value.bytes]);
  return Buffer.concat([head(6, 40_000n), head(2, length), value.bytes]);
}

function head(major: number, argument: bigint): Buffer {
  if (argument < 24n) return Buffer.of((major << 5) | Number(argument));
  const width = argument <= 0xffn ? 0 : argument <= 0xffffn ? 1 : argument <= 0xffff_ffffn ? 2 : 3;
  const out = Buffer.alloc(9);
  out[0] = (major << 5) | (24 + width);
  out.writeBigUInt64BE(argument, 1);
  return Buffer.concat([out.subarray(0, 1), out.subarray(9 - 2 ** width)]);
}

const text = fc.oneof(
  fc.string({ unit: "binary", maxLength: 40 }).map((s) => Buffer.from(s)),
  fc.uint8Array({ maxLength: 40 }),
  fc.constantFrom(
    [0xed, 0xa0, 0x80],
    [0xc0, 0x80],
    [0xf4, 0x90, 0x80, 0x80],
    [0xf0, 0x80, 0x80, 0x80],
    [0x61, 0],
  ),
);
const value: fc.Arbitrary<SqlValue> = fc.oneof(
  fc
    .bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })
    .map((integer) => ({ type: "integer" as const, integer })),
  fc.integer({ min: -300, max: 300 }).map((n) => ({ type: "integer" as const, integer: BigInt(n) })),
  fc.double().map((real) => ({ type: "real" as const, real })),
  text.map((bytes) => ({ type: "text" as const, bytes: Uint8Array.from(bytes) })),
  fc.uint8Array({ maxLength: 300 }).map((bytes) => ({ type: "blob" as const, bytes })),
  fc.constant({ type: "null" as const }),
);
const row = fc.array(value, { maxLength: 30 });

/** What a column must come back as: its storage class, and the bytes or the value. */
function expected(item: SqlValue): { readonly type: string; readonly content: unknown } {
  if (item.type === "integer") return { type: "integer", content: String(item.integer) };
  if (item.type === "real") {
    return Number.isNaN(item.real) ? { type: "null", content: "" } : { type: "real", content: item.real };
  }
  if (item.type === "null") return { type: "null", content: "" };
  return { type: item.type, content: Buffer.from(item.bytes).toString("hex").toUpperCase() };
}

function actual(image: Uint8Array, index: number): { readonly type: string; readonly content: unknown } {
  const { type, quoted, bytes } = described.get(image, index) as Readonly<Record<string, string>>;
  if (type === "integer") return { type, content: quoted };
  if (type === "real") return { type, content: column.get(image, index) };
  return { type: String(type), content: bytes };
}

describe("row images", () => {
  it("are the deterministic CBOR of the values", () => {
    fc.assert(
      fc.property(row, (values) => pack(values).equals(encode(values))),
      { numRuns: 500 },
    );
  });

  it("give every value back with its storage class", () => {
    const check = (values: readonly SqlValue[]): void => {
      const image = pack(values);
      expect(values.map((_, index) => actual(image, index))).toEqual(values.map(expected));
    };
    fc.assert(fc.property(row, check), { numRuns: 300 });
    check([0, -0, 1, Number.NaN, 1 / 0, -1 / 0, 5e-324, 2 ** 53].map((real) => ({ type: "real", real })));
    const integers = [0n, -1n, 23n, 24n, 255n, 256n, 65_535n, 65_536n, 2n ** 32n - 1n, 2n ** 32n];
    const limits = [2n ** 63n - 1n, -(2n ** 63n)];
    check([...integers, ...limits].map((integer) => ({ type: "integer", integer })));
  });

  it("never come from a value that SQL changes on the way", () => {
    db.exec("CREATE TABLE t (a INTEGER, b REAL, c TEXT, d, e BLOB)");
    db.exec("INSERT INTO t VALUES ('12', 3, 4, CAST(x'c3' AS TEXT), zeroblob(70000))");
    const stored = db.prepare("SELECT kimberlite_row(a, b, c, d, e) FROM t").pluck().get() as Buffer;
    const types = [0, 1, 2, 3, 4].map((index) => actual(stored, index));
    expect(types.slice(0, 4)).toEqual([
      { type: "integer", content: "12" },
      { type: "real", content: 3 },
      { type: "text", content: "34" },
      { type: "text", content: "C3" },
    ]);
    expect(column.get(stored, 4)).toEqual(Buffer.alloc(70_000));
  });
});

describe("hostile images", () => {
  const refused = /kimberlite: not a row image/;

  it.each([
    ["nothing", ""],
    ["an integer", "01"],
    ["a map", "a10102"],
    ["an indefinite array", "9f01ff"],
    ["an array cut short", "8201"],
    ["trailing bytes", "810101"],
    ["a long head for a short length", "980101"],
    ["a long head for a small integer", "811801"],
    ["an integer beyond 64 bits signed", "811bffffffffffffffff"],
    ["a negative beyond 64 bits signed", "813bffffffffffffffff"],
    ["a text longer than the image", "817b7fffffffffffffff61"],
    ["a blob of 2^64 - 1", "815bffffffffffffffff"],
    ["2^64 - 1 items", "9bffffffffffffffff01"],
    ["half a float", "81fb0000"],
    ["a short float", "81f93c00"],
    ["NaN", "81fb7ff8000000000000"],
    ["invalid UTF-8 as text", "8161ff"],
    ["valid UTF-8 under the tag", "81d99c404161"],
    ["another tag", "81c24161"],
    ["a tag of text", "81d99c406161"],
    ["a nested array", "818101"],
    ["a boolean", "81f5"],
    ["undefined", "81f7"],
    ["indefinite bytes", "815f41ffff"],
    ["damage after the column", "8201fb00"],
  ])("%s", (_, hex) => {
    expect(() => column.get(Buffer.from(hex, "hex"), 0)).toThrow(refused);
  });

  it("have no column outside", () => {
    const image = pack([{ type: "null" }]);
    for (const index of [1, -1, 2 ** 31, 2n ** 63n - 1n, -(2n ** 63n)])
      expect(() => column.get(image, index)).toThrow(refused);
    for (const other of [null, "x", 1]) expect(() => column.get(other, 0)).toThrow(refused);
  });

  it("are refused or are images, whatever one byte becomes", () => {
    const mutate = (values: readonly SqlValue[], position: number, byte: number): void => {
      const image = pack(values);
      image[position % image.length] = byte;
      let columns: SqlValue[];
      try {
        columns = values.map((_, index) => read(image, index));
      } catch (error) {
        expect(String(error)).toMatch(refused);
        return;
      }
      // Only an array of another length can be an image and not pack to itself here.
      if ((image[0] ?? 0) === encode(values)[0]) expect(pack(columns)).toEqual(image);
    };
    fc.assert(
      fc.property(fc.array(value, { minLength: 1, maxLength: 8 }), fc.nat(4_000), fc.nat(255), mutate),
      {
        numRuns: 2_000,
      },
    );
  });
});

function read(image: Uint8Array, index: number): SqlValue {
  const { type, content } = actual(image, index);
  if (type === "integer") return { type, integer: BigInt(String(content)) };
  if (type === "real") return { type, real: Number(content) };
  return type === "text" || type === "blob"
    ? { type, bytes: Buffer.from(String(content), "hex") }
    : { type: "null" };
}
