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

export function fullBucket(rate: BucketRate, nowMs: number): TokenBucket {
  return { tokens: rate.burst, updatedAtMs: nowMs };
}

/** Takes one token, or says in how many milliseconds there will be one. */
export function takeToken(
  bucket: TokenBucket,
  rate: BucketRate,
  nowMs: number,
): { readonly bucket: TokenBucket; readonly retryAfterMs: number | undefined } {
  const elapsedMs = Math.max(0, nowMs - bucket.updatedAtMs);
  const tokens = Math.min(rate.burst, bucket.tokens + (elapsedMs * rate.ratePerSec) / 1000);
  const updatedAtMs = Math.max(nowMs, bucket.updatedAtMs);
  if (tokens >= 1) return { bucket: { tokens: tokens - 1, updatedAtMs }, retryAfterMs: undefined };
  const retryAfterMs = Math.ceil(((1 - tokens) * 1000) / rate.ratePerSec);
  return { bucket: { tokens, updatedAtMs }, retryAfterMs };
}
