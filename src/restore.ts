/**
 * A node brought back from a backup into an empty directory, with the node down: logs from one place, keys from another.
 *
 * Order: the installation's keys, which the master key has to open → the certificates of what was erased and the backup,
 * whose signatures they prove → the tenants' keys → the logs, each checked and cut → what the next start has to know → the file that makes the directory an installation. Kept: a half-restored
 * directory does not open as a node, and is begun anew when asked again; a tenant whose erasure the place of backups knows
 * of comes back as erased, whatever the catalogue of that time says.
 */
import { join } from "node:path";
import {
  type BackedUpTenant,
  type BackupManifest,
  encodeJson,
  invalid,
  parseJson,
  tenantOf,
} from "./backup/backup-format.ts";
import { restoreKeys } from "./backup/backup-keys.ts";
import { chooseBackup, installationOf } from "./backup/catalogue.ts";
import { restoreLog } from "./backup/restore-log.ts";
import { type BackupTarget, requireApart } from "./backup/target.ts";
import { openBackupTarget } from "./backup/target-uri.ts";
import type { BackupPlace } from "./backup-places.ts";
import { readInstallation, writeInstallation } from "./directory/data-directory.ts";
import { verifyErasureCertificate } from "./erasure/certificate.ts";
import { kimberliteError } from "./errors.ts";
import { systemClock } from "./host/clock.ts";
import { type Disk, systemDisk } from "./host/disk.ts";
import { systemRandomness } from "./host/randomness.ts";
import { KeyStore } from "./keys/key-store.ts";
import type { MasterKeyProvider } from "./keys/master-key.ts";
import { TenantKeys } from "./keys/tenant-keys.ts";
import { logFolder } from "./log/segment.ts";
import { type VerifierKey, verifierKey } from "./log/signed-note.ts";
import type { NodeState } from "./node-state.ts";
import { requireMasterKey } from "./open-options.ts";
import { type OperationOptions, parseContext } from "./operations.ts";
import { findBase, projectionFolder } from "./pipeline/projection-base.ts";
import type { GrantRow } from "./sharing/grant.ts";
import { SUBJECT_ERASURES } from "./subjects.ts";
import { hasMethods, parseCallback, parseOptions } from "./tenant/call-options.ts";
import { SYSTEM_TENANT, TenantId } from "./tenant/tenant-id.ts";
import { clearBuilds } from "./tenant-building.ts";
import { readTombstones } from "./tombstones.ts";

export interface RestoreOptions extends OperationOptions {
  readonly from: BackupPlace;
  readonly keysFrom: BackupPlace;
  /** New or empty, or one where an earlier restore was interrupted. */
  readonly dataDir: string;
  readonly masterKey: MasterKeyProvider;
  /** Everything as it was at that time; as of the backup unless given. */
  readonly at?: Date;
  /** Which backup; the latest, or the one that fits `at`, unless given. */
  readonly backup?: string;
  /**
   * API keys and issuers of JWTs stand as they did then, those that were revoked or removed since included. Unless given,
   * they all end with the restore: nobody knows any more which were withdrawn.
   */
  readonly keepCredentials?: boolean;
  readonly onProgress?: (progress: {
    readonly doneTenants: number;
    readonly totalTenants: number;
    readonly bytes: number;
  }) => void;
  readonly disk?: Disk;
}

export interface RestoreReport {
  readonly backup: string;
  readonly tenants: number;
  /** Tenants that come back as erased. */
  readonly erased: number;
  readonly bytes: number;
}

/** What the first start after a restore has to know. */
interface Restored {
  readonly backup: string;
  readonly actor: string;
  readonly atUs: string | null;
  readonly keepCredentials: boolean;
  /** Certificates of tenants that were erased, by id. */
  readonly erased: Readonly<Record<string, string>>;
}

const RESTORED = "the node was restored from a backup";
const RUNNING_FILE = "restore-in-progress";
const RESTORED_FILE = "restored.json";

/**
 * Restores a node. Open it afterwards with the same master key; its tables are built from the logs as they are used.
 *
 * @throws `destination_exists`, `backup_not_found`, `backup_invalid`, `master_key_wrong`, `storage_failed`, `disk_full`,
 * `invalid_argument`; `signature_invalid` or `certificate_invalid` for a forged certificate of an erasure, which
 * `detail.file` names: take it away to restore without it
 */
