/**
 * Verification of the logs in a data directory from its files alone, whether a process has it open or not.
 *
 * Nothing is written and no lock is taken. A log that is written meanwhile may end in half a block: what looks damaged
 * is looked at again while its files still change. With the master key every seal is opened too; a tenant whose keys are
 * gone is verified without.
 */
import type { KeyObject } from "node:crypto";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { readInstallation } from "../directory/data-directory.ts";
import { KimberliteError, kimberliteError } from "../errors.ts";
import { systemClock } from "../host/clock.ts";
import { systemDisk } from "../host/disk.ts";
import { unwrapKek } from "../keys/hierarchy.ts";
import { KekCache } from "../keys/kek-cache.ts";
import { MasterKeyRing } from "../keys/master-key-ring.ts";
import { openMasterKey } from "../keys/master-key-uri.ts";
import { OpenKeys } from "../keys/open-keys.ts";
import { parseStoredKeys } from "../keys/stored-keys.ts";
import { type Checkpoint, openCheckpoint } from "../log/checkpoint.ts";
import { listSegments, logFolder, segmentPath } from "../log/segment.ts";
import { parseVerifierKey } from "../log/signed-note.ts";
import { type VerifyProgress, type VerifyReport, verifyLog } from "../log/verify.ts";
import { SYSTEM_TENANT, TenantId } from "../tenant/tenant-id.ts";
import { type InstallationPaths, installationPaths, masterKeyFilesOf } from "./installation.ts";

/** Where the files are. */
export interface VerifiablePlace {
  readonly data: string;
  /** Public id of the installation, if its format file is there. */
  readonly installation: string | undefined;
  /** If the path is an installation with its master key beside the data. */
  readonly masterKeys: MasterKeyRing | undefined;
}

const RETRIES = 10;
const RETRY_MS = 100;

/** @throws `directory_not_initialised` if there are neither tenants nor a format file */
export function findPlace(path: string, options: { readonly seals: boolean }): VerifiablePlace {
  const paths = installationPaths(path);
  const nested = looksLikeData(paths.data);
  const data = nested ? paths.data : path;
  if (!looksLikeData(data)) {
    throw kimberliteError("directory_not_initialised", `${path} holds no Kimberlite data directory`);
  }
  const keyed = nested && options.seals && systemDisk.has(paths.masterKey);
  return {
    data,
    installation: readInstallation(systemDisk, data)?.id,
    masterKeys: keyed ? masterKeyRing(paths) : undefined,
  };
}

function masterKeyRing(paths: InstallationPaths): MasterKeyRing {
  const { masterKey, otherMasterKeys } = masterKeyFilesOf(paths);
  return new MasterKeyRing(masterKey, {
    others: otherMasterKeys,
    openMasterKey,
    cache: new KekCache(systemClock, 0),
  });
}

function looksLikeData(path: string): boolean {
  return systemDisk.has(join(path, "kimberlite.json")) || systemDisk.has(join(path, "tenants"));
}

/** Tenants that have a folder or keys, ascending, the system tenant first. */
export function tenantsOnDisk(place: VerifiablePlace): TenantId[] {
  const folders = systemDisk.list(join(place.data, "tenants"));
  const keys = systemDisk.list(join(place.data, "keys")).map((name) => /^(\d+)\.keys$/.exec(name)?.[1] ?? "");
  const names = [...folders, ...keys].filter(
    (name) => /^(0|[1-9]\d{0,18})$/.test(name) && BigInt(name) < 2n ** 63n,
  );
  const ids = [...new Set(names)].map((name) => (name === "0" ? SYSTEM_TENANT : TenantId(name)));
  return ids.sort((a, b) => (a < b ? -1 : 1));
}

/** Bytes of a tenant's segments. */
export function logBytes(place: VerifiablePlace, tenant: TenantId): number {
  const folder = logFolder(place.data, tenant);
  return listSegments(systemDisk, folder).reduce(
    (sum, first) => sum + fileBytes(segmentPath(folder, first)),
    0,
  );
}

function fileBytes(path: string): number {
  const file = systemDisk.open(path, "read");
  try {
    return file.size();
  } finally {
    file.close();
  }
}

export interface TenantVerification {
  readonly rootsAt?: readonly bigint[];
  readonly onProgress?: (progress: VerifyProgress) => void;
}

