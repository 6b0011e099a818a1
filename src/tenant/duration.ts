/** Lengths of time with their unit in the type, so that seconds are never taken for days. */
import { kimberliteError } from "../errors.ts";

declare const durationBrand: unique symbol;

/** A non-negative length of time; `ms` is its milliseconds. */
export type Duration = { readonly ms: number; readonly [durationBrand]: true };

const MAX_MS = Number.MAX_SAFE_INTEGER;

function fromUnits(count: number, unitMs: number): Duration {
  const ms = typeof count === "number" ? count * unitMs : Number.NaN;
  if (!Number.isFinite(ms) || ms < 0 || ms > MAX_MS) {
    throw kimberliteError("invalid_argument", "a duration is a non-negative, finite number");
  }
  return Object.freeze({ ms: Math.round(ms) }) as Duration;
}

/** Makes durations. Each throws `invalid_argument` for a negative, infinite or non-numeric length. */
export const Duration: {
  milliseconds(count: number): Duration;
  seconds(count: number): Duration;
  minutes(count: number): Duration;
  hours(count: number): Duration;
  days(count: number): Duration;
} = {
  milliseconds: (count) => fromUnits(count, 1),
  seconds: (count) => fromUnits(count, 1_000),
  minutes: (count) => fromUnits(count, 60_000),
  hours: (count) => fromUnits(count, 3_600_000),
  days: (count) => fromUnits(count, 86_400_000),
};
