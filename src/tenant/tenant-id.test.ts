/** Ids are made of what is an id, and of nothing else. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { isStreamId, StreamId, TenantId } from "./tenant-id.ts";

const NONSENSE: readonly unknown[] = [
  0,
  -1,
  1.5,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  2 ** 53,
  0n,
  -1n,
  2n ** 63n,
  "",
  "0",
  "01",
  "-1",
  "+1",
  " 1",
  "1 ",
  "1e3",
  "0x1",
  "９",
  "9223372036854775808",
  "99999999999999999999",
  null,
  undefined,
  true,
  {},
  [],
  [1],
  Symbol("1"),
  () => 1,
  new Date(1),
];

describe("TenantId", () => {
  it("gives one id for every spelling of a number in range", () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 1n, max: 2n ** 63n - 1n }), (id) => {
        expect(TenantId(id)).toBe(id);
        expect(TenantId(id.toString())).toBe(id);
        if (id <= Number.MAX_SAFE_INTEGER) expect(TenantId(Number(id))).toBe(id);
      }),
    );
  });

  it.each(NONSENSE.map((value) => [value]))("refuses %s", (value) => {
    expect(() => TenantId(value as number)).toThrow(expect.objectContaining({ code: "invalid_argument" }));
  });
});

describe("StreamId", () => {
  it.each([...NONSENSE, 2 ** 31].map((value) => [value]))("refuses %s as its number", (value) => {
    expect(() => StreamId(1, value as number)).toThrow(expect.objectContaining({ code: "invalid_argument" }));
  });

  it("cannot be changed, and is known by its shape", () => {
    const id = StreamId(3, 100);
    expect(Object.isFrozen(id)).toBe(true);
    expect(isStreamId(id)).toBe(true);
    expect(isStreamId({ tenant: 3n, local: 100 })).toBe(true);
    for (const other of [
      null,
      5,
      "3/100",
      { tenant: 3, local: 100 },
      { tenant: 3n, local: 0 },
      { tenant: 3n, local: 1.5 },
      { tenant: 3n },
    ]) {
      expect(isStreamId(other)).toBe(false);
    }
  });
});
