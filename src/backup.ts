/**
 * Backups of a running node, and tenants brought back from them.
 *
 * A backup takes the logs as they lie on the disk, sealed, with the system tenant's first: whatever its catalogue names is
 * then in the tenants' logs. Keys go to a place of their own. Reads and writes go on.
 *
 * Kept: a backup is there when its signed manifest is, which is written last; what is in it never changes; a tenant that
 * was erased is in none that follows, its keys are taken out of the place of keys, and its certificate is left in the
 * place of data, so that no restore revives it. Survives: a crash or a place that fails at any time: the next backup goes
 * on with what is there.
 */
import { join } from "node:path";
import { type GovernanceOptions, governanceEvent } from "./administration.ts";
import {
  BACKUP_FORMAT,
  type BackedUpTenant,
  type BackupManifest,
  backupText,
  encodeJson,
  invalid,
  parseIndex,
  sha256,
  type TenantIndex,
  tenantOf,
} from "./backup/backup-format.ts";
import { backUpKeys, readKeyEntry, readSubjectEntry } from "./backup/backup-keys.ts";
import { backUpLog } from "./backup/backup-log.ts";
import { chooseBackup, claimPlace, installationOf, listBackups, readBackup } from "./backup/catalogue.ts";
import { restoreLog } from "./backup/restore-log.ts";
import type { BackupTarget } from "./backup/target.ts";
import { type BackupPlace, openPlaces, type Places } from "./backup-places.ts";
import type { NewTenant } from "./directory/directory.ts";
import { KimberliteError, kimberliteError } from "./errors.ts";
import { isoTime } from "./host/clock.ts";
import type { CopiedSubjects } from "./keys/subject-keys.ts";
import type { TenantKeys } from "./keys/tenant-keys.ts";
import { isHollow, openSaltedRecords, trimmed } from "./log/block.ts";
import { decodeRecord } from "./log/record.ts";
import { logFolder } from "./log/segment.ts";
import { signNote, verifierKey } from "./log/signed-note.ts";
import { TenantLog } from "./log/tenant-log.ts";
import type { NodeState } from "./node-state.ts";
import { parseContext } from "./operations.ts";
import { findBase } from "./pipeline/projection-base.ts";
import type { ExportedRecord } from "./portability/export-reader.ts";
import { refuseIfAborted, Turns } from "./portability/turns.ts";
import { parseOffset } from "./stream/stream-reader.ts";
import { parseCallback, parseOptions, parseSignal } from "./tenant/call-options.ts";
import { parseTenantConfig, type TenantEntry } from "./tenant/tenant-config.ts";
import { SYSTEM_TENANT, TenantId } from "./tenant/tenant-id.ts";
import { buildTenant, settleBuild, undoBuild } from "./tenant-building.ts";
import { readTombstone, tombstoneName } from "./tombstones.ts";

export interface BackupOptions extends GovernanceOptions {
  /** Where the logs go. */
  readonly to: BackupPlace;
  /** Where the wrapped keys go, if they are to be backed up: another place than `to`. */
  readonly keysTo?: BackupPlace;
  /** Only these tenants; such a backup restores single tenants and no node. */
  readonly tenants?: readonly TenantId[];
  readonly onProgress?: (progress: BackupProgress) => void;
  readonly signal?: AbortSignal;
}

export interface BackupProgress {
  readonly doneTenants: number;
  readonly totalTenants: number;
  /** Written so far. */
  readonly bytes: number;
}

export interface BackupReport {
  readonly id: string;
  readonly tenants: number;
  /** Tenants whose log had grown since the backup before. */
  readonly changed: number;
  /** Bytes of logs that were written; the rest was there. */
  readonly bytes: number;
  /** Entries of keys that were written. */
  readonly keys: number;
}

