/** Checks of what `Kimberlite.open` is given, before anything of it is used: right, or `invalid_argument`. */
import { kimberliteError } from "./errors.ts";
import { systemDisk } from "./host/disk.ts";
import type { MasterKeyProvider } from "./keys/master-key.ts";
import { DEFAULT_LIMITS, type StatementLimits } from "./projection/connection.ts";
import { hasMethods, parseCallback, parseCount, parseOptions } from "./tenant/call-options.ts";

const MAX_LIMIT = 2 ** 31 - 1;
/** AES-GCM's bound for random nonces under one key (SP 800-38D §8.3). */
const MAX_DEK_BLOCKS = 2 ** 32;

/** @throws `invalid_argument` for what cannot wrap and unwrap keys */
export function requireMasterKey(provider: unknown): asserts provider is MasterKeyProvider {
  if (hasMethods(provider, ["wrap", "unwrap", "close"])) return;
  throw kimberliteError("invalid_argument", "masterKey is a MasterKeyProvider, such as masterKeyFile(path)");
}

/** @throws `invalid_argument` for a port that lacks a method */
export function requirePorts(ports: {
  readonly clock?: unknown;
  readonly disk?: unknown;
  readonly randomness?: unknown;
}): void {
  requirePort("clock", ports.clock, ["wallTimeUs", "monotonicMs"]);
  requirePort("disk", ports.disk, Object.keys(systemDisk));
  requirePort("randomness", ports.randomness, ["bytes"]);
}

/** @throws `invalid_argument` */
export function requireSettings(settings: {
  readonly maxOpenTenants?: unknown;
  readonly dekRotateAfterBlocks?: unknown;
  readonly onProgress?: unknown;
}): void {
  const { maxOpenTenants, dekRotateAfterBlocks, onProgress } = settings;
  if (maxOpenTenants !== undefined) parseCount(maxOpenTenants, { name: "maxOpenTenants", min: 1 });
  if (dekRotateAfterBlocks !== undefined) {
    parseCount(dekRotateAfterBlocks, { name: "dekRotateAfterBlocks", min: 1, max: MAX_DEK_BLOCKS });
  }
  parseCallback(onProgress, "onProgress");
}

/** The limits that are given, and the defaults of the others. @throws `invalid_argument` */
export function parseLimits(limits: Partial<StatementLimits> | undefined): StatementLimits {
  const given = Object.entries(parseOptions(limits)).filter(([, value]) => value !== undefined);
  for (const [name, value] of given) {
    if (!Object.hasOwn(DEFAULT_LIMITS, name))
      throw kimberliteError("invalid_argument", "there is no limit of that name");
    parseCount(value, { name, min: 1, max: MAX_LIMIT });
  }
  return { ...DEFAULT_LIMITS, ...(Object.fromEntries(given) as Partial<StatementLimits>) };
}

function requirePort(name: string, port: unknown, methods: readonly string[]): void {
  if (port === undefined || hasMethods(port, methods)) return;
  throw kimberliteError("invalid_argument", `${name} is an object with ${methods.join(", ")}`);
}
