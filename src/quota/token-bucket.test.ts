/** The token bucket against its promise: never more than burst + rate × t, never less than it could, and true waits. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type BucketRate, fullBucket, type TokenBucket, takeToken } from "./token-bucket.ts";

const rates: fc.Arbitrary<BucketRate> = fc.record({
  ratePerSec: fc.integer({ min: 1, max: 100_000 }),
  burst: fc.integer({ min: 1, max: 1_000 }),
});
/** Waits between one try and the next, in milliseconds. */
const waits = fc.array(
  fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 5_000 }), fc.double({ min: 0, max: 50, noNaN: true })),
  {
    maxLength: 300,
  },
);

interface Taken {
  readonly atMs: number;
  readonly ok: boolean;
}

function takeAll(rate: BucketRate, gaps: readonly number[]): Taken[] {
  let bucket: TokenBucket = fullBucket(rate, 0);
  let atMs = 0;
  return gaps.map((gap) => {
    atMs += gap;
    const taken = takeToken(bucket, rate, atMs);
    bucket = taken.bucket;
    return { atMs, ok: taken.retryAfterMs === undefined };
  });
}

describe("takeToken", () => {
  it("lets no more than burst + rate × t through, over any span", () => {
    fc.assert(
      fc.property(rates, waits, (rate, gaps) => {
        const taken = takeAll(rate, gaps).filter(({ ok }) => ok);
        for (let from = 0; from < taken.length; from += 1) {
          for (let until = from; until < taken.length; until += 7) {
            const seconds = ((taken[until] as Taken).atMs - (taken[from] as Taken).atMs) / 1_000;
            expect(until - from + 1).toBeLessThanOrEqual(rate.burst + rate.ratePerSec * seconds + 1e-6);
          }
        }
      }),
      { numRuns: 200 },
    );
  });

  it("lets a full burst through at once, and then exactly the rate", () => {
    fc.assert(
      fc.property(rates, fc.integer({ min: 1, max: 20 }), (rate, seconds) => {
        expect(
          takeAll(
            rate,
            Array.from({ length: rate.burst }, () => 0),
          ).every(({ ok }) => ok),
        ).toBe(true);
        let bucket: TokenBucket = { tokens: 0, updatedAtMs: 0 };
        const steady = { ratePerSec: 10, burst: 3 };
        let passed = 0;
        for (let atMs = 1; atMs <= seconds * 1_000; atMs += 1) {
          const taken = takeToken(bucket, steady, atMs);
          bucket = taken.bucket;
          if (taken.retryAfterMs === undefined) passed += 1;
        }
        expect(Math.abs(passed - steady.ratePerSec * seconds)).toBeLessThanOrEqual(1);
      }),
      { numRuns: 50 },
    );
  });

  it("says a wait after which there is a token, and a millisecond before which there is none", () => {
    fc.assert(
      fc.property(rates, fc.double({ min: 0, max: 0.999, noNaN: true }), (rate, tokens) => {
        const bucket = { tokens, updatedAtMs: 1_000 };
        const { retryAfterMs, bucket: after } = takeToken(bucket, rate, 1_000);
        expect(retryAfterMs).toBeGreaterThan(0);
        const wait = retryAfterMs as number;
        expect(takeToken(after, rate, 1_000 + wait).retryAfterMs).toBeUndefined();
        if (wait > 1) expect(takeToken(after, rate, 1_000 + wait - 1.001).retryAfterMs).toBeGreaterThan(0);
      }),
    );
  });

  it("is not slowed by being asked often", () => {
    fc.assert(
      fc.property(rates, fc.integer({ min: 1, max: 50 }), (rate, steps) => {
        const periodMs = 1_000 / rate.ratePerSec;
        let bucket: TokenBucket = { tokens: 0, updatedAtMs: 0 };
        for (let step = 1; step < steps; step += 1)
          bucket = takeToken(bucket, rate, (periodMs * step) / steps).bucket;
        expect(takeToken(bucket, rate, periodMs).retryAfterMs).toBeUndefined();
      }),
    );
  });

  it("neither gives nor takes by a clock that goes back", () => {
    fc.assert(
      fc.property(rates, fc.integer({ min: 1, max: 1_000_000 }), (rate, back) => {
        const bucket = { tokens: 0.5, updatedAtMs: 2_000_000 };
        const early = takeToken(bucket, rate, 2_000_000 - back);
        expect(early.bucket).toEqual(bucket);
        expect(takeToken(early.bucket, rate, 2_000_000).bucket).toEqual(
          takeToken(bucket, rate, 2_000_000).bucket,
        );
      }),
    );
  });
});
