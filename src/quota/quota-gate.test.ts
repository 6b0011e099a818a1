/** The gate of one tenant: each policy by its name, exact, and none of them another's. */
import { describe, expect, it } from "vitest";
import type { KimberliteError } from "../errors.ts";
import type { Clock } from "../host/clock.ts";
import { TenantId } from "../tenant/tenant-id.ts";
import { QuotaGate } from "./quota-gate.ts";

const A = TenantId(1);

function handClock(): Clock & { nowMs: number } {
  const clock = { nowMs: 0, wallTimeUs: () => 0n, monotonicMs: () => clock.nowMs };
  return clock;
}

function refusal(work: () => void): KimberliteError {
  try {
    work();
  } catch (error) {
    return error as KimberliteError;
  }
  throw new Error("it was let through");
}

describe("QuotaGate", () => {
  it("lets everything through without a quota", () => {
    const gate = new QuotaGate(A, {}, handClock());
    for (let count = 0; count < 10_000; count += 1) gate.enter();
    gate.checkStorage({ logBytes: 1e15, projectionBytes: 1e15 });
    expect(gate.running).toBe(10_000);
  });

  it("lets as many run at once as are allowed, and one more when one leaves", () => {
    const gate = new QuotaGate(A, { maxConcurrentOps: 3 }, handClock());
    for (let count = 0; count < 3; count += 1) gate.enter();
    expect(refusal(() => gate.enter())).toMatchObject({
      code: "quota_exceeded",
      detail: { policy: "maxConcurrentOps", limit: 3 },
    });
    gate.leave();
    gate.enter();
    expect(gate.running).toBe(3);
  });

  it("an operation that one policy refuses costs nothing of another", () => {
    const gate = new QuotaGate(A, { maxConcurrentOps: 1, maxOpsPerSec: 2 }, handClock());
    gate.enter();
    for (let count = 0; count < 10; count += 1) refusal(() => gate.enter());
    gate.leave();
    gate.enter();
    gate.leave();
    expect(refusal(() => gate.enter())).toMatchObject({ code: "rate_limited", retryAfterMs: 500 });
    expect(gate.running).toBe(0);
  });

  it("refuses by rate with the time to wait, and keeps to it", () => {
    const clock = handClock();
    const gate = new QuotaGate(A, { maxOpsPerSec: 4, burstOps: 2 }, clock);
    for (const nowMs of [0, 0]) {
      clock.nowMs = nowMs;
      gate.enter();
    }
    expect(refusal(() => gate.enter())).toMatchObject({
      code: "rate_limited",
      retryAfterMs: 250,
      detail: { policy: "maxOpsPerSec", limit: 4 },
    });
    clock.nowMs = 249;
    expect(refusal(() => gate.enter()).retryAfterMs).toBe(1);
    clock.nowMs = 250;
    gate.enter();
  });

  it("puts another quota into force at once, without a new burst", () => {
    const clock = handClock();
    const gate = new QuotaGate(A, { maxOpsPerSec: 100 }, clock);
    for (let count = 0; count < 100; count += 1) gate.enter();
    gate.change({ maxOpsPerSec: 1_000 });
    expect(refusal(() => gate.enter()).code).toBe("rate_limited");
    clock.nowMs = 10;
    for (let count = 0; count < 10; count += 1) gate.enter();
    expect(refusal(() => gate.enter()).code).toBe("rate_limited");
    gate.change({});
    gate.enter();
  });

  it("does not hold earlier time against, or for, a rate that was just changed", () => {
    const clock = handClock();
    const gate = new QuotaGate(A, { maxOpsPerSec: 1, burstOps: 1 }, clock);
    gate.enter();
    clock.nowMs = 500;
    gate.change({ maxOpsPerSec: 1_000, burstOps: 1_000 });
    // Half a second went by at one a second: half a token, and not five hundred.
    expect(refusal(() => gate.enter())).toMatchObject({ code: "rate_limited", retryAfterMs: 1 });
  });

  it("checks storage to the byte", () => {
    const gate = new QuotaGate(A, { maxLogBytes: 100, maxProjectionBytes: 200 }, handClock());
    gate.checkStorage({ logBytes: 100, projectionBytes: 200 });
    expect(refusal(() => gate.checkStorage({ logBytes: 101, projectionBytes: 0 }))).toMatchObject({
      detail: { policy: "maxLogBytes", limit: 100 },
    });
    expect(refusal(() => gate.checkStorage({ logBytes: 0, projectionBytes: 201 }))).toMatchObject({
      detail: { policy: "maxProjectionBytes", limit: 200 },
    });
  });
});
