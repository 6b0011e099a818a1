/** What a tenant is created with, parsed once from untrusted input. */
import { kimberliteError } from "../errors.ts";
import type { Duration } from "./duration.ts";
import { Region } from "./region.ts";
import { TenantId } from "./tenant-id.ts";

/** Limits of one tenant. An absent limit is no limit. */
export interface TenantQuota {
  /** Most bytes of the tenant's log on disk. */
  readonly maxLogBytes?: number;
  /** Most bytes of the tenant's projection file. */
  readonly maxProjectionBytes?: number;
  /** Operations a second, sustained; bursts of the same number (or `burstOps`) are let through. */
  readonly maxOpsPerSec?: number;
  /** Operations at once that a full token bucket lets through; `maxOpsPerSec`, and at least 1, unless given. */
  readonly burstOps?: number;
  /** Most operations at the same time. */
  readonly maxConcurrentOps?: number;
}

/** The argument of `createTenant`. */
export interface TenantConfig {
  readonly id: TenantId;
  /** 1 to 255 characters, for people. */
  readonly name: string;
  readonly region?: Region;
  /** How long the tenant's data must be kept before it may be erased or trimmed. */
  readonly retention?: Duration;
  /** "governance" unless given: whoever gives a reason may override it. In "compliance" nobody may shorten it. */
  readonly retentionMode?: RetentionMode;
  readonly quota?: TenantQuota;
  /**
   * URI of the tenant's own master key (see `openMasterKey`), which wraps its KEK in the node's place: whoever withdraws
   * access to it freezes the tenant.
   */
  readonly masterKey?: string;
}

/** As in S3 Object Lock. */
export type RetentionMode = "governance" | "compliance";

/**
 * What the holder of a tenant's own master key answered when the node last asked: `withdrawn` if it was refused, and so is
 * the tenant; `unknown` if the node has not asked since it started.
 */
export type KeyAccess = "available" | "withdrawn" | "unknown";

/** `erasing` and `erased` are for ever. */
export type TenantState = "active" | "suspended" | "erasing" | "erased";

/** Forbids erasing and trimming for as long as it stands; it has no end of its own. */
export interface LegalHold {
  /** 1 to 255 characters, unique among the tenant's holds: a case number, for one. */
  readonly name: string;
  readonly reason: string;
  readonly actor: string;
  /** Microseconds since 1970-01-01T00:00:00Z. */
  readonly placedAtUs: bigint;
}

/** One row of the catalogue: what is known of a tenant without opening it. */
export interface TenantEntry {
  readonly id: TenantId;
  readonly name: string;
  readonly region: Region;
  readonly retentionMs: number;
  readonly retentionMode: RetentionMode;
  readonly legalHolds: readonly LegalHold[];
  readonly quota: TenantQuota;
  /** The tenant's own master key; absent if the node's wraps its KEK. */
  readonly masterKey?: string;
  /** Told of a tenant with a master key of its own, where tenants are listed and described. */
  readonly keyAccess?: KeyAccess;
  readonly state: TenantState;
  /** Microseconds since 1970-01-01T00:00:00Z. */
  readonly createdAtUs: bigint;
}

const QUOTA_FIELDS = [
  "maxLogBytes",
  "maxProjectionBytes",
  "maxOpsPerSec",
  "burstOps",
  "maxConcurrentOps",
] as const;
const CONFIG_FIELDS = new Set(["id", "name", "region", "retention", "retentionMode", "quota", "masterKey"]);

/**
 * Parses a tenant's configuration.
 *
 * @throws `invalid_argument` naming the field that is wrong or unknown.
 */
export function parseTenantConfig(
  config: TenantConfig,
): Omit<TenantEntry, "state" | "createdAtUs" | "legalHolds" | "keyAccess"> {
  requireObject(config, "the tenant's configuration");
  for (const field of Object.keys(config)) {
    if (!CONFIG_FIELDS.has(field))
      throw invalid(`unknown field ${JSON.stringify(field)} in a tenant's configuration`);
  }
  return {
    id: TenantId(config.id),
    name: parseTenantName(config.name),
    region: config.region === undefined ? Region.UsEast : Region.of(config.region),
    retentionMs: parseRetention(config.retention),
    retentionMode: parseRetentionMode(config.retentionMode ?? "governance"),
    quota: parseQuota(config.quota ?? {}),
    ...(config.masterKey === undefined ? {} : { masterKey: parseMasterKeyUri(config.masterKey) }),
  };
}

/** @throws `invalid_argument` */
export function parseRetentionMode(mode: unknown): RetentionMode {
  if (mode === "governance" || mode === "compliance") return mode;
  throw invalid('retentionMode is "governance" or "compliance"');
}

/** What looks like a URI without a secret; which provider it names is for `openMasterKey`. @throws `invalid_argument` */
export function parseMasterKeyUri(uri: unknown): string {
  if (typeof uri !== "string" || uri.length > 2_048 || !/^[a-z][a-z0-9+.-]*:[\x21-\x7e]+$/.test(uri)) {
    throw invalid("masterKey is the URI of a master key");
  }
  if (/pin-value=/i.test(uri))
    throw invalid("a master key's URI that is kept holds no PIN: give it a pin-source");
  return uri;
}

/** @throws `invalid_argument` unless it is 1 to 255 characters without control characters */
export function parseHoldName(name: unknown): string {
  return parseLabel(name, "a legal hold's name");
}

/** @throws `invalid_argument` for an unknown field or a limit that is not a positive safe integer. */
export function parseQuota(quota: TenantQuota): TenantQuota {
  requireObject(quota, "a quota");
  const parsed: Record<string, number> = {};
  for (const [field, value] of Object.entries(quota)) {
    if (!(QUOTA_FIELDS as readonly string[]).includes(field))
      throw invalid(`unknown quota ${JSON.stringify(field)}`);
    if (value === undefined) continue;
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 1) {
      throw invalid(`quota ${field} is a positive integer`);
    }
    parsed[field] = value;
  }
  return Object.freeze(parsed);
}

function parseTenantName(name: unknown): string {
  return parseLabel(name, "a tenant's name");
}

function parseLabel(name: unknown, what: string): string {
  if (typeof name !== "string" || name.length < 1 || name.length > 255 || !name.isWellFormed()) {
    throw invalid(`${what} is 1 to 255 characters`);
  }
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is refused here
  if (/[\u0000-\u001f\u007f]/.test(name)) throw invalid(`${what} has no control characters`);
  return name;
}

export function parseRetention(retention: Duration | undefined): number {
  if (retention === undefined) return 0;
  const ms: unknown = (retention as { ms?: unknown } | null)?.ms;
  if (typeof ms !== "number" || !Number.isSafeInteger(ms) || ms < 0) {
    throw invalid("retention is a Duration, such as Duration.days(2555)");
  }
  return ms;
}

function requireObject(value: unknown, what: string): asserts value is Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw invalid(`${what} is an object`);
}

function invalid(message: string): Error {
  return kimberliteError("invalid_argument", message);
}
