/** Events come back as they were given, or are refused before anything is written. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeEvent, encodeEvent, parseStreamName } from "./event.ts";

const MAX = 1_000_000;
const { tree } = fc.letrec((tie) => ({
  tree: fc.oneof(
    { maxDepth: 5 },
    fc.constant(null),
    fc.boolean(),
    fc.string({ unit: "grapheme" }),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.maxSafeInteger(),
    fc.uint8Array({ maxLength: 40 }),
    fc.array(tie("tree"), { maxLength: 5 }),
    fc.dictionary(
      fc.string({ unit: "grapheme" }).filter((key) => key !== "__proto__"),
      tie("tree"),
      { maxKeys: 5 },
    ),
  ),
}));

/** Bytes come back as bytes, whatever class of array they were; a negative zero comes back as zero. */
function plain(value: unknown): unknown {
  if (Object.is(value, -0)) return 0;
  if (value instanceof Uint8Array) return { bytes: Buffer.from(value).toString("hex") };
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
}

describe("events", () => {
  it("come back as they were", () => {
    fc.assert(
      fc.property(tree, (event) => {
        expect(plain(decodeEvent(encodeEvent(event, MAX)))).toEqual(plain(event));
      }),
      { numRuns: 500 },
    );
  });

  it("come back without the sign of a negative zero", () => {
    expect(Object.is(decodeEvent(encodeEvent(-0, MAX)), 0)).toBe(true);
  });

  it("keep integers of 64 bits", () => {
    for (const event of [2n ** 63n - 1n, -(2n ** 63n), 2n ** 53n, -(2n ** 53n) - 1n]) {
      expect(decodeEvent(encodeEvent({ event }, MAX))).toEqual({ event });
    }
  });

  const refused: readonly (readonly [string, unknown])[] = [
    ["undefined", undefined],
    ["a function", () => 1],
    ["a symbol", Symbol("s")],
    ["NaN", Number.NaN],
    ["an infinity", [Number.NEGATIVE_INFINITY]],
    ["an integer past 64 bits", { a: 2n ** 63n }],
    ["a lone surrogate", { a: "\ud800" }],
    ["a Date", new Date(0)],
    ["a Map", new Map()],
    ["an instance of a class", new (class Odd {})()],
    ["an array with a hole of undefined", [1, undefined]],
    ["a field named __proto__", JSON.parse('{"__proto__": 1}')],
    [
      "itself",
      (() => {
        const loop: Record<string, unknown> = {};
        loop["loop"] = loop;
        return loop;
      })(),
    ],
  ];

  it.each(refused)("refuse %s", (_name, event) => {
    expect(() => encodeEvent(event, MAX)).toThrow(expect.objectContaining({ code: "invalid_argument" }));
  });

  it("refuse a lone surrogate in a field's name, which would come back as another", () => {
    expect(() => encodeEvent({ "a\ud800": 1 }, MAX)).toThrow(
      expect.objectContaining({ code: "invalid_argument" }),
    );
  });

  it("are no larger than they may be", () => {
    expect(encodeEvent(Buffer.alloc(100), 110).length).toBeLessThanOrEqual(110);
    expect(() => encodeEvent(Buffer.alloc(100), 99)).toThrow(
      expect.objectContaining({ code: "value_too_large" }),
    );
  });
});

describe("parseStreamName", () => {
  it("takes words and refuses what is reserved, empty, too long or no text", () => {
    for (const name of ["visits", "Visits 2024", "ä/ö", "x".repeat(255)])
      expect(parseStreamName(name)).toBe(name);
    for (const name of [
      "",
      "x".repeat(256),
      "a\0b",
      "a\nb",
      "\ud800",
      "_kimberlite_x",
      "_KIMBERLITE_x",
      "sqlite_x",
      "SQLITE_x",
      5,
      null,
      {},
    ]) {
      expect(() => parseStreamName(name)).toThrow(expect.objectContaining({ code: "invalid_argument" }));
    }
  });
});