/** @throws `master_key_wrong`, `master_key_missing`, `master_key_invalid`, `keys_damaged`, `disk_failed`; damage is in the report */
export async function verifyTenantFiles(
  place: VerifiablePlace,
  tenant: TenantId,
  options: TenantVerification,
): Promise<VerifyReport> {
  for (let attempt = 0; ; attempt += 1) {
    const before = logBytes(place, tenant);
    const report = await verifyOnce(place, tenant, options);
    if (report.ok || attempt === RETRIES) return report;
    await sleep(RETRY_MS);
    if (logBytes(place, tenant) === before) return report;
  }
}

async function verifyOnce(
  place: VerifiablePlace,
  tenant: TenantId,
  options: TenantVerification,
): Promise<VerifyReport> {
  const keys = await openTenantKeys(place, tenant);
  const request = { ...options, disk: systemDisk, folder: logFolder(place.data, tenant), tenant };
  try {
    return await verifyLog(
      keys === undefined ? request : { ...request, keyOf: (version) => logKey(keys, tenant, version) },
    );
  } finally {
    keys?.zero();
  }
}

/** The tenant's keys, to be zeroed; undefined if the master key or the tenant's entry is not there. */
export async function openTenantKeys(
  place: VerifiablePlace,
  tenant: TenantId,
): Promise<OpenKeys | undefined> {
  if (place.masterKeys === undefined) return undefined;
  const bytes = systemDisk.readFile(join(place.data, "keys", `${tenant}.keys`));
  if (bytes === undefined) return undefined;
  const stored = parseStoredKeys(tenant, bytes);
  return OpenKeys.unwrap(
    tenant,
    await unwrapKek(tenant, stored.kek, place.masterKeys.holderOf(stored.kek.masterKeyId)),
    stored,
  );
}

/**
 * The log key of a DEK version.
 *
 * @throws `log_damaged`: a block under a version that the tenant does not have is not from it.
 */
function logKey(keys: OpenKeys, tenant: TenantId, dekVersion: number): KeyObject {
  const key = keys.logKey(dekVersion);
  if (key !== undefined) return key;
  throw kimberliteError(
    "log_damaged",
    `a block is sealed under DEK ${dekVersion}, which the tenant does not have`,
    {
      detail: { tenant, dekVersion },
    },
  );
}

/** A checkpoint whose signature verified, and the tenant whose log it is of. */
export interface TrustedCheckpoint extends Checkpoint {
  readonly tenant: TenantId;
}

/** @throws `signature_invalid`, `invalid_argument`; `checkpoint_mismatch` if it is of another installation */
export function openTenantCheckpoint(
  place: VerifiablePlace,
  note: Uint8Array,
  vkey: string,
): TrustedCheckpoint {
  const opened = openCheckpoint(note, parseVerifierKey(vkey));
  const [, installation, digits] =
    /^kimberlite\/([0-9a-f]{16})\/tenant\/(0|[1-9]\d{0,18})$/.exec(opened.origin) ?? [];
  if (installation === undefined || digits === undefined) {
    throw kimberliteError("checkpoint_mismatch", "the checkpoint is not of a tenant's log");
  }
  if (place.installation !== undefined && installation !== place.installation) {
    throw kimberliteError("checkpoint_mismatch", "the checkpoint is of another installation", {
      detail: { expected: place.installation, actual: installation },
    });
  }
  return { ...opened, tenant: digits === "0" ? SYSTEM_TENANT : TenantId(digits) };
}

/** @throws `checkpoint_mismatch` unless the log has that many records, and at that size that root */
export function requireCheckpoint(checkpoint: TrustedCheckpoint, report: VerifyReport): void {
  const root = report.roots.get(checkpoint.size);
  const detail = { tenant: checkpoint.tenant, size: checkpoint.size, logSize: report.size };
  if (root === undefined) {
    const message = `tenant ${checkpoint.tenant}: the checkpoint has ${checkpoint.size} records, the log only ${report.size}`;
    throw kimberliteError("checkpoint_mismatch", message, { detail });
  }
  if (root.equals(checkpoint.root)) return;
  const message = `tenant ${checkpoint.tenant}: the log's first ${checkpoint.size} records are not those of the checkpoint`;
  throw kimberliteError("checkpoint_mismatch", message, { detail });
}

/** True for an error that is about one tenant's keys, and so does not keep the others from being verified. */
export function isKeyDamage(error: unknown): error is KimberliteError {
  return (
    error instanceof KimberliteError && (error.code === "keys_damaged" || error.code === "format_too_new")
  );
}
