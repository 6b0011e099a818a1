/**
 * A running node: what `Kimberlite` opens and closes as one. Opening proves the master key before it writes anything,
 * then takes the directory, recovers the journal, and opens the system tenant with the catalogue.
 */
import { dirname, join, resolve } from "node:path";
import type { JwksPolicy } from "./auth/jwks-uri.ts";
import { CredentialStore } from "./directory/credential-store.ts";
import {
  type Installation,
  lockDirectory,
  newInstallation,
  readInstallation,
  writeInstallation,
} from "./directory/data-directory.ts";
import { Directory } from "./directory/directory.ts";
import { Grants } from "./directory/grants.ts";
import { assert, kimberliteError } from "./errors.ts";
import type { Disk } from "./host/disk.ts";
import type { Randomness } from "./host/randomness.ts";
import { KeyAnswers } from "./keys/key-answers.ts";
import { KeyStore } from "./keys/key-store.ts";
import type { MasterKeyRing } from "./keys/master-key-ring.ts";
import { rewrapTenant } from "./keys/rewrap-tenant.ts";
import { Serial } from "./keys/serial.ts";
import { parseStoredKeys } from "./keys/stored-keys.ts";
import { TenantKeys } from "./keys/tenant-keys.ts";
import { Journal } from "./log/journal.ts";
import type { LogBuilderOptions } from "./log/log-builder.ts";
import { listSegments, logFolder } from "./log/segment.ts";
import type { NoteSigner } from "./log/signed-note.ts";
import { type Base, DEFAULT_MAX_OPEN_TENANTS, type OpenOptions, parseOpenOptions } from "./open-options.ts";
import { OpenTenants } from "./pipeline/open-tenants.ts";
import { PendingBytes } from "./pipeline/pending-bytes.ts";
import { finishReencryption, removeProjectionInForce } from "./pipeline/reencryption-mark.ts";
import { SettleSweep } from "./pipeline/settle-sweep.ts";
import { TenantEngine } from "./pipeline/tenant-engine.ts";
import type { StatementLimits } from "./projection/connection.ts";
import { Lanes } from "./projection/lanes.ts";
import { QuotaGate } from "./quota/quota-gate.ts";
import type { TrustedClock } from "./retention/trusted-clock.ts";
import { SystemTenant } from "./system-tenant.ts";
import type { TenantQuota } from "./tenant/tenant-config.ts";
import { SYSTEM_TENANT, type TenantId } from "./tenant/tenant-id.ts";

const DEFAULT_DEK_BLOCKS = 2 ** 28;
/** A clock that is off by more than this after a restart is recorded. */
const JUMP_US = 60_000_000n;
const RECORD_TIME_US = 3_600_000_000n;

export class NodeState {
  readonly installation: Installation;
  readonly directory: Directory;
  readonly credentials: CredentialStore;
  readonly grants: Grants;
  readonly tenants: OpenTenants;
  readonly limits: StatementLimits;
  readonly clock: TrustedClock;
  readonly disk: Disk;
  readonly root: string;
  readonly keyStore: KeyStore;
  readonly journal: Journal;
  readonly lanes: Lanes;
  readonly masters: MasterKeyRing;
  readonly keyAnswers: KeyAnswers = new KeyAnswers();
  readonly keyCacheMs: number;
  readonly jwksPolicy: JwksPolicy;
  readonly randomness: Randomness;
  readonly #options: OpenOptions;
  readonly #shared: SharedParts;
  readonly #unlock: () => void;
  readonly #system: SystemTenant;
  readonly #gates: Map<TenantId, QuotaGate> = new Map();
  readonly #maintenance: Map<TenantId | string, Serial> = new Map();
  readonly #rebuilding: Map<TenantId, Promise<void>> = new Map();
  readonly #lent: Map<TenantId, Set<TenantKeys>> = new Map();
  /** Tenants whose projection goes when they are next opened. */
  readonly #toRebuild: Set<TenantId> = new Set();
  #closing = false;