export async function restoreNode(options: RestoreOptions): Promise<RestoreReport> {
  const given = parseOptions(options);
  const { actor } = parseContext(given);
  const { masterKey, backup, disk = systemDisk, keepCredentials = false } = given;
  if (typeof keepCredentials !== "boolean") {
    throw kimberliteError("invalid_argument", "keepCredentials is true or false");
  }
  requireMasterKey(masterKey);
  const onProgress = parseCallback(given.onProgress, "onProgress");
  const timeUs = parseTime(given.at);
  const root = parseRoot(given.dataDir);
  const from = await openPlace(given.from, disk);
  const keysFrom = await openPlace(given.keysFrom, disk);
  try {
    requireApart(from, keysFrom);
    const installation = await installationOf(from, "data");
    if ((await installationOf(keysFrom, "keys")) !== installation)
      throw invalid("the keys are of another installation than the data");
    clearDestination(disk, root);
    const keyOf = (file: string): string => join(root, "keys", file);
    disk.makeFolder(join(root, "keys"));
    const system = SYSTEM_TENANT.toString();
    await restoreKeys(keysFrom, (tenant) => tenant === system, { disk, pathOf: keyOf });
    const key = await signerOf({ root, disk, masterKey, installation });
    const erased = await readTombstones(from, key);
    await restoreKeys(keysFrom, (tenant) => tenant !== system && !erased.has(tenant), {
      disk,
      pathOf: keyOf,
    });
    const manifest = await chooseBackup(from, key, { backup, timeUs });
    requireWhole(manifest, installation);
    const wanted = manifest.tenants.filter(({ tenant }) => !erased.has(tenant));
    let bytes = 0;
    for (const [index, one] of wanted.entries()) {
      bytes += await restoreOne(from, one, { disk, root, timeUs });
      onProgress?.({ doneTenants: index + 1, totalTenants: wanted.length, bytes });
    }
    const restored: Restored = {
      backup: manifest.id,
      actor,
      atUs: timeUs?.toString() ?? null,
      keepCredentials,
      erased: Object.fromEntries(erased),
    };
    await disk.replaceFile(join(root, RESTORED_FILE), encodeJson(restored));
    for (const folder of ["tenants", "keys", ""]) disk.syncFolder(join(root, folder));
    disk.removeFile(join(root, RUNNING_FILE));
    await writeInstallation(disk, root, { id: installation });
    return { backup: manifest.id, tenants: wanted.length - 1, erased: erased.size, bytes };
  } finally {
    await from.close();
    await keysFrom.close();
  }
}

/**
 * At the first start after a restore: what was erased since is erased here, what the catalogue of that time does not know
 * of goes, grants and credentials end, and the system's audit stream says that it was restored. A crash between leaves the
 * rest to the next start.
 */
export async function adoptRestore(
  node: NodeState,
  endGrant: (grant: GrantRow) => Promise<void>,
): Promise<void> {
  const path = join(node.root, RESTORED_FILE);
  const bytes = node.disk.readFile(path);
  if (bytes !== undefined) {
    const { backup, actor, atUs, erased, keepCredentials } = parseRestored(bytes);
    const { signer } = node;
    const key = verifierKey(signer.keyName, signer.privateKey);
    for (const [tenant, note] of Object.entries(erased)) {
      if (verifyErasureCertificate(note, key).tenant !== tenant) throw invalid(`${RESTORED_FILE} is damaged`);
    }
    for (const [tenant, certificate] of Object.entries(erased)) {
      await node.directory.adoptErased(TenantId(tenant), certificate);
      node.grants.forgetTenant(TenantId(tenant));
    }
    await removeUnknown(node);
    // One that was revoked since would stand again.
    for (const grant of node.grants.active()) await endGrant(grant);
    if (!keepCredentials)
      await node.credentials.endAll({ nowUs: node.clock.wallTimeUs(), actor, why: RESTORED });
    const detail = { backup, keepCredentials, ...(atUs === null ? {} : { atUs }) };
    await node.directory.note({ action: "tenant.restore", outcome: "done", actor, detail });
    node.disk.removeFile(path);
  }
  await clearBuilds(node);
}

