/** What `Kimberlite.open` takes, checked before anything of it is used: right, or `invalid_argument`. */
import { type JwksPolicy, STRICT_JWKS_POLICY } from "./auth/jwks-uri.ts";
import { kimberliteError } from "./errors.ts";
import { type Clock, systemClock } from "./host/clock.ts";
import { type Disk, systemDisk } from "./host/disk.ts";
import { type Randomness, systemRandomness } from "./host/randomness.ts";
import { KekCache } from "./keys/kek-cache.ts";
import type { MasterKeyProvider } from "./keys/master-key.ts";
import { MasterKeyRing, type OpenMasterKey } from "./keys/master-key-ring.ts";
import { openMasterKey } from "./keys/master-key-uri.ts";
import type { RebuildProgress } from "./pipeline/replay-into.ts";
import { DEFAULT_LIMITS, type StatementLimits } from "./projection/connection.ts";
import { TrustedClock } from "./retention/trusted-clock.ts";
import { hasMethods, parseCallback, parseCount, parseOptions } from "./tenant/call-options.ts";
import { Duration } from "./tenant/duration.ts";
import { parseRetention } from "./tenant/tenant-config.ts";

/** What `Kimberlite.open` takes. */
export interface OpenOptions {
  /** Folder of all data; created if it is absent. */
  readonly dataDir: string;
  readonly masterKey: MasterKeyProvider;
  /** Other master keys, under which tenants may be after a rotation that was interrupted. */
  readonly otherMasterKeys?: readonly MasterKeyProvider[];
  /** False to refuse a folder that holds no installation yet (`directory_not_initialised`). */
  readonly create?: boolean;
  readonly limits?: Partial<StatementLimits>;
  /** Most tenants open at a time; the others are cold. */
  readonly maxOpenTenants?: number;
  /** Blocks after which a tenant's DEK rotates by itself; far below 2³² (SP 800-38D). */
  readonly dekRotateAfterBlocks?: number;
  /** Bytes after which a tenant's log goes on in another file: 64 MiB unless given, 4 KiB or more. */
  readonly logSegmentBytes?: number;
  /** Bytes after which the commit journal goes on in its other file: 16 MiB unless given, 4 KiB or more. */
  readonly journalFileBytes?: number;
  readonly onProgress?: (progress: RebuildProgress) => void;
  /**
   * By how much the machine's clock may move from one run to the next and be believed for retention: 31 days unless
   * given. A node that was off for longer counts retention from there on, later than it could and never earlier.
   */
  readonly maxClockGap?: Duration;
  /**
   * How long an unwrapped KEK is kept after its master key gave it, for a tenant that is closed and opened again; and how
   * often the keys of tenants that hold their own are asked again. 5 minutes unless given.
   */
  readonly keyCacheTime?: Duration;
  /** Opens the master keys that tenants hold; by its scheme, as the function `openMasterKey` does, unless given. */
  readonly openMasterKey?: OpenMasterKey;
  /** Where the keys of issuers that tenants register may be: https at public addresses alone, unless given. */
  readonly jwks?: Partial<JwksPolicy>;
  readonly clock?: Clock;
  readonly disk?: Disk;
  readonly randomness?: Randomness;
}

export const DEFAULT_MAX_OPEN_TENANTS = 512;
const MIN_FILE_BYTES = 4_096;
const DEFAULT_CLOCK_GAP_MS = 31 * 86_400_000;

const MAX_LIMIT = 2 ** 31 - 1;
/** AES-GCM's bound for random nonces under one key (SP 800-38D §8.3). */
const MAX_DEK_BLOCKS = 2 ** 32;

/** @throws `invalid_argument` for what cannot wrap and unwrap keys */
export function requireMasterKey(provider: unknown): asserts provider is MasterKeyProvider {
  if (hasMethods(provider, ["wrap", "unwrap", "close"])) return;
  throw kimberliteError("invalid_argument", "masterKey is a MasterKeyProvider, such as masterKeyFile(path)");
}

