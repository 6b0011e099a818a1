/** Arguments are taken in the forms that the help names, and in no other. */
import { describe, expect, it } from "vitest";
import { changeQuota, parseCount, parseDays, parseMoment, parseParameters, parseSize } from "./arguments.ts";

describe("parseMoment", () => {
  it("takes offsets and times, which are UTC unless they say otherwise", () => {
    expect(parseMoment("0")).toBe(0n);
    expect(parseMoment("9007199254740993")).toBe(9007199254740993n);
    expect(parseMoment("2026-05-01")).toEqual(new Date("2026-05-01T00:00:00Z"));
    expect(parseMoment("2026-05-01 12:30")).toEqual(new Date("2026-05-01T12:30:00Z"));
    expect(parseMoment("2026-05-01T12:30:00.5+02:00")).toEqual(new Date("2026-05-01T10:30:00.5Z"));
  });

  it.each([
    "",
    "-1",
    "1.5",
    "now",
    "yesterday",
    "2026-13-01",
    "2026-05-01T25:00",
    "0x10",
    "1e3",
    "2026-05-01T12:00 x",
  ])("refuses %j", (text) => {
    expect(() => parseMoment(text)).toThrow(expect.objectContaining({ code: "invalid_argument" }));
  });
});

describe("limits", () => {
  it("have units", () => {
    expect(["1", "500B", "1kB", "1KiB", "1.5 MiB", "2GB", "none"].map(parseSize)).toEqual([
      1,
      500,
      1000,
      1024,
      1572864,
      2e9,
      "none",
    ]);
    expect(["1", "250", "none"].map(parseCount)).toEqual([1, 250, "none"]);
    expect(parseDays("0.5")).toBe(0.5);
  });

  it.each(["", "0", "-1", "1XB", "MiB", "1e3", "99999999999999999", "NaN", "constructor", "1constructor"])(
    "refuse the size %j",
    (text) => {
      expect(() => parseSize(text)).toThrow(expect.objectContaining({ code: "invalid_argument" }));
    },
  );

  it.each(["", "0", "-1", "1.5", "x", "99999999999999999"])("refuse the count %j", (text) => {
    expect(() => parseCount(text)).toThrow(expect.objectContaining({ code: "invalid_argument" }));
  });

  it("change what is given and keep the rest", () => {
    expect(changeQuota({ maxLogBytes: 5, maxOpsPerSec: 6 }, { maxLogBytes: "none", burstOps: 7 })).toEqual({
      maxOpsPerSec: 6,
      burstOps: 7,
    });
  });
});

describe("parseParameters", () => {
  it("takes JSON by place and by name", () => {
    expect(
      parseParameters('[1, "x", null, true, {"base64": "AP8="}, {"integer": "9007199254740993"}]'),
    ).toEqual([1, "x", null, true, Buffer.from([0, 255]), 9007199254740993n]);
    expect(parseParameters('{"id": 1}')).toEqual({ id: 1 });
  });

  it.each(["", "1", "null", "[[1]]", '[{"x": 1}]', "[1", '[{"integer": "1.5"}]'])("refuses %j", (text) => {
    expect(() => parseParameters(text)).toThrow(expect.objectContaining({ code: "invalid_argument" }));
  });
});
