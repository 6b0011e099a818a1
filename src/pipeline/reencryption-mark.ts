/**
 * A re-encryption that is under way, as its tenant's folder says it: a log beside the log, and a mark that says which of
 * them is in force.
 */
import { join } from "node:path";
import { kimberliteError } from "../errors.ts";
import type { Disk } from "../host/disk.ts";
import { failpoint } from "../host/failpoint.ts";
import { isKeyVersion } from "../keys/master-key.ts";
import type { TenantKeys } from "../keys/tenant-keys.ts";
import { logFolder } from "../log/segment.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import { adoptBase, type ProjectionBase, parseBaseName, projectionFolder } from "./projection-base.ts";

/** What is on the disk about a re-encryption that is under way. */
interface ReencryptionMark {
  readonly version: number;
  /** True from the point of no return on. */
  readonly inForce: boolean;
  /** Records that are left out of the new log, as digits; the base of its projections has them applied. */
  readonly trimmed: string;
}

export const REENCRYPTION_MARK = "reencryption.json";
/** The log under the new key, until it takes the other's place. */
export const REENCRYPTED_LOG = "log.new";
/** The base of a trimmed log's projections, until it has its name. */
export const UNFINISHED_BASE = "base.new.db";

/**
 * Finishes a re-encryption that was in force when the process ended; asked before the tenant's files are opened.
 *
 * @throws `disk_failed`, `disk_full`: asked again the next time
 */
export async function finishReencryption(
  place: { readonly disk: Disk; readonly root: string; readonly tenant: TenantId },
  keys: TenantKeys,
): Promise<void> {
  const { disk, root, tenant } = place;
  const folder = join(root, "tenants", tenant.toString());
  const mark = readReencryptionMark(disk, folder);
  if (mark?.inForce !== true) return;
  const [built, log] = [join(folder, REENCRYPTED_LOG), logFolder(root, tenant)];
  if (disk.has(built)) {
    disk.removeFolder(log);
    disk.move(built, log);
    disk.syncFolder(folder);
  }
  failpoint("reencrypt-after-move");
  await keys.setProjectionDek(mark.version);
  const projections = projectionFolder(root, tenant);
  adoptBase(disk, projections, { size: BigInt(mark.trimmed), version: mark.version });
  for (const name of disk.list(projections)) {
    const base = parseBaseName(name);
    const wanted = base === undefined ? name.startsWith(`${mark.version}.db`) : isBaseInForce(base, mark);
    if (!wanted) disk.removeFile(join(projections, name));
  }
  disk.removeFile(join(folder, REENCRYPTION_MARK));
  disk.syncFolder(folder);
}

/**
 * Deletes the projection in force, which is built anew when the tenant is next opened. What a re-encryption is building
 * beside it stays: it goes on meanwhile.
 */
export function removeProjectionInForce(
  place: { readonly disk: Disk; readonly root: string; readonly tenant: TenantId },
  keys: TenantKeys,
): void {
  const { disk, root, tenant } = place;
  const folder = projectionFolder(root, tenant);
  const mark = readReencryptionMark(disk, join(root, "tenants", tenant.toString()));
  const built =
    mark === undefined || mark.version === keys.projectionKey().version ? undefined : mark.version;
  const isBuilt = (name: string): boolean =>
    name.startsWith(`${built}.db`) || name.startsWith(UNFINISHED_BASE) || name.endsWith(".next");
  for (const name of disk.list(folder)) {
    const stays = parseBaseName(name) !== undefined || (built !== undefined && isBuilt(name));
    if (!stays) disk.removeFile(join(folder, name));
  }
}

function isBaseInForce(
  { size, version }: Pick<ProjectionBase, "size" | "version">,
  mark: ReencryptionMark,
): boolean {
  return version === mark.version && size === BigInt(mark.trimmed);
}

/** @throws `log_damaged` for a mark that is not one: which log is in force cannot be told */
export function readReencryptionMark(disk: Disk, folder: string): ReencryptionMark | undefined {
  const bytes = disk.readFile(join(folder, REENCRYPTION_MARK));
  return bytes === undefined ? undefined : parseMark(bytes);
}

function parseMark(bytes: Buffer): ReencryptionMark {
  try {
    const { version, inForce, trimmed } = JSON.parse(bytes.toString("utf8")) as Partial<ReencryptionMark>;
    const sane =
      isKeyVersion(version) && typeof inForce === "boolean" && /^(0|[1-9][0-9]{0,18})$/.test(`${trimmed}`);
    if (sane && typeof trimmed === "string") return { version, inForce, trimmed };
  } catch {
    // Said below for every way in which it can be wrong.
  }
  throw kimberliteError("log_damaged", "the mark of the tenant's re-encryption is damaged");
}

export function encodeReencryptionMark(mark: ReencryptionMark): Buffer {
  return Buffer.from(`${JSON.stringify(mark)}\n`);
}
