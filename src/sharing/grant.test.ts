/** Whether a grant stands, by the times that are given. */
import { describe, expect, it } from "vitest";
import { StreamId, TenantId } from "../tenant/tenant-id.ts";
import { chooseGrant, type GrantRow, hasExpired, refusalOf } from "./grant.ts";

const GRANT: GrantRow = {
  id: "a",
  fromTenant: TenantId(1),
  toTenant: TenantId(2),
  stream: StreamId(1, 100),
  kind: "events",
  name: "referrals",
  permissions: "read",
  purpose: "referral",
  actor: "local",
  createdAtUs: 100n,
  notBeforeUs: 200n,
  expiresAtUs: 300n,
  state: "active",
};

const at = (us: bigint): { latestUs: bigint; earliestUs: bigint } => ({ latestUs: us, earliestUs: us });

describe("a grant", () => {
  it("stands from its beginning until just before its end", () => {
    expect(refusalOf(GRANT, at(199n))).toBe("grant_not_yet_valid");
    expect(refusalOf(GRANT, at(200n))).toBeUndefined();
    expect(refusalOf(GRANT, at(299n))).toBeUndefined();
    expect(refusalOf(GRANT, at(300n))).toBe("grant_expired");
  });

  it("begins by the slowest clock and ends by the fastest", () => {
    expect(refusalOf(GRANT, { latestUs: 250n, earliestUs: 150n })).toBe("grant_not_yet_valid");
    expect(refusalOf(GRANT, { latestUs: 300n, earliestUs: 250n })).toBe("grant_expired");
    expect(hasExpired(GRANT, { latestUs: 300n })).toBe(true);
  });

  it("that has ended does not stand, whatever the time", () => {
    for (const [state, code] of [
      ["revoked", "grant_revoked"],
      ["expired", "grant_expired"],
      ["ended", "grant_ended"],
    ] as const) {
      expect(refusalOf({ ...GRANT, state }, at(250n))).toBe(code);
      expect(hasExpired({ ...GRANT, state }, at(400n))).toBe(false);
    }
  });

  it("is chosen by standing first, then by age", () => {
    const older = { ...GRANT, id: "older", createdAtUs: 50n };
    const newest = { ...GRANT, id: "newest", createdAtUs: 150n, state: "revoked" as const };
    expect(chooseGrant([older, GRANT, newest], at(250n))?.id).toBe("a");
    expect(chooseGrant([older, GRANT, newest], at(400n))?.id).toBe("newest");
    expect(chooseGrant([], at(250n))).toBeUndefined();
  });
});
