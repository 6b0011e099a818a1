/** A tenant's configuration: what is wrong in it is named, and nothing unknown slips through. */
import { describe, expect, it } from "vitest";
import { Duration } from "./duration.ts";
import { Region } from "./region.ts";
import { parseQuota, parseTenantConfig, type TenantConfig } from "./tenant-config.ts";
import { TenantId } from "./tenant-id.ts";

const config: TenantConfig = { id: TenantId(5), name: "Hospital" };

describe("parseTenantConfig", () => {
  it("fills in what is absent", () => {
    expect(parseTenantConfig(config)).toEqual({
      id: 5n,
      name: "Hospital",
      region: "us-east",
      retentionMs: 0,
      retentionMode: "governance",
      quota: {},
    });
    const full = { ...config, region: Region.EuWest, retention: Duration.days(2), quota: { maxLogBytes: 5 } };
    expect(parseTenantConfig(full)).toMatchObject({
      region: "eu-west",
      retentionMs: 172_800_000,
      quota: { maxLogBytes: 5 },
    });
  });

  const wrong: readonly (readonly [string, unknown])[] = [
    ["no object", null],
    ["an array", []],
    ["an unknown field", { ...config, colour: "red" }],
    ["tenant 0", { ...config, id: 0 }],
    ["an empty name", { ...config, name: "" }],
    ["a name too long", { ...config, name: "x".repeat(256) }],
    ["a name with a line in it", { ...config, name: "a\nb" }],
    ["a name with a lone surrogate", { ...config, name: "a\udc00" }],
    ["a region that is a path", { ...config, region: "../x" }],
    ["a region in capitals", { ...config, region: "US" }],
    ["a retention without its unit", { ...config, retention: 5 }],
    ["a negative retention", { ...config, retention: { ms: -1 } }],
    ["a quota of nothing", { ...config, quota: { maxLogBytes: 0 } }],
    ["an unknown quota", { ...config, quota: { maxFun: 1 } }],
    ["a quota of text", { ...config, quota: { maxOpsPerSec: "5" } }],
    ["an endless quota", { ...config, quota: { maxOpsPerSec: Number.POSITIVE_INFINITY } }],
  ];

  it.each(wrong)("refuses %s", (_name, value) => {
    expect(() => parseTenantConfig(value as TenantConfig)).toThrow(
      expect.objectContaining({ code: "invalid_argument" }),
    );
  });
});

describe("parseQuota", () => {
  it("drops limits that are undefined, and freezes the rest", () => {
    const quota = parseQuota({ maxLogBytes: 5, maxOpsPerSec: undefined } as never);
    expect(quota).toEqual({ maxLogBytes: 5 });
    expect(Object.isFrozen(quota)).toBe(true);
  });
});

describe("Duration", () => {
  it("refuses what is no length of time", () => {
    for (const count of [-1, Number.NaN, Number.POSITIVE_INFINITY, "5", null, undefined, 1e300]) {
      expect(() => Duration.days(count as number)).toThrow(
        expect.objectContaining({ code: "invalid_argument" }),
      );
    }
  });
});