  private constructor(parts: {
    readonly base: Base;
    readonly installation: Installation;
    readonly keyStore: KeyStore;
    readonly shared: SharedParts;
    readonly system: SystemTenant;
    readonly directory: Directory;
    readonly credentials: CredentialStore;
    readonly grants: Grants;
    readonly unlock: () => void;
  }) {
    const { base } = parts;
    this.#options = base.options;
    this.randomness = base.randomness;
    this.#unlock = parts.unlock;
    this.installation = parts.installation;
    this.keyStore = parts.keyStore;
    this.#shared = parts.shared;
    this.journal = parts.shared.journal;
    this.lanes = parts.shared.lanes;
    this.#system = parts.system;
    this.directory = parts.directory;
    this.credentials = parts.credentials;
    this.grants = parts.grants;
    this.limits = base.limits;
    this.clock = base.clock;
    this.disk = base.disk;
    this.root = base.root;
    this.masters = base.masters;
    this.keyCacheMs = base.keyCacheMs;
    this.jwksPolicy = base.jwksPolicy;
    this.tenants = new OpenTenants(
      (tenant) => this.#openTenant(tenant),
      base.options.maxOpenTenants ?? DEFAULT_MAX_OPEN_TENANTS,
    );
  }

  static async open(options: OpenOptions): Promise<NodeState> {
    const base = parseOpenOptions(options);
    const present = readInstallation(base.disk, base.root);
    if (present === undefined && options.create === false) {
      throw kimberliteError("directory_not_initialised", "the path holds no Kimberlite data directory");
    }
    if (present === undefined) refuseOrphans(base);
    await proveMasterKey(base, present);
    makeRoot(base);
    const unlock = lockDirectory(base.root);
    try {
      return await NodeState.#openLocked(base, unlock, present);
    } catch (error) {
      unlock();
      throw error;
    }
  }