export interface RestoreTenantOptions extends GovernanceOptions {
  readonly from: BackupPlace;
  /** Where its keys are, if this node has them no more. */
  readonly keysFrom?: BackupPlace;
  readonly tenant: TenantId;
  /** Id to have: another one than a tenant's that is there. */
  readonly as?: TenantId;
  /** Its name; that of the tenant, if that is there, unless given. */
  readonly name?: string;
  /** The last record that is wanted: an offset, or the last at or before a time. Everything unless given. */
  readonly at?: bigint | number | Date;
  /** Which backup; the latest, or the one that fits `at`, unless given. */
  readonly backup?: string;
  readonly onProgress?: (progress: { readonly doneRecords: bigint; readonly totalRecords: bigint }) => void;
  readonly signal?: AbortSignal;
}

/** @throws as `Kimberlite.backup` */
export async function backUpNode(node: NodeState, options: BackupOptions): Promise<BackupReport> {
  const given = parseOptions(options) as BackupOptions;
  const { actor, correlationId } = parseContext(given);
  const onProgress = parseCallback(given.onProgress, "onProgress");
  const signal = parseSignal(given.signal);
  const only = given.tenants === undefined ? undefined : parseTenants(node, given.tenants);
  refuseIfAborted(signal);
  const places = await openPlaces(node.disk, given);
  try {
    // Two at once into one place would write the same objects at once.
    return await node.maintain(places.to.uri, () =>
      backUpInto(node, places, { given, only, onProgress, signal, actor, correlationId }),
    );
  } finally {
    await places.close();
  }
}

interface BackupTask {
  readonly given: BackupOptions;
  readonly only: readonly TenantId[] | undefined;
  readonly onProgress: BackupOptions["onProgress"];
  readonly signal: AbortSignal | undefined;
  readonly actor: string;
  readonly correlationId: string | undefined;
}

async function backUpInto(
  node: NodeState,
  { to, keysTo }: Pick<Places, "to" | "keysTo">,
  { given, only, onProgress, signal, actor, correlationId }: BackupTask,
): Promise<BackupReport> {
  refuseIfAborted(signal);
  await claimPlace(to, node.installation.id, "data");
  if (keysTo !== undefined) await claimPlace(keysTo, node.installation.id, "keys");
  const beganUs = node.clock.wallTimeUs();
  const id = backupId(beganUs, node.randomness.bytes(4));
  const event = governanceEvent(SYSTEM_TENANT, {
    action: "tenant.backup",
    options: { ...given, actor, ...(correlationId === undefined ? {} : { correlationId }) },
    detail: { backup: id, to: to.uri },
  });
  await node.directory.note({ ...event, tenant: undefined, outcome: "began" });
  await buryErased(node, to);
  const work = new BackupWork(node, { to, signal, onProgress, previous: await readPrevious(node, to) });
  const tenants = only ?? [SYSTEM_TENANT, ...livingTenants(node)];
  const read = await work.run(tenants);
  const keys = keysTo === undefined ? 0 : await copyKeys(node, keysTo);
  // What was erased while this ran.
  await buryErased(node, to);
  const backedUp = read.filter(({ tenant }) => !isErased(node, tenant));
  const manifest: BackupManifest = {
    format: BACKUP_FORMAT,
    installation: node.installation.id,
    id,
    timeUs: beganUs.toString(),
    partial: only !== undefined,
    tenants: backedUp,
  };
  const bytes = encodeJson(manifest);
  await to.put(`backups/${id}.json`, bytes);
  await to.put(`backups/${id}.sig`, Buffer.from(signNote(backupText(bytes), [node.signer])));
  return { id, tenants: backedUp.length, changed: work.changed, bytes: work.bytes, keys };
}

/** Ids of the backups in a place, oldest first, with when each was begun. */
export async function backupsIn(
  node: NodeState,
  place: BackupPlace,
): Promise<
  { readonly id: string; readonly timeUs: bigint; readonly partial: boolean; readonly tenants: number }[]
> {
  const places = await openPlaces(node.disk, { to: place });
  try {
    const found = [];
    for (const id of await listBackups(places.to)) {
      const { timeUs, partial, tenants } = await readBackup(places.to, id, ownKey(node));
      found.push({ id, timeUs: BigInt(timeUs), partial, tenants: tenants.length });
    }
    return found;
  } finally {
    await places.close();
  }
}

