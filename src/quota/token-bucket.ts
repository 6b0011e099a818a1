/**
 * A token bucket: pure transitions, the clock an input.
 *
 * Kept: over any span of t seconds no more than `burst + rate × t` operations are let through; a clock that goes back
 * neither adds nor removes tokens.
 */

export interface TokenBucket {
  readonly tokens: number;
  readonly updatedAtMs: number;
}

export interface BucketRate {
  readonly ratePerSec: number;
  readonly burst: number;
}

/** Sums of binary fractions fall short of a whole token by less than this. */
const ROUNDING = 1e-9;

export function fullBucket(rate: BucketRate, nowMs: number): TokenBucket {
  return { tokens: rate.burst, updatedAtMs: nowMs };
}

/** The bucket with what has flowed into it until now. */
export function refill(bucket: TokenBucket, rate: BucketRate, nowMs: number): TokenBucket {
  const elapsedMs = Math.max(0, nowMs - bucket.updatedAtMs);
  const tokens = Math.min(rate.burst, bucket.tokens + (elapsedMs * rate.ratePerSec) / 1000);
  return { tokens, updatedAtMs: Math.max(nowMs, bucket.updatedAtMs) };
}

/** Takes one token, or says in how many milliseconds there will be one; a refusal leaves the bucket as it was. */
export function takeToken(
  bucket: TokenBucket,
  rate: BucketRate,
  nowMs: number,
): { readonly bucket: TokenBucket; readonly retryAfterMs: number | undefined } {
  const { tokens, updatedAtMs } = refill(bucket, rate, nowMs);
  if (tokens >= 1 - ROUNDING) {
    return { bucket: { tokens: Math.max(0, tokens - 1), updatedAtMs }, retryAfterMs: undefined };
  }
  const waitMs = updatedAtMs - nowMs + ((1 - tokens) * 1000) / rate.ratePerSec;
  return { bucket, retryAfterMs: Math.max(1, Math.ceil(waitMs - ROUNDING)) };
}
