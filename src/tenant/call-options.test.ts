/** Options of calls: right, absent, or refused by name. */
import { describe, expect, it } from "vitest";
import {
  hasMethods,
  parseCallback,
  parseCount,
  parseOptions,
  parseSignal,
  parseTimeLimit,
} from "./call-options.ts";

const refused: unknown = expect.objectContaining({ code: "invalid_argument" });

describe("options of calls", () => {
  it("are an object or absent", () => {
    const given = { a: 1 };
    expect(parseOptions(given)).toBe(given);
    expect(parseOptions(undefined)).toEqual({});
    for (const wrong of [null, 1, "x", [], () => 1, true, Symbol("s")])
      expect(() => parseOptions(wrong as never)).toThrow(refused as Error);
  });

  it("have counts that are integers within bounds", () => {
    expect(parseCount(5, { name: "limit", min: 1, max: 5 })).toBe(5);
    for (const wrong of [0, 6, 1.5, Number.NaN, Number.POSITIVE_INFINITY, "5", 5n, null, undefined]) {
      expect(() => parseCount(wrong, { name: "limit", min: 1, max: 5 })).toThrow(
        /limit is an integer from 1 to 5/,
      );
    }
    expect(parseTimeLimit(2 ** 31 - 1, "timeLimitMs")).toBe(2 ** 31 - 1);
    for (const wrong of [0, 2 ** 31, -1])
      expect(() => parseTimeLimit(wrong, "timeLimitMs")).toThrow(refused as Error);
  });

  it("have signals and callbacks that are such", () => {
    const { signal } = new AbortController();
    const callback = (): number => 1;
    expect(parseSignal(signal)).toBe(signal);
    expect(parseSignal(undefined)).toBeUndefined();
    expect(parseCallback(callback, "onProgress")).toBe(callback);
    for (const wrong of [null, {}, 1, { aborted: false }]) {
      expect(() => parseSignal(wrong)).toThrow(refused as Error);
      expect(() => parseCallback(wrong as never, "onProgress")).toThrow(/onProgress is a function/);
    }
  });

  it("plug in what has the methods", () => {
    expect(hasMethods({ a: () => 1, b: () => 2 }, ["a", "b"])).toBe(true);
    for (const wrong of [{ a: () => 1 }, { a: () => 1, b: 2 }, null, undefined, 5])
      expect(hasMethods(wrong, ["a", "b"])).toBe(false);
  });
});
