/**
 * Verifying the log of a tenant of a running node: against the end that its projection knows, against a checkpoint, and
 * also when the log is so damaged that the tenant does not open.
 */
import { KimberliteError, kimberliteError } from "../errors.ts";
import type { Disk } from "../host/disk.ts";
import type { TenantKeys } from "../keys/tenant-keys.ts";
import type { Checkpoint } from "../log/checkpoint.ts";
import { logFolder } from "../log/segment.ts";
import { type VerifyOptions, type VerifyProgress, type VerifyReport, verifyLog } from "../log/verify.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import { trimmedRecords } from "./projection-base.ts";
import type { TenantEngine } from "./tenant-engine.ts";

/** What to verify beyond the log itself. */
export interface VerifyTenantOptions {
  /** A signed note that `checkpoint` gave earlier: the log must still begin with what it committed to. */
  readonly checkpoint?: string;
  readonly onProgress?: (progress: VerifyProgress) => void;
  readonly signal?: AbortSignal;
}

/** A tenant's log, and the two ways to its keys: with the tenant open, or from the key store alone. */
export interface TenantLogPlace {
  readonly tenant: TenantId;
  /** True if its keys are destroyed. */
  readonly keyless: boolean;
  readonly root: string;
  readonly disk: Disk;
  open<T>(work: (engine: TenantEngine) => Promise<T>): Promise<T>;
  withKeys<T>(work: (keys: TenantKeys) => Promise<T>): Promise<T>;
}

type Wanted = Pick<VerifyOptions, "rootsAt" | "onProgress" | "signal">;

/**
 * Verifies the log, and that it contains what `checkpoint` committed to. Damage is in the report.
 *
 * @throws `checkpoint_mismatch` if the log is whole, but shorter or other than the checkpoint's; `aborted`,
 * `disk_failed`, `keys_missing`, `keys_damaged`.
 */
export async function verifyTenantLog(
  place: TenantLogPlace,
  options: Pick<VerifyOptions, "onProgress" | "signal"> & { readonly checkpoint?: Checkpoint | undefined },
): Promise<VerifyReport> {
  const { checkpoint, onProgress, signal } = options;
  const rootsAt = checkpoint === undefined ? [] : [checkpoint.size];
  const report = await verifyAnyway(place, { rootsAt, onProgress, signal });
  if (checkpoint !== undefined && report.ok) requireContained(place.tenant, checkpoint, report);
  return report;
}

async function verifyAnyway(place: TenantLogPlace, wanted: Wanted): Promise<VerifyReport> {
  const base = {
    ...wanted,
    tenant: place.tenant,
    disk: place.disk,
    folder: logFolder(place.root, place.tenant),
  };
  if (place.keyless) return verifyLog(base);
  let report: VerifyReport | undefined;
  try {
    return await place.open(async ({ keys, log }) => {
      const { nextOffset, hash } = log.head;
      const under = { ...base, ...keyed(place, keys) };
      report = await verifyLog({ ...under, untilOffset: nextOffset, untilHash: hash });
      return report;
    });
  } catch (error) {
    if (report !== undefined || !isDamage(error)) throw error;
    const alone = await place.withKeys((keys) => verifyLog({ ...base, ...keyed(place, keys) }));
    return alone.ok ? { ...alone, ...findingOf(error, alone.size) } : alone;
  }
}

function keyed(place: TenantLogPlace, keys: TenantKeys): Pick<VerifyOptions, "keyOf" | "trimmedRecords"> {
  return { keyOf: keys.logKey.bind(keys), trimmedRecords: trimmedRecords(place, keys) };
}

/** The files agree among themselves, but not with what was committed: cut back, put back, or another log's. */
function findingOf(
  error: KimberliteError,
  size: bigint,
): Pick<VerifyReport, "ok" | "firstBadOffset" | "reason"> {
  const { offset } = error.detail;
  const firstBadOffset = typeof offset === "bigint" && offset < size ? offset : size;
  return { ok: false, firstBadOffset, reason: error.message };
}

function isDamage(error: unknown): error is KimberliteError {
  return (
    error instanceof KimberliteError && (error.code === "log_damaged" || error.code === "format_too_new")
  );
}

function requireContained(tenant: TenantId, checkpoint: Checkpoint, report: VerifyReport): void {
  const root = report.roots.get(checkpoint.size);
  if (root?.equals(checkpoint.root) === true) return;
  throw kimberliteError("checkpoint_mismatch", "the log does not contain what the checkpoint committed to", {
    detail: { tenant, size: report.size, checkpointSize: checkpoint.size },
  });
}