/** @throws as `Kimberlite.restoreTenant` */
export async function restoreTenant(node: NodeState, options: RestoreTenantOptions): Promise<TenantEntry> {
  const given = parseOptions(options);
  const source = TenantId(given.tenant as TenantId);
  const id = given.as === undefined ? source : TenantId(given.as);
  const until = parseMoment(given.at);
  const onProgress = parseCallback(given.onProgress, "onProgress");
  const signal = parseSignal(given.signal);
  refuseIfAborted(signal);
  // A tenant that was erased is not brought back, under whatever id.
  if (node.directory.has(source)) node.directory.get(source);
  const places = await openPlaces(node.disk, { to: given.from, keysTo: given.keysFrom });
  const { to: from, keysTo: keysFrom } = places;
  try {
    const installation = await installationOf(from, "data");
    if (installation !== node.installation.id) throw invalid("it is of another installation");
    if ((await readTombstone(from, source.toString(), ownKey(node))) !== undefined) {
      throw kimberliteError("tenant_erased", `tenant ${source} was erased`, { detail: { tenant: source } });
    }
    const manifest = await chooseBackup(from, ownKey(node), { backup: given.backup, timeUs: until.timeUs });
    const wanted = manifest.tenants.find(({ tenant }) => tenant === source.toString());
    if (wanted === undefined) {
      throw kimberliteError("backup_not_found", `backup ${manifest.id} has no tenant ${source}`);
    }
    const about = {
      action: "tenant.restore" as const,
      options: given,
      detail: { backup: manifest.id, source, ...(until.size === undefined ? {} : { size: until.size }) },
    };
    const event = governanceEvent(id, about);
    const config = (): NewTenant => configOf(node, { id, source, name: given.name });
    config();
    const turns = new Turns(() => {
      refuseIfAborted(signal);
      if (node.directory.has(source)) node.directory.get(source);
    });
    const entry = await node.directory.create(id, {
      audit: event,
      source,
      prepare: async () => {
        await node.directory.note({ ...event, outcome: "began" });
        await rebuildFrom(node, { id, source, from, keysFrom, wanted, until, turns, onProgress });
        // As the source is now: holds may have been placed on it meanwhile.
        return { ...config(), hasLog: wanted.size !== "0" };
      },
      undo: () => undoBuild(node, id),
    });
    await settleBuild(node, id, event);
    return entry;
  } finally {
    await places.close();
  }
}

/** The rounds of one backup. */
class BackupWork {
  changed = 0;
  bytes = 0;
  readonly #node: NodeState;
  readonly #to: BackupTarget;
  readonly #signal: AbortSignal | undefined;
  readonly #onProgress: BackupOptions["onProgress"];
  readonly #previous: ReadonlyMap<string, BackedUpTenant>;

  constructor(
    node: NodeState,
    options: {
      readonly to: BackupTarget;
      readonly signal: AbortSignal | undefined;
      readonly onProgress: BackupOptions["onProgress"];
      readonly previous: BackupManifest | undefined;
    },
  ) {
    this.#node = node;
    this.#to = options.to;
    this.#signal = options.signal;
    this.#onProgress = options.onProgress;
    this.#previous = new Map(options.previous?.tenants.map((one) => [one.tenant, one]));
  }

