/** Parsing the optional arguments of public calls: whatever a caller gives, it is right or `invalid_argument`. */
import { kimberliteError } from "../errors.ts";

const MAX_TIMER_MS = 2 ** 31 - 1;

/** The options object of a call, empty if it was left out. @throws `invalid_argument` for anything but an object */
export function parseOptions<T extends object>(options: T | undefined): Partial<T> {
  if (options === undefined) return {};
  const given: unknown = options;
  if (typeof given === "object" && given !== null && !Array.isArray(given)) return options;
  throw invalid("options are an object");
}

/** @throws `invalid_argument` */
export function parseSignal(signal: unknown): AbortSignal | undefined {
  if (signal === undefined || signal instanceof AbortSignal) return signal;
  throw invalid("signal is an AbortSignal");
}

/** @throws `invalid_argument` */
export function parseCallback<T>(callback: T | undefined, name: string): T | undefined {
  if (callback === undefined || typeof callback === "function") return callback;
  throw invalid(`${name} is a function`);
}

/** @throws `invalid_argument` unless it is a positive integer that a timer can wait */
export function parseTimeLimit(timeLimitMs: unknown, name: string): number {
  return parseCount(timeLimitMs, { name, min: 1, max: MAX_TIMER_MS });
}

/** @throws `invalid_argument` unless it is an integer within the bounds */
export function parseCount(
  count: unknown,
  bounds: { readonly name: string; readonly min: number; readonly max?: number },
): number {
  const { name, min, max = Number.MAX_SAFE_INTEGER } = bounds;
  if (typeof count === "number" && Number.isSafeInteger(count) && count >= min && count <= max) return count;
  throw invalid(`${name} is an integer from ${min} to ${max}`);
}

/** True if `value` has all of these methods: what a caller plugs in is checked by its shape. */
export function hasMethods(value: unknown, names: readonly string[]): boolean {
  if (typeof value !== "object" || value === null) return false;
  return names.every((name) => typeof (value as Record<string, unknown>)[name] === "function");
}

function invalid(message: string): Error {
  return kimberliteError("invalid_argument", message);
}
