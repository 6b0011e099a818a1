/**
 * Looks at a backup without restoring it: is it what the installation signed, and is every object of it there, unchanged?
 *
 * Needs neither node nor master key: the signature covers the manifest, the manifest the hash of each tenant's index, and
 * an index the hash of each piece. What a seal holds shows when it is opened, which a restore does.
 */
import {
  type BackedUpTenant,
  type BackupManifest,
  type BackupPiece,
  invalid,
  parseIndex,
  sha256,
} from "./backup/backup-format.ts";
import { readKeyEntries } from "./backup/backup-keys.ts";
import { chooseBackup, installationOf } from "./backup/catalogue.ts";
import { type BackupTarget, requireApart } from "./backup/target.ts";
import { openBackupTarget } from "./backup/target-uri.ts";
import type { BackupPlace } from "./backup-places.ts";
import { type Disk, systemDisk } from "./host/disk.ts";
import { parseVerifierKey } from "./log/signed-note.ts";
import { refuseIfAborted } from "./portability/turns.ts";
import { hasMethods, parseCallback, parseOptions, parseSignal } from "./tenant/call-options.ts";
import { readTombstones } from "./tombstones.ts";

export interface VerifyBackupOptions {
  readonly from: BackupPlace;
  /** The place of keys, if it is to be looked at as well. */
  readonly keysFrom?: BackupPlace;
  /** C2SP verifier key of the installation, as `verifierKey()` gives it. */
  readonly key: string;
  /** Which backup; the latest unless given. */
  readonly backup?: string;
  readonly onProgress?: (progress: { readonly doneTenants: number; readonly totalTenants: number }) => void;
  readonly signal?: AbortSignal;
  readonly disk?: Disk;
}

export interface VerifiedBackup {
  readonly backup: string;
  /** When it began, microseconds since 1970-01-01T00:00:00Z. */
  readonly timeUs: bigint;
  /** True if it is of some tenants only. */
  readonly partial: boolean;
  /** Logs, the system tenant's among them. */
  readonly tenants: number;
  /** Bytes of logs that were read and found to be what was backed up. */
  readonly bytes: number;
  /** Tenants whose wrapped keys are in the place of keys; undefined if that was not looked at. */
  readonly keys: number | undefined;
  /** Certificates of erased tenants in the place, each with its signature checked. */
  readonly erased: number;
}

/**
 * Reads a whole backup and checks it. Cost: as many bytes as the logs have, fetched once; memory for one piece of 8 MiB.
 *
 * @throws `backup_invalid` with the first wrong object, `backup_not_found`, `storage_failed`, `signature_invalid` or
 * `certificate_invalid` for a forged tombstone, `aborted`, `invalid_argument`
 */
export async function verifyBackup(options: VerifyBackupOptions): Promise<VerifiedBackup> {
  const given = parseOptions(options);
  const { disk = systemDisk, backup } = given;
  const onProgress = parseCallback(given.onProgress, "onProgress");
  const signal = parseSignal(given.signal);
  const key = parseVerifierKey(given.key as string);
  refuseIfAborted(signal);
  const from = await openPlace(given.from, disk);
  const keysFrom = given.keysFrom === undefined ? undefined : await openPlace(given.keysFrom, disk);
  try {
    if (keysFrom !== undefined) requireApart(from, keysFrom);
    const installation = await installationOf(from, "data");
    const manifest = await chooseBackup(from, key, { backup });
    if (manifest.installation !== installation) throw invalid("it is of another installation");
    const erased = new Set((await readTombstones(from, key)).keys());
    let bytes = 0;
    for (const [index, one] of manifest.tenants.entries()) {
      refuseIfAborted(signal);
      bytes += await verifyTenant(from, one, signal);
      onProgress?.({ doneTenants: index + 1, totalTenants: manifest.tenants.length });
    }
    const keys =
      keysFrom === undefined ? undefined : await verifyKeys(keysFrom, { installation, manifest, erased });
    const { id, timeUs, partial, tenants } = manifest;
    return {
      backup: id,
      timeUs: BigInt(timeUs),
      partial,
      tenants: tenants.length,
      bytes,
      keys,
      erased: erased.size,
    };
  } finally {
    await from.close();
    await keysFrom?.close();
  }
}

async function verifyTenant(
  from: BackupTarget,
  wanted: BackedUpTenant,
  signal: AbortSignal | undefined,
): Promise<number> {
  const bytes = await from.get(wanted.index);
  if (bytes === undefined) throw invalid(`${wanted.index} is missing`);
  const index = parseIndex(bytes, wanted);
  let total = 0;
  for (const piece of [...index.pieces, ...(index.base?.pieces ?? [])]) {
    refuseIfAborted(signal);
    total += await verifyPiece(from, piece);
  }
  return total;
}

async function verifyPiece(from: BackupTarget, piece: Omit<BackupPiece, "segment">): Promise<number> {
  const bytes = await from.get(piece.name);
  if (bytes === undefined) throw invalid(`${piece.name} is missing`);
  if (bytes.length !== piece.to - piece.from || sha256(bytes) !== piece.sha256)
    throw invalid(`${piece.name} is not what was backed up`);
  return bytes.length;
}

/** Every tenant that the backup would bring back has its keys there. @returns how many have */
async function verifyKeys(
  keysFrom: BackupTarget,
  wanted: {
    readonly installation: string;
    readonly manifest: BackupManifest;
    readonly erased: ReadonlySet<string>;
  },
): Promise<number> {
  const { installation, manifest, erased } = wanted;
  if ((await installationOf(keysFrom, "keys")) !== installation)
    throw invalid("the keys are of another installation than the data");
  const present = await readKeyEntries(keysFrom);
  for (const { tenant } of manifest.tenants) {
    if (!erased.has(tenant) && !present.has(tenant))
      throw invalid(`the keys of tenant ${tenant} are missing`);
  }
  return present.size;
}

async function openPlace(place: unknown, disk: Disk): Promise<BackupTarget> {
  if (hasMethods(place, ["put", "get", "list", "remove"])) return place as BackupTarget;
  return openBackupTarget(place as string, disk);
}
