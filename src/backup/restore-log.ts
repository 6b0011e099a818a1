/**
 * One tenant's log out of a backup: its pieces put together, each checked, then all of it as a log, then cut where it is
 * wanted.
 */
import type { Disk } from "../host/disk.ts";
import { listSegments, readSegmentHeader, scanSegment, segmentPath } from "../log/segment.ts";
import { verifyLog } from "../log/verify.ts";
import { type BackedUpTenant, invalid, parseIndex, sha256, tenantOf } from "./backup-format.ts";
import type { BackupTarget } from "./target.ts";

/** The last block that is wanted: up to a time, or to a number of records. */
export interface Cut {
  readonly timeUs?: bigint | undefined;
  readonly size?: bigint | undefined;
}

/**
 * Writes the log into a folder; durable when it resolves. Checked without keys: what a seal holds shows when it is opened.
 *
 * @returns bytes read. @throws `backup_invalid`, `storage_failed`, `disk_full`
 */
export async function restoreLog(
  from: BackupTarget,
  wanted: BackedUpTenant,
  into: { readonly disk: Disk; readonly folder: string; readonly cut: Cut },
): Promise<number> {
  const { disk, folder, cut } = into;
  const bytes = await from.get(wanted.index);
  if (bytes === undefined) throw invalid(`${wanted.index} is missing`);
  const index = parseIndex(bytes, wanted);
  const tenant = tenantOf(index.tenant);
  disk.makeFolder(folder);
  let total = 0;
  for (const piece of index.pieces) {
    const read = await from.get(piece.name);
    if (read === undefined) throw invalid(`${piece.name} is missing`);
    if (read.length !== piece.to - piece.from || sha256(read) !== piece.sha256)
      throw invalid(`${piece.name} is not what was backed up`);
    const file = disk.open(segmentPath(folder, BigInt(piece.segment)), "create");
    try {
      file.write(read, piece.from);
      await file.sync();
    } finally {
      file.close();
    }
    total += read.length;
  }
  const size = BigInt(index.size);
  const whole = await verifyLog({
    disk,
    tenant,
    folder,
    untilOffset: size,
    untilHash: Buffer.from(index.head, "hex"),
  });
  if (!whole.ok || whole.size !== size) {
    throw invalid(`the log of tenant ${tenant} is damaged at offset ${whole.firstBadOffset ?? whole.size}`);
  }
  cutLog(disk, folder, { tenant, cut });
  disk.syncFolder(folder);
  return total;
}

/** Takes away what came after the cut. */
function cutLog(
  disk: Disk,
  folder: string,
  { tenant, cut }: { readonly tenant: ReturnType<typeof tenantOf>; readonly cut: Cut },
): void {
  if (cut.timeUs === undefined && cut.size === undefined) return;
  let over = false;
  for (const segment of listSegments(disk, folder)) {
    const path = segmentPath(folder, segment);
    // The first segment stays, with its header alone if need be: a log that has begun has one.
    if (over && segment > 0n) {
      disk.removeFile(path);
      continue;
    }
    const file = disk.open(path, "update");
    try {
      const { header, bytes } = readSegmentHeader(file, { tenant, firstOffset: segment });
      const begins = { tenant, nextOffset: segment, hash: header.previousHash };
      for (const scanned of scanSegment(file, bytes, begins)) {
        if (scanned.kind !== "block") break;
        const { firstOffset, count, timeUs } = scanned.block.header;
        const past = cut.timeUs !== undefined && timeUs > cut.timeUs;
        if (!past && (cut.size === undefined || firstOffset + BigInt(count) <= cut.size)) continue;
        file.truncate(scanned.position);
        file.syncNow();
        over = true;
        break;
      }
    } finally {
      file.close();
    }
  }
}