  static async #openLocked(
    base: Base,
    unlock: () => void,
    present: Installation | undefined,
  ): Promise<NodeState> {
    const { disk, root } = base;
    if (present !== undefined && listSegments(disk, logFolder(root, SYSTEM_TENANT)).length === 0) {
      throw kimberliteError(
        "catalog_damaged",
        "the system tenant's log, which holds the catalogue, is missing",
      );
    }
    const installation = present ?? newInstallation(base.randomness);
    const keyStore = await KeyStore.open(join(root, "keys"), disk);
    (await openSystemKeys(base, keyStore, present === undefined)).close();
    const journal = await Journal.open(root, disk, base.options.journalFileBytes);
    const lanes = new Lanes();
    const shared = { journal, lanes, sweep: new SettleSweep(), pending: new PendingBytes() };
    const system = new SystemTenant((onBroken) => openSystem(base, { ...shared, keyStore, onBroken }));
    try {
      const directory = await Directory.load(() => system.healthy(), base.clock);
      const credentials = await CredentialStore.load(() => system.healthy());
      const grants = await Grants.load(() => system.healthy());
      await beginTime(directory, base.clock);
      if (present === undefined) await writeInstallation(disk, root, installation);
      return new NodeState({
        base,
        installation,
        keyStore,
        shared,
        system,
        directory,
        credentials,
        grants,
        unlock,
      });
    } catch (error) {
      await inTurn([() => system.close(), () => lanes.close(), () => journal.close()]).catch(() => undefined);
      throw error;
    }
  }

  get system(): TenantEngine {
    const { engine } = this.#system;
    assert(engine !== undefined, "a node has its system tenant");
    return engine;
  }

  /** The system tenant, fit to be written. */
  healthySystem(): Promise<TenantEngine> {
    return this.#system.healthy();
  }

  get dekRotateAfterBlocks(): number {
    return this.#options.dekRotateAfterBlocks ?? DEFAULT_DEK_BLOCKS;
  }

  /** Signs checkpoints and certificates of this installation. */
  get signer(): NoteSigner {
    const keyName = `kimberlite/${this.installation.id}`;
    return { keyName, privateKey: this.system.keys.signingKey() };
  }

  /** Drops what is kept of a tenant beside its engine, and zeroes its keys wherever they are in use. */
  forget(tenant: TenantId): void {
    this.#gates.delete(tenant);
    this.#toRebuild.delete(tenant);
    this.masters.forget(tenant);
    this.keyAnswers.forget(tenant);
    for (const keys of this.#lent.get(tenant) ?? []) keys.close();
    this.credentials.forget(tenant);
  }

  gate(tenant: TenantId, quota: TenantQuota): QuotaGate {
    let gate = this.#gates.get(tenant);
    if (gate === undefined) {
      gate = new QuotaGate(tenant, quota, this.clock);
      this.#gates.set(tenant, gate);
    }
    return gate;
  }

  /** Makes and stores the keys of a tenant that is about to exist; keys left by a creation that failed are replaced. */
  async createKeys(tenant: TenantId, own?: string): Promise<void> {
    const orphan = this.keyStore.read(tenant) !== undefined;
    if (orphan) {
      if (listSegments(this.disk, logFolder(this.root, tenant)).length > 0) {
        throw kimberliteError("tenant_exists", "data of a tenant of that id is on the disk", {
          detail: { tenant },
        });
      }
      await this.keyStore.destroy(tenant);
    }
    let master = own === undefined ? this.masters.forNewTenants : await this.masters.held(own);
    (await TenantKeys.create({ ...this.#keyOptions(tenant), master })).close();
    // A rotation that began meanwhile may have passed this tenant by.
    while (own === undefined && master !== this.masters.forNewTenants) {
      const from = master;
      master = this.masters.forNewTenants;
      if (from.keyId !== master.keyId) await rewrapTenant({ tenant, from, to: master, store: this.keyStore });
    }
  }

  /** URIs of the master keys that the tenant holds: the present one first. */
  heldBy(tenant: TenantId): string[] {
    if (!this.directory.has(tenant)) return [];
    const { masterKey, formerMasterKey } = this.directory.entry(tenant);
    return [masterKey, formerMasterKey].filter((uri) => uri !== undefined);
  }

  /** As `withKeys`, with an entry of a key store that is not this node's. */
  async withKeysOf<T>(tenant: TenantId, entry: Buffer, work: (keys: TenantKeys) => Promise<T>): Promise<T> {
    const stored = parseStoredKeys(tenant, entry);
    return this.#lend(tenant, await this.masters.loadStored(this.#keyOptions(tenant), stored), work);
  }

  /** Runs what may not happen to a tenant's files, or in a place of backups, at the same time, one after the other. */
  maintain<T>(what: TenantId | string, work: () => Promise<T>): Promise<T> {
    const queue = this.#maintenance.get(what) ?? new Serial();
    this.#maintenance.set(what, queue);
    return queue.run(work).finally(() => {
      if (queue.idle) this.#maintenance.delete(what);
    });
  }

  /** How logs are written here, for one that is built beside. */
  logOptions(tenant: TenantId): Omit<LogBuilderOptions, "folder"> {
    const { disk, randomness } = this;
    return { tenant, disk, randomness, segmentMaxBytes: this.#options.logSegmentBytes };
  }

  /** Closes the tenant and opens it with no projection, so that it is built from the log; once for all who ask. */
  rebuildProjection(tenant: TenantId): Promise<void> {
    const running =
      this.#rebuilding.get(tenant) ?? this.#rebuild(tenant).finally(() => this.#rebuilding.delete(tenant));
    this.#rebuilding.set(tenant, running);
    return running;
  }

  async #rebuild(tenant: TenantId): Promise<void> {
    this.#toRebuild.add(tenant);
    await this.tenants.close(tenant);
    await this.tenants.use(tenant, () => undefined);
  }

  /** Runs work with a tenant's keys and without opening the tenant: for a log that does not open. */
  async withKeys<T>(
    tenant: TenantId,
    work: (keys: TenantKeys) => Promise<T>,
    own: readonly string[] = this.heldBy(tenant),
  ): Promise<T> {
    return this.#lend(tenant, await this.masters.load(this.#keyOptions(tenant), own), work);
  }

  /** Keys that are in use without the tenant being open; an erasure zeroes them. */
  async #lend<T>(tenant: TenantId, keys: TenantKeys, work: (keys: TenantKeys) => Promise<T>): Promise<T> {
    const lent = this.#lent.get(tenant) ?? new Set();
    this.#lent.set(tenant, lent.add(keys));
    try {
      if (this.directory.has(tenant)) this.directory.requireNotErasing(tenant);
      return await work(keys);
    } finally {
      keys.close();
      lent.delete(keys);
      if (lent.size === 0) this.#lent.delete(tenant);
    }
  }

  async close(): Promise<void> {
    this.#closing = true;
    const parts = [
      { close: () => this.tenants.closeAll() },
      { close: () => recordTime(this.directory, this.clock) },
      this.#system,
      this.#shared.sweep,
      this.lanes,
      this.journal,
      this.masters,
    ];
    try {
      await inTurn(parts.map((part) => async () => part.close()));
    } finally {
      this.#unlock();
    }
  }

  async #openTenant(tenant: TenantId): Promise<TenantEngine> {
    const entry = this.directory.requireNotErasing(tenant);
    const own = this.heldBy(tenant);
    const load = (): Promise<TenantKeys> => this.masters.load(this.#keyOptions(tenant), own);
    const keys = await (own.length === 0 ? load() : this.keyAnswers.noting(tenant, load));
    try {
      await finishReencryption({ ...this, tenant }, keys);
      const segments = listSegments(this.disk, logFolder(this.root, tenant));
      if (entry.hasLog && segments.length === 0) {
        throw kimberliteError("log_damaged", "the tenant's log is missing", {
          detail: { tenant, offset: 0n },
        });
      }
      if (this.#toRebuild.delete(tenant)) removeProjectionInForce({ ...this, tenant }, keys);
      return await TenantEngine.open({
        ...engineBase({ ...this, options: this.#options }, this.#shared),
        tenant,
        keys,
        gate: this.gate(tenant, entry.quota),
        onFirstWrite: () => this.directory.noteFirstWrite(tenant),
        requireGoingOn: () => this.#requireReplaying(tenant),
        onBroken: () => void this.tenants.close(tenant).catch(() => undefined),
      });
    } catch (error) {
      keys.close();
      throw error;
    }
  }

  /** Asked while a replay of the tenant's goes on: it can be gone on with later. @throws `closed`, `tenant_erasing` */
  #requireReplaying(tenant: TenantId): void {
    if (this.#closing) throw kimberliteError("closed", "the database is closed");
    this.directory.requireNotErasing(tenant);
  }

  #keyOptions(tenant: TenantId): Parameters<MasterKeyRing["load"]>[0] {
    return {
      tenant,
      store: this.keyStore,
      randomness: this.randomness,
      clock: this.clock,
    };
  }
}

/** A folder of tenants without its format file lost it: a new installation is not made over what they hold. */
function refuseOrphans({ disk, root }: Base): void {
  const tenants = disk.list(join(root, "tenants")).filter((name) => name !== SYSTEM_TENANT.toString());
  if (tenants.length === 0) return;
  throw kimberliteError(
    "directory_not_initialised",
    "the path holds tenants but not the file that says their format",
    {
      detail: { tenants: tenants.length },
    },
  );
}

/** Fails, before anything is written, if the master key is missing or is not the one that this directory was made with. */
async function proveMasterKey(base: Base, present: Installation | undefined): Promise<void> {
  if (present === undefined) {
    const { masterKey } = base.options;
    const probe = base.randomness.bytes(32);
    await masterKey.wrap(probe, { tenant: SYSTEM_TENANT, purpose: "kek", version: 1 });
    return;
  }
  const bytes = base.disk.readFile(join(base.root, "keys", `${SYSTEM_TENANT}.keys`));
  if (bytes === undefined) {
    throw kimberliteError("keys_missing", "the system tenant's keys are not in the key store");
  }
  const { wrapped, version, masterKeyId } = parseStoredKeys(SYSTEM_TENANT, bytes).kek;
  const kek = await base.masters
    .holderOf(masterKeyId)
    .unwrap(wrapped, { tenant: SYSTEM_TENANT, purpose: "kek", version });
  kek.fill(0);
}

/** Makes the data directory, and the folders above it, where they are absent; their names are durable then. */
function makeRoot({ disk, root }: Base): void {
  const made: string[] = [];
  for (let path = resolve(root); !disk.has(path); path = dirname(path)) made.push(path);
  disk.makeFolder(root);
  for (const path of made) disk.syncFolder(dirname(path));
}

/** What all tenants of a node share. */
interface SharedParts {
  readonly journal: Journal;
  readonly lanes: Lanes;
  readonly sweep: SettleSweep;
  readonly pending: PendingBytes;
}

async function openSystem(
  base: Base,
  shared: SharedParts & { readonly keyStore: KeyStore; readonly onBroken: () => void },
): Promise<TenantEngine> {
  const keys = await openSystemKeys(base, shared.keyStore, false);
  try {
    return await TenantEngine.open({
      ...engineBase(base, shared),
      tenant: SYSTEM_TENANT,
      keys,
      gate: new QuotaGate(SYSTEM_TENANT, {}, base.clock),
      onFirstWrite: async () => undefined,
      onBroken: shared.onBroken,
      checksPages: true,
    });
  } catch (error) {
    keys.close();
    throw error;
  }
}

/** Goes on from the time that the last run recorded; a clock that jumped meanwhile is noted. */
async function beginTime(directory: Directory, clock: TrustedClock): Promise<void> {
  const aheadUs = clock.begin(directory.recordedTime);
  const jumped = aheadUs > JUMP_US || aheadUs < -JUMP_US;
  if (!jumped) return recordTime(directory, clock);
  const detail = { aheadMs: Number(aheadUs / 1000n) };
  const event = { action: "clock.gap", outcome: "done", actor: "system", detail } as const;
  await directory.recordTime(clock.record(), event);
}

/** Seldom: what a crash loses of it only makes retention longer. */
async function recordTime(directory: Directory, clock: TrustedClock): Promise<void> {
  const last = directory.recordedTime?.trustedUs ?? 0n;
  if (clock.trustedUs() - last >= RECORD_TIME_US) await directory.recordTime(clock.record());
}

/** Takes every step, also after one that failed. @throws the first failure */
async function inTurn(steps: readonly (() => Promise<unknown>)[]): Promise<void> {
  const failures: unknown[] = [];
  for (const step of steps) await step().catch((error: unknown) => failures.push(error));
  if (failures.length > 0) throw failures[0];
}

async function openSystemKeys(base: Base, store: KeyStore, fresh: boolean): Promise<TenantKeys> {
  const options = {
    tenant: SYSTEM_TENANT,
    store,
    randomness: base.randomness,
    clock: base.clock,
  };
  if (!fresh) return base.masters.load(options);
  // A first opening that was interrupted left keys of a system tenant that never held anything.
  if (store.read(SYSTEM_TENANT) !== undefined) return base.masters.load(options);
  return TenantKeys.create({ ...options, master: base.masters.current, withSigningKey: true });
}

function engineBase(
  base: Omit<Base, "masters" | "keyCacheMs">,
  shared: SharedParts,
): Pick<
  Parameters<typeof TenantEngine.open>[0],
  | "root"
  | "disk"
  | "clock"
  | "randomness"
  | keyof SharedParts
  | "limits"
  | "dekRotateAfterBlocks"
  | "segmentMaxBytes"
  | "onProgress"
> {
  return {
    root: base.root,
    disk: base.disk,
    clock: base.clock,
    randomness: base.randomness,
    ...shared,
    limits: base.limits,
    dekRotateAfterBlocks: base.options.dekRotateAfterBlocks ?? DEFAULT_DEK_BLOCKS,
    segmentMaxBytes: base.options.logSegmentBytes,
    onProgress: base.options.onProgress,
  };
}