/** @throws `invalid_argument` for a port that lacks a method */
function requirePorts(ports: {
  readonly clock?: unknown;
  readonly disk?: unknown;
  readonly randomness?: unknown;
}): void {
  requirePort("clock", ports.clock, ["wallTimeUs", "monotonicMs"]);
  requirePort("disk", ports.disk, Object.keys(systemDisk));
  requirePort("randomness", ports.randomness, ["bytes"]);
}

/** @throws `invalid_argument` */
function requireSettings(settings: {
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
function parseLimits(limits: Partial<StatementLimits> | undefined): StatementLimits {
  const given = Object.entries(parseOptions(limits)).filter(([, value]) => value !== undefined);
  for (const [name, value] of given) {
    if (!Object.hasOwn(DEFAULT_LIMITS, name))
      throw kimberliteError("invalid_argument", "there is no limit of that name");
    parseCount(value, { name, min: 1, max: name === "maxMemoryBytes" ? Number.MAX_SAFE_INTEGER : MAX_LIMIT });
  }
  return { ...DEFAULT_LIMITS, ...(Object.fromEntries(given) as Partial<StatementLimits>) };
}

function requirePort(name: string, port: unknown, methods: readonly string[]): void {
  if (port === undefined || hasMethods(port, methods)) return;
  throw kimberliteError("invalid_argument", `${name} is an object with ${methods.join(", ")}`);
}

/** @throws `invalid_argument` */
function parsePolicy(policy: Partial<JwksPolicy> | undefined): JwksPolicy {
  const parsed = { ...STRICT_JWKS_POLICY, ...parseOptions(policy) };
  const { allowLoopback, allowPrivateAddresses } = parsed;
  if (typeof allowLoopback === "boolean" && typeof allowPrivateAddresses === "boolean") return parsed;
  throw kimberliteError("invalid_argument", "what jwks allows is true or false");
}

/** What a node is made from. */
export interface Base {
  readonly options: OpenOptions;
  readonly masters: MasterKeyRing;
  readonly keyCacheMs: number;
  readonly jwksPolicy: JwksPolicy;
  readonly root: string;
  readonly limits: StatementLimits;
  readonly clock: TrustedClock;
  readonly disk: Disk;
  readonly randomness: Randomness;
}

/** @throws `invalid_argument` */
export function parseOpenOptions(options: OpenOptions): Base {
  if (
    typeof options !== "object" ||
    options === null ||
    typeof options.dataDir !== "string" ||
    options.dataDir === ""
  ) {
    throw kimberliteError("invalid_argument", "open() takes { dataDir, masterKey }");
  }
  if (options.dataDir.includes("\0")) throw kimberliteError("invalid_argument", "dataDir is a path");
  requireMasterKey(options.masterKey);
  requirePorts(options);
  requireSettings(options);
  for (const bytes of [options.logSegmentBytes, options.journalFileBytes]) {
    if (bytes === undefined || (Number.isSafeInteger(bytes) && bytes >= MIN_FILE_BYTES)) continue;
    throw kimberliteError(
      "invalid_argument",
      `a file of the log or the journal has at least ${MIN_FILE_BYTES} bytes`,
    );
  }
  const keyCacheMs = parseRetention(options.keyCacheTime ?? Duration.minutes(5));
  const clock = new TrustedClock(
    options.clock ?? systemClock,
    options.maxClockGap === undefined ? DEFAULT_CLOCK_GAP_MS : parseRetention(options.maxClockGap),
  );
  return {
    options,
    keyCacheMs,
    jwksPolicy: parsePolicy(options.jwks),
    masters: new MasterKeyRing(options.masterKey, {
      others: options.otherMasterKeys,
      openMasterKey: options.openMasterKey ?? openMasterKey,
      cache: new KekCache(clock, keyCacheMs),
    }),
    root: options.dataDir,
    limits: parseLimits(options.limits),
    clock,
    disk: options.disk ?? systemDisk,
    randomness: options.randomness ?? systemRandomness(),
  };
}
