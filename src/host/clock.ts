/** Time as an input: tests own it, production reads the machine's. */

/** Wall time for what people read, monotonic time for leases, quotas and limits. */
export interface Clock {
  /** Microseconds since 1970-01-01T00:00:00Z; may jump. */
  wallTimeUs(): bigint;
  /** Milliseconds from an arbitrary start; never goes back. */
  monotonicMs(): number;
}

export const systemClock: Clock = {
  wallTimeUs: () => BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)),
  monotonicMs: () => performance.now(),
};

/** A time in microseconds since 1970-01-01T00:00:00Z as ISO 8601 in UTC, to the millisecond. */
export function isoTime(timeUs: bigint): string {
  return new Date(Number(timeUs / 1000n)).toISOString();
}
