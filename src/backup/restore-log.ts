/**
 * One tenant's log out of a backup: its pieces put together, each checked, then all of it as a log, then cut where it is
 * wanted.
 */
import { join } from "node:path";
import type { Disk } from "../host/disk.ts";
import { listSegments, readSegmentHeader, scanSegment, segmentPath } from "../log/segment.ts";
import { verifyLog } from "../log/verify.ts";
import {
  type BackedUpTenant,
  type BackupPiece,
  invalid,
  parseIndex,
  sha256,
  tenantOf,
} from "./backup-format.ts";
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
  into: {
    readonly disk: Disk;
    readonly folder: string;
    /** Where the base of a trimmed tenant's projections goes; nowhere if the log alone is wanted. */
    readonly projections?: string;
    readonly cut: Cut;
  },
): Promise<number> {
  const { disk, folder, cut } = into;
  const bytes = await from.get(wanted.index);
  if (bytes === undefined) throw invalid(`${wanted.index} is missing`);
  const index = parseIndex(bytes, wanted);
  const tenant = tenantOf(index.tenant);
  disk.makeFolder(folder);
  let total = 0;
  for (const piece of index.pieces)
    total += await fetchPiece(from, piece, { disk, path: segmentPath(folder, BigInt(piece.segment)) });
  if (index.base !== undefined && into.projections !== undefined) {
    disk.makeFolder(into.projections);
    const path = join(into.projections, index.base.file);
    for (const piece of index.base.pieces) total += await fetchPiece(from, piece, { disk, path });
    disk.syncFolder(into.projections);
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

async function fetchPiece(
  from: BackupTarget,
  piece: Omit<BackupPiece, "segment">,
  into: { readonly disk: Disk; readonly path: string },
): Promise<number> {
  const bytes = await from.get(piece.name);
  if (bytes === undefined) throw invalid(`${piece.name} is missing`);
  if (bytes.length !== piece.to - piece.from || sha256(bytes) !== piece.sha256)
    throw invalid(`${piece.name} is not what was backed up`);
  const file = into.disk.open(into.path, "create");
  try {
    file.write(bytes, piece.from);
    await file.sync();
  } finally {
    file.close();
  }
  return bytes.length;
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
