/**
 * One tenant's log into a backup: only what was appended since the one before, as it lies on the disk, sealed.
 *
 * Needs no key. A block is taken whole or not at all; where the log does not continue what was backed up, because it was
 * written anew under other keys, all of it is taken again.
 */
import { kimberliteError } from "../errors.ts";
import type { Disk, DiskFile } from "../host/disk.ts";
import { GENESIS_HASH, HASH_BYTES } from "../log/block.ts";
import {
  type ChainState,
  listSegments,
  readSegmentHeader,
  scanSegment,
  segmentPath,
} from "../log/segment.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import { type BackedUpBase, type BackupPiece, sha256, type TenantIndex } from "./backup-format.ts";
import type { BackupTarget } from "./target.ts";

const PIECE_BYTES = 8 * 1024 * 1024;

export interface LogPlace {
  readonly disk: Disk;
  readonly tenant: TenantId;
  readonly folder: string;
  /** The base of the tenant's projections, if it has one. */
  readonly base: { readonly name: string; readonly path: string } | undefined;
  /** Asked before each piece; what it throws ends the backup. */
  readonly requireGoingOn: () => void;
}

/** Where a log ends. */
interface LogEnd {
  readonly size: bigint;
  readonly head: Buffer;
  readonly timeUs: bigint;
  readonly segment: bigint;
  readonly position: number;
}

const NOTHING: Omit<TenantIndex, "tenant"> = {
  size: "0",
  head: GENESIS_HASH.toString("hex"),
  timeUs: "0",
  pieces: [],
};

/** @returns the tenant's index, which is `previous` itself if nothing was appended. @throws `log_damaged`, `storage_failed` */
export async function backUpLog(
  place: LogPlace,
  target: BackupTarget,
  previous: TenantIndex | undefined,
): Promise<{ readonly index: TenantIndex; readonly bytes: number }> {
  const known = previous !== undefined && continues(place, previous) ? previous : undefined;
  const base: TenantIndex = known ?? { tenant: place.tenant.toString(), ...NOTHING };
  const last = base.pieces.at(-1);
  const end = findEnd(place, base, last);
  if (end === undefined) return { index: base, bytes: 0 };
  const sameBase = known?.base?.file === place.base?.name;
  if (known !== undefined && sameBase && end.size === BigInt(base.size)) return { index: known, bytes: 0 };
  const pieces: BackupPiece[] = [];
  for (const segment of listSegments(place.disk, place.folder)) {
    if (last !== undefined && segment < BigInt(last.segment)) continue;
    if (segment > end.segment) break;
    const from = last?.segment === segment.toString() ? last.to : 0;
    const until = segment === end.segment ? end.position : undefined;
    pieces.push(...(await putPieces(place, target, { segment, from, until })));
  }
  const index: TenantIndex = {
    tenant: base.tenant,
    size: end.size.toString(),
    head: end.head.toString("hex"),
    timeUs: end.timeUs.toString(),
    pieces: [...base.pieces, ...pieces],
    ...(place.base === undefined
      ? {}
      : {
          base: sameBase && known?.base !== undefined ? known.base : await putBase(place, target, place.base),
        }),
  };
  return { index, bytes: pieces.reduce((sum, piece) => sum + piece.to - piece.from, 0) };
}

/** True if what was backed up is how the log begins. */
function continues({ disk, folder }: LogPlace, previous: TenantIndex): boolean {
  const last = previous.pieces.at(-1);
  if (last === undefined) return true;
  const path = segmentPath(folder, BigInt(last.segment));
  if (!disk.has(path)) return false;
  return withFile(disk, path, (file) => {
    if (BigInt(previous.size) === BigInt(last.segment)) return file.size() >= last.to;
    return file.read(last.to - HASH_BYTES, HASH_BYTES).toString("hex") === previous.head;
  });
}

function findEnd(
  { disk, tenant, folder }: LogPlace,
  base: TenantIndex,
  last: BackupPiece | undefined,
): LogEnd | undefined {
  const segment = listSegments(disk, folder).at(-1);
  if (segment === undefined) return undefined;
  return withFile(disk, segmentPath(folder, segment), (file) => {
    const { header, bytes } = readSegmentHeader(file, { tenant, firstOffset: segment });
    const goesOn = last?.segment === segment.toString();
    let chain: ChainState = goesOn
      ? { tenant, nextOffset: BigInt(base.size), hash: Buffer.from(base.head, "hex") }
      : { tenant, nextOffset: segment, hash: header.previousHash };
    let position = goesOn ? last.to : bytes;
    let timeUs = BigInt(base.timeUs);
    for (const scanned of scanSegment(file, position, chain)) {
      if (scanned.kind === "damaged") {
        throw kimberliteError(
          "log_damaged",
          `the log is damaged at offset ${scanned.offset}: ${scanned.why}`,
          {
            detail: { tenant, offset: scanned.offset },
          },
        );
      }
      if (scanned.kind !== "block") break;
      const { header: block, storedHash, totalBytes } = scanned.block;
      const nextOffset = block.firstOffset + BigInt(block.count);
      chain = { tenant, nextOffset, hash: Buffer.from(storedHash) };
      position = scanned.position + totalBytes;
      timeUs = block.timeUs;
    }
    return { size: chain.nextOffset, head: chain.hash, timeUs, segment, position };
  });
}

async function putPieces(
  place: LogPlace,
  target: BackupTarget,
  part: { readonly segment: bigint; readonly from: number; readonly until: number | undefined },
): Promise<BackupPiece[]> {
  const { segment, from, until } = part;
  const path = segmentPath(place.folder, segment);
  const pieces = await putFile(place, target, { path, name: digits(segment), from, until });
  return pieces.map((piece) => ({ ...piece, segment: segment.toString() }));
}

async function putBase(
  place: LogPlace,
  target: BackupTarget,
  base: { readonly name: string; readonly path: string },
): Promise<BackedUpBase> {
  const name = base.name.replace(/\.db$/, "");
  const whole = { path: base.path, name, from: 0, until: undefined };
  return { file: base.name, pieces: await putFile(place, target, whole) };
}

async function putFile(
  place: LogPlace,
  target: BackupTarget,
  part: {
    readonly path: string;
    readonly name: string;
    readonly from: number;
    readonly until: number | undefined;
  },
): Promise<Omit<BackupPiece, "segment">[]> {
  const file = place.disk.open(part.path, "read");
  try {
    const until = part.until ?? file.size();
    const pieces: Omit<BackupPiece, "segment">[] = [];
    for (let from = part.from; from < until; from += PIECE_BYTES) {
      place.requireGoingOn();
      const bytes = file.read(from, Math.min(PIECE_BYTES, until - from));
      const hash = sha256(bytes);
      const name = `tenants/${place.tenant}/${part.name}-${digits(from)}-${hash.slice(0, 16)}.piece`;
      await target.put(name, bytes);
      pieces.push({ name, from, to: from + bytes.length, sha256: hash });
    }
    return pieces;
  } finally {
    file.close();
  }
}

function withFile<T>(disk: Disk, path: string, work: (file: DiskFile) => T): T {
  const file = disk.open(path, "read");
  try {
    return work(file);
  } finally {
    file.close();
  }
}

function digits(value: bigint | number): string {
  return value.toString().padStart(20, "0");
}
