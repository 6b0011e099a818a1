/** Arguments of the command line, parsed once. Each function throws `invalid_argument` and says what is expected. */
import { kimberliteError } from "../errors.ts";
import type { Moment } from "../pipeline/time-travel.ts";
import type { SqlInput, SqlParams } from "../projection/values.ts";
import { Duration } from "../tenant/duration.ts";
import type { TenantQuota } from "../tenant/tenant-config.ts";

/** A server, and the credential that is shown to it. */
export interface ServerAddress {
  readonly url: string;
  readonly token: string;
}

/** Options that every command takes. */
export interface GlobalOptions {
  readonly dir: string;
  /** Instead of the directory. */
  readonly server?: ServerAddress;
  readonly json?: boolean;
  /** Who asks, for the record; the account that runs the command unless given. */
  readonly actor?: string;
}

/** Options of a command whose reason is recorded. */
export interface RecordedOptions extends GlobalOptions {
  readonly reason?: string;
}

const UNITS: Readonly<Record<string, number>> = {
  "": 1,
  B: 1,
  kB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
};

/** An offset, or a time in ISO 8601 that is UTC unless it says otherwise. */
export function parseMoment(text: string): Moment {
  if (/^\d+$/.test(text)) return BigInt(text);
  if (/^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$/i.test(text)) {
    const zoned = /(Z|[+-]\d{2}:?\d{2})$/i.test(text.slice(10)) || text.length === 10;
    const time = new Date(`${text.replace(" ", "T")}${zoned ? "" : "Z"}`);
    if (!Number.isNaN(time.getTime())) return time;
  }
  throw invalid("a moment is an offset, or a time such as 2026-05-01T12:00:00Z");
}

/** A time, and no offset. */
export function parseTime(text: string): Date {
  const moment = parseMoment(text);
  if (moment instanceof Date) return moment;
  throw invalid("a time is one such as 2026-05-01T12:00:00Z");
}

/** A limit, or none: commander takes `undefined` for a flag that was not given. */
export type Limit = number | "none";

/** A positive whole number, or "none". */
export function parseCount(text: string): Limit {
  if (text === "none") return text;
  const count = /^\d{1,16}$/.test(text) ? Number(text) : 0;
  if (!Number.isSafeInteger(count) || count < 1) throw invalid("a limit is a positive whole number, or none");
  return count;
}

/** A size such as 500, 64MiB or 2GB, or "none". */
export function parseSize(text: string): Limit {
  if (text === "none") return text;
  const [, digits, unit] = /^(\d{1,16}(?:\.\d{1,6})?) ?([A-Za-z]*)$/.exec(text) ?? [];
  const bytes = Math.round(Number(digits) * (UNITS[unit ?? ""] ?? Number.NaN));
  if (!Number.isSafeInteger(bytes) || bytes < 1)
    throw invalid("a size is a number with B, kB, MB, GB, KiB, MiB or GiB, or none");
  return bytes;
}

/** A TCP port; 0 is any that is free. */
export function parsePort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : -1;
  if (port < 0 || port > 65_535) throw invalid("a port is 0 to 65535");
  return port;
}

/** A whole number from 0 on. */
export function parseWhole(text: string): number {
  const whole = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(whole)) throw invalid("a whole number is wanted, from 0 on");
  return whole;
}

/** Days, also fractions of one. */
export function parseDays(text: string): number {
  if (!/^\d{1,7}(\.\d{1,6})?$/.test(text)) throw invalid("a retention is a number of days");
  return Number(text);
}

const DURATIONS: Readonly<Record<string, (count: number) => Duration>> = {
  s: (count) => Duration.seconds(count),
  m: (count) => Duration.minutes(count),
  h: (count) => Duration.hours(count),
  d: (count) => Duration.days(count),
};

/** A length of time such as 30m, 12h or 90d. */
export function parseDuration(text: string): Duration {
  const [, count, unit = ""] = /^(\d{1,7})([smhd])$/.exec(text) ?? [];
  const make = DURATIONS[unit];
  if (make === undefined) throw invalid("a duration is one such as 30m, 12h or 90d");
  return make(Number(count));
}

/** Names with commas between them. */
export function parseNames(text: string): string[] {
  return text.split(",").map((name) => name.trim());
}

/** Flags of a quota, by the names that commander gives them. */
export type QuotaFlags = { readonly [K in keyof TenantQuota]?: Limit };

export const QUOTA_NAMES: readonly (keyof TenantQuota)[] = [
  "maxLogBytes",
  "maxProjectionBytes",
  "maxOpsPerSec",
  "burstOps",
  "maxConcurrentOps",
];

/** A quota with the given flags in the place of what it had. */
export function changeQuota(quota: TenantQuota, flags: QuotaFlags): TenantQuota {
  const changed: Record<string, number> = { ...quota };
  for (const name of QUOTA_NAMES) {
    const limit = flags[name];
    if (limit === "none") delete changed[name];
    else if (limit !== undefined) changed[name] = limit;
  }
  return changed;
}

/** Parameters of a statement in JSON: an array, or an object by name; blobs as {"base64": …}, big integers as {"integer": "…"}. */
export function parseParameters(text: string): SqlParams {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    throw invalid("parameters are JSON, such as '[1, \"x\"]' or '{\"id\": 1}'");
  }
  if (Array.isArray(parsed)) return parsed.map(parseParameter);
  if (typeof parsed !== "object" || parsed === null) throw invalid("parameters are a JSON array or object");
  return Object.fromEntries(Object.entries(parsed).map(([name, value]) => [name, parseParameter(value)]));
}

function parseParameter(value: unknown): SqlInput {
  if (typeof value !== "object" || value === null) return value as SqlInput;
  const { base64, integer } = value as { base64?: unknown; integer?: unknown };
  if (typeof base64 === "string") return Buffer.from(base64, "base64");
  if (typeof integer === "string" && /^-?\d{1,19}$/.test(integer)) return BigInt(integer);
  throw invalid('a parameter is null, a number, a string, a boolean, {"base64": …} or {"integer": "…"}');
}

function invalid(message: string): Error {
  return kimberliteError("invalid_argument", message);
}