  async run(tenants: readonly TenantId[]): Promise<BackedUpTenant[]> {
    const done: BackedUpTenant[] = [];
    for (const [index, tenant] of tenants.entries()) {
      refuseIfAborted(this.#signal);
      const one = await this.#node.maintain(tenant, () => this.#backUp(tenant));
      if (one !== undefined) done.push(one);
      this.#onProgress?.({ doneTenants: index + 1, totalTenants: tenants.length, bytes: this.bytes });
    }
    return done;
  }

  async #backUp(tenant: TenantId): Promise<BackedUpTenant | undefined> {
    const { disk, root } = this.#node;
    const known = this.#previous.get(tenant.toString());
    const stored = known === undefined ? undefined : await this.#to.get(known.index);
    // One that is damaged there is written again.
    const previous = stored === undefined || known === undefined ? undefined : readable(stored, known);
    const requireGoingOn = (): void => {
      refuseIfAborted(this.#signal);
      if (tenant !== SYSTEM_TENANT) this.#node.directory.get(tenant);
    };
    const base = findBase({ disk, root, tenant });
    const place = { disk, tenant, folder: logFolder(root, tenant), base, requireGoingOn };
    try {
      const { index, bytes } = await backUpLog(place, this.#to, previous);
      this.bytes += bytes;
      if (index === previous && known !== undefined) return known;
      this.changed += 1;
      return await this.#putIndex(index);
    } catch (error) {
      // Its erasure began meanwhile.
      if (error instanceof KimberliteError && /^tenant_eras/.test(error.code)) return undefined;
      if (tenant !== SYSTEM_TENANT && this.#node.directory.entry(tenant).state.startsWith("eras"))
        return undefined;
      throw error;
    }
  }

  async #putIndex(index: TenantIndex): Promise<BackedUpTenant> {
    const bytes = encodeJson(index);
    const hash = sha256(bytes);
    const name = `tenants/${index.tenant}/${index.size.padStart(20, "0")}-${hash.slice(0, 16)}.json`;
    await this.#to.put(name, bytes);
    return { tenant: index.tenant, size: index.size, index: name, sha256: hash };
  }
}

function readable(bytes: Buffer, known: BackedUpTenant): TenantIndex | undefined {
  try {
    return parseIndex(bytes, known);
  } catch {
    return undefined;
  }
}

/** The backup before; none if the place has none that this installation signed. */
async function readPrevious(node: NodeState, to: BackupTarget): Promise<BackupManifest | undefined> {
  for (const id of (await listBackups(to)).reverse()) {
    try {
      const manifest = await readBackup(to, id, ownKey(node));
      if (!manifest.partial) return manifest;
    } catch (error) {
      if (!(error instanceof KimberliteError) || error.code !== "backup_invalid") throw error;
    }
  }
  return undefined;
}

/** Leaves the certificates of erased tenants in the place. */
async function buryErased(node: NodeState, to: BackupTarget): Promise<void> {
  for (const tenant of node.directory.erased()) {
    const certificate = (await node.directory.erasure(tenant))?.certificate;
    if (certificate === undefined) continue;
    const [name, note] = [tombstoneName(tenant.toString()), Buffer.from(certificate)];
    // Another one that stands there is not ours.
    if ((await to.get(name))?.equals(note) !== true) await to.put(name, note);
  }
}

function isErased(node: NodeState, tenant: string): boolean {
  const id = tenantOf(tenant);
  return id !== SYSTEM_TENANT && node.directory.entry(id).state.startsWith("eras");
}

/** One after the other: of two at once into one place, the index of the earlier would name what the later removed. */
function copyKeys(node: NodeState, keysTo: BackupTarget): Promise<number> {
  const pathOf = (file: string): string => join(node.root, "keys", file);
  return node.maintain(keysTo.uri, () =>
    backUpKeys({ disk: node.disk, pathOf }, node.keyStore.tenants().map(String), keysTo),
  );
}

interface RebuildTask {
  readonly id: TenantId;
  readonly source: TenantId;
  readonly from: BackupTarget;
  readonly keysFrom: BackupTarget | undefined;
  readonly wanted: BackedUpTenant;
  readonly until: Until;
  readonly turns: Turns;
  readonly onProgress: RestoreTenantOptions["onProgress"];
}

/** Fetches the log, opens it with the keys that it is sealed under, and builds a tenant's from it. */
async function rebuildFrom(node: NodeState, task: RebuildTask): Promise<void> {
  const { id, source, from, wanted, until, turns, onProgress } = task;
  const { disk, root, randomness } = node;
  const folder = join(root, "staging", id.toString());
  disk.removeFolder(folder);
  try {
    await restoreLog(from, wanted, { disk, folder, cut: { timeUs: until.timeUs } });
    await withSourceKeys(node, task, async (keys, subjects) => {
      const log = TenantLog.open({ tenant: source, root, folder, disk, randomness });
      try {
        const totalRecords = until.size ?? log.nextOffset;
        if (totalRecords > log.nextOffset) {
          throw kimberliteError("offset_out_of_range", "the backup does not reach that offset", {
            detail: { size: log.nextOffset },
          });
        }
        await buildTenant(node, {
          id,
          own: undefined,
          subjects,
          turns,
          records: () => recordsOf(log, keys, totalRecords),
          onRecords: (doneRecords) => onProgress?.({ doneRecords, totalRecords }),
          check: () => undefined,
        });
      } finally {
        log.close();
      }
    });
  } finally {
    disk.removeFolder(folder);
  }
}

/** With the keys that the node has of the tenant; else with those of the place of keys. */
async function withSourceKeys(
  node: NodeState,
  task: Pick<RebuildTask, "id" | "source" | "keysFrom">,
  work: (keys: TenantKeys, subjects: CopiedSubjects | undefined) => Promise<void>,
): Promise<void> {
  const { source, keysFrom } = task;
  if (node.keyStore.read(source) !== undefined && node.directory.has(source))
    return node.withKeys(source, (keys) => keys.copySubjects((copied) => work(keys, copied)));
  const entry = keysFrom === undefined ? undefined : await readKeyEntry(keysFrom, source.toString());
  if (entry === undefined) {
    throw kimberliteError("keys_missing", "neither the node nor the place of keys has the tenant's keys", {
      detail: { tenant: source },
    });
  }
  const file = keysFrom === undefined ? undefined : await readSubjectEntry(keysFrom, source.toString());
  return node.withKeysOf(source, entry, (keys) => keys.copySubjects((copied) => work(keys, copied), file));
}

function* recordsOf(log: TenantLog, keys: TenantKeys, until: bigint): Generator<ExportedRecord, void> {
  for (const block of log.blocks()) {
    if (isHollow(block.header)) throw trimmed(block.header);
    for (const { record, salt } of openSaltedRecords(block, keys.logKey(block.header.dekVersion))) {
      if (decodeRecord(record).offset >= until) return;
      yield { record, salt };
    }
  }
}

interface Until {
  readonly timeUs?: bigint;
  readonly size?: bigint;
}

/** @throws `invalid_argument` */
function parseMoment(at: unknown): Until {
  if (at === undefined) return {};
  if (!(at instanceof Date)) return { size: parseOffset(at, "at") + 1n };
  if (Number.isNaN(at.getTime())) throw kimberliteError("invalid_argument", "`at` is an invalid Date");
  return { timeUs: BigInt(at.getTime()) * 1000n + 999n };
}

/** As the tenant that is there is, if it is. @throws `invalid_argument` without a name */
function configOf(
  node: NodeState,
  { id, source, name }: { id: TenantId; source: TenantId; name: string | undefined },
): NewTenant {
  if (!node.directory.has(source)) {
    if (name === undefined)
      throw kimberliteError("invalid_argument", "a tenant that is not there any more takes a name");
    return parseTenantConfig({ id, name });
  }
  const { region, retentionMs, retentionMode, quota, legalHolds, ...entry } = node.directory.get(source);
  const parsed = parseTenantConfig({ id, name: name ?? entry.name });
  return { ...parsed, region, retentionMs, retentionMode, quota, legalHolds };
}

function livingTenants(node: NodeState): TenantId[] {
  return node.directory
    .list({ limit: Number.MAX_SAFE_INTEGER })
    .filter(({ state }) => state === "active" || state === "suspended")
    .map(({ id }) => id);
}

/** @throws `invalid_argument`, `tenant_not_found` */
function parseTenants(node: NodeState, tenants: unknown): TenantId[] {
  if (!Array.isArray(tenants) || tenants.length === 0)
    throw kimberliteError("invalid_argument", "tenants is a list of ids");
  return (tenants as TenantId[]).map((tenant) => node.directory.get(TenantId(tenant)).id);
}

function ownKey(node: NodeState): ReturnType<typeof verifierKey> {
  return verifierKey(node.signer.keyName, node.signer.privateKey);
}

/** Ordered by time as text. */
function backupId(timeUs: bigint, random: Buffer): string {
  const time = isoTime(timeUs).replace(/[-:Z]/g, "").replace(".", "");
  return `${time}${(timeUs % 1000n).toString().padStart(3, "0")}Z-${random.toString("hex")}`;
}