/** @throws `backup_invalid` */
function parseRestored(bytes: Buffer): Restored {
  const parsed = parseJson(bytes) as Partial<Restored>;
  const { backup, actor, atUs, erased, keepCredentials } = parsed;
  const sane =
    typeof backup === "string" &&
    typeof actor === "string" &&
    typeof keepCredentials === "boolean" &&
    (atUs === null || (typeof atUs === "string" && /^-?[0-9]{1,20}$/.test(atUs))) &&
    typeof erased === "object" &&
    erased !== null &&
    Object.values(erased).every((note) => typeof note === "string");
  if (!sane) throw invalid(`${RESTORED_FILE} is damaged`);
  return parsed as Restored;
}

/** Logs and keys of tenants that were created after the time that was restored. */
async function removeUnknown({ disk, root, directory, keyStore }: NodeState): Promise<void> {
  for (const tenant of keyStore.tenants()) {
    if (tenant !== SYSTEM_TENANT && !directory.has(tenant)) await keyStore.destroy(tenant);
  }
  for (const name of disk.list(join(root, "tenants"))) {
    const tenant = tenantOf(name);
    if (tenant !== SYSTEM_TENANT && !directory.has(tenant)) disk.removeFolder(join(root, "tenants", name));
  }
}

async function restoreOne(
  from: BackupTarget,
  wanted: BackedUpTenant,
  into: { readonly disk: Disk; readonly root: string; readonly timeUs: bigint | undefined },
): Promise<number> {
  const { disk, root, timeUs } = into;
  const folder = logFolder(root, tenantOf(wanted.tenant));
  const projections = projectionFolder(root, tenantOf(wanted.tenant));
  const bytes = await restoreLog(from, wanted, { disk, folder, projections, cut: { timeUs } });
  // What a trimmed tenant's tables begin with may have rows of subjects that were erased since.
  if (findBase({ disk, root, tenant: tenantOf(wanted.tenant) }) !== undefined) {
    disk.makeFolder(join(root, SUBJECT_ERASURES));
    disk.open(join(root, SUBJECT_ERASURES, wanted.tenant), "create").close();
    disk.syncFolder(join(root, SUBJECT_ERASURES));
  }
  disk.syncFolder(join(folder, ".."));
  return bytes;
}

/** The key that the installation signs with: the master key opens it, or is the wrong one. */
async function signerOf(place: {
  readonly root: string;
  readonly disk: Disk;
  readonly masterKey: MasterKeyProvider;
  readonly installation: string;
}): Promise<VerifierKey> {
  const { root, disk, masterKey: master, installation } = place;
  const store = await KeyStore.open(join(root, "keys"), disk);
  const keys = await TenantKeys.load({
    tenant: SYSTEM_TENANT,
    master,
    store,
    randomness: systemRandomness(),
    clock: systemClock,
  });
  try {
    return verifierKey(`kimberlite/${installation}`, keys.verifierPublicKey);
  } finally {
    keys.close();
  }
}

/** @throws `backup_invalid` */
function requireWhole(manifest: BackupManifest, installation: string): void {
  if (manifest.installation !== installation) throw invalid("it is of another installation");
  if (manifest.partial) throw invalid("it is of some tenants only, and restores no node");
  if (manifest.tenants[0]?.tenant !== SYSTEM_TENANT.toString()) throw invalid("it has no catalogue");
}

/** @throws `destination_exists` for a directory that holds anything but an interrupted restore */
function clearDestination(disk: Disk, root: string): void {
  const names = disk.list(root);
  const interrupted = names.includes(RUNNING_FILE) && readInstallation(disk, root) === undefined;
  if (names.length > 0 && !interrupted)
    throw kimberliteError("destination_exists", "a node is restored into a new or empty directory");
  disk.makeFolder(root);
  disk.open(join(root, RUNNING_FILE), "create").close();
  for (const name of names) if (name !== RUNNING_FILE) disk.removeFolder(join(root, name));
  disk.syncFolder(root);
}

function parseRoot(dataDir: unknown): string {
  if (typeof dataDir === "string" && dataDir !== "" && !dataDir.includes("\0")) return dataDir;
  throw kimberliteError("invalid_argument", "dataDir is a path");
}

function parseTime(at: unknown): bigint | undefined {
  if (at === undefined) return undefined;
  if (at instanceof Date && !Number.isNaN(at.getTime())) return BigInt(at.getTime()) * 1000n + 999n;
  throw kimberliteError("invalid_argument", "`at` is a Date");
}

async function openPlace(place: unknown, disk: Disk): Promise<BackupTarget> {
  if (hasMethods(place, ["put", "get", "list", "remove"])) return place as BackupTarget;
  return openBackupTarget(place as string, disk);
}
