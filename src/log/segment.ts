/**
 * Segments: the files of a tenant's log. Each begins with what is needed to continue the chain and the Merkle tree
 * without reading an earlier one, then holds whole blocks up to 64 MiB.
 *
 * Reading streams in chunks and never trusts a length before it is checked against the file.
 */
import { hash } from "node:crypto";
import { join } from "node:path";
import { kimberliteError } from "../errors.ts";
import type { Disk, DiskFile } from "../host/disk.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import {
  BLOCK_FIXED_BYTES,
  type Block,
  type BlockHeader,
  HASH_BYTES,
  isWhole,
  parseBlock,
  parseHeader,
  totalBytesOf,
} from "./block.ts";

const SEGMENT_FORMAT_VERSION = 1;
export const SEGMENT_MAX_BYTES: number = 64 * 1024 * 1024;
const MAGIC = 0x4745_534b; // "KSEG"
const FIXED_BYTES = 60;
const READ_CHUNK_BYTES = 1024 * 1024;
const MAX_FRONTIER = 64;

/** What a segment begins with. */
export interface SegmentHeader {
  readonly tenant: TenantId;
  /** Offset of its first record; also the size of the Merkle tree before it. */
  readonly firstOffset: bigint;
  readonly previousHash: Buffer;
  /** Roots of the complete subtrees of the tree before this segment, largest first. */
  readonly frontier: readonly Buffer[];
}

export function logFolder(root: string, tenant: TenantId): string {
  return join(root, "tenants", tenant.toString(), "log");
}

export function segmentPath(folder: string, firstOffset: bigint): string {
  return join(folder, `${firstOffset.toString().padStart(20, "0")}.seg`);
}

/** First offsets of the segments in a folder, ascending. Other files are not ours and are left alone. */
export function listSegments(disk: Disk, folder: string): bigint[] {
  return disk
    .list(folder)
    .filter((name) => /^[0-9]{20}\.seg$/.test(name))
    .map((name) => BigInt(name.slice(0, 20)));
}

export function segmentHeaderBytes(frontierCount: number): number {
  return FIXED_BYTES + frontierCount * HASH_BYTES + HASH_BYTES;
}

export function encodeSegmentHeader(header: SegmentHeader): Buffer {
  const bytes = Buffer.alloc(segmentHeaderBytes(header.frontier.length));
  bytes.writeUInt32LE(MAGIC, 0);
  bytes.writeUInt16LE(SEGMENT_FORMAT_VERSION, 4);
  bytes.writeBigUInt64LE(header.tenant, 8);
  bytes.writeBigUInt64LE(header.firstOffset, 16);
  header.previousHash.copy(bytes, 24);
  bytes.writeUInt32LE(header.frontier.length, 56);
  for (const [index, root] of header.frontier.entries()) root.copy(bytes, FIXED_BYTES + index * HASH_BYTES);
  const end = bytes.length - HASH_BYTES;
  hash("sha256", bytes.subarray(0, end), "buffer").copy(bytes, end);
  return bytes;
}

/**
 * Reads and checks the header of the segment that should begin at `firstOffset` of `tenant`.
 *
 * @throws `log_damaged` (transplanted, renamed, short or altered), `format_too_new`.
 */
export function readSegmentHeader(
  file: DiskFile,
  expected: { readonly tenant: TenantId; readonly firstOffset: bigint },
): { readonly header: SegmentHeader; readonly bytes: number } {
  const bytes = file.read(0, segmentHeaderBytes(MAX_FRONTIER));
  const fail = (why: string): Error => damaged(expected, why);
  if (bytes.length < FIXED_BYTES || bytes.readUInt32LE(0) !== MAGIC) throw fail("a segment has no header");
  const version = bytes.readUInt16LE(4);
  if (version > SEGMENT_FORMAT_VERSION) {
    throw kimberliteError("format_too_new", `the log has segments of format ${version}`, {
      detail: { version },
    });
  }
  const count = bytes.readUInt32LE(56);
  const total = segmentHeaderBytes(count);
  if (count > MAX_FRONTIER || bytes.length < total) throw fail("a segment's header is cut short");
  const digest = hash("sha256", bytes.subarray(0, total - HASH_BYTES), "buffer");
  if (!digest.equals(bytes.subarray(total - HASH_BYTES, total))) throw fail("a segment's header is altered");
  const header = toHeader(bytes, count);
  if (header.tenant !== expected.tenant) throw fail("a segment belongs to another tenant");
  if (header.firstOffset !== expected.firstOffset) throw fail("a segment is not where its header says");
  return { header, bytes: total };
}

function toHeader(bytes: Buffer, count: number): SegmentHeader {
  const frontier = Array.from({ length: count }, (_, index) =>
    bytes.subarray(FIXED_BYTES + index * HASH_BYTES, FIXED_BYTES + (index + 1) * HASH_BYTES),
  );
  return {
    tenant: bytes.readBigUInt64LE(8) as TenantId,
    firstOffset: bytes.readBigUInt64LE(16),
    previousHash: bytes.subarray(24, 56),
    frontier,
  };
}

/** What stands at a place in a segment: a whole block, the end, or something that is neither. */
export type Scanned =
  | { readonly kind: "block"; readonly block: Block; readonly position: number }
  | { readonly kind: "end"; readonly position: number }
  | {
      readonly kind: "torn" | "damaged";
      readonly position: number;
      /** First offset that is not there, or not as it must be. */
      readonly offset: bigint;
      readonly why: string;
    };

/** What the next block must continue. */
export interface ChainState {
  readonly tenant: TenantId;
  readonly nextOffset: bigint;
  readonly hash: Buffer;
}

/**
 * Walks the blocks of a segment from a position, checking that each continues the chain and that its hash is right.
 * Ends with exactly one item that is not a block. Memory: one chunk, or one block if that is larger.
 *
 * A tail is `torn` when the file ends inside a block or holds only zeros, and nothing in it was once whole; anything
 * else that is no block is `damaged`. A changed length must not pass for a torn tail: what is torn gets cut off.
 */
export function* scanSegment(file: DiskFile, from: number, start: ChainState): Generator<Scanned, void> {
  const reader = new ChunkReader(file);
  let chain = start;
  let position = from;
  for (;;) {
    const scanned = scanOne(reader, position, chain);
    yield scanned;
    if (scanned.kind !== "block") return;
    const { block } = scanned;
    chain = {
      tenant: chain.tenant,
      nextOffset: block.header.firstOffset + BigInt(block.header.count),
      hash: Buffer.from(block.storedHash),
    };
    position += block.totalBytes;
  }
}

function scanOne(reader: ChunkReader, position: number, chain: ChainState): Scanned {
  const bad = (kind: "torn" | "damaged", why: string): Scanned => ({
    kind,
    position,
    offset: chain.nextOffset,
    why,
  });
  const fixed = reader.read(position, BLOCK_FIXED_BYTES);
  if (fixed.length === 0) return { kind: "end", position };
  const header = parseHeader(fixed);
  if (header === undefined) {
    const torn = tornWithoutHeader(reader, position, fixed);
    return torn === undefined ? bad("damaged", "there is no block header") : bad("torn", torn);
  }
  const why = breaksChain(header, chain);
  if (why !== undefined) return bad("damaged", why);
  const total = totalBytesOf(header);
  const bytes = reader.read(position, total);
  if (bytes.length < total) {
    if (wasWhole(bytes, header)) return bad("damaged", "a block's length is altered");
    return bad("torn", "the file ends inside a block");
  }
  const block = parseBlock(bytes, header);
  if (!isWhole(bytes, total)) return bad("damaged", "a block's hash is not that of its bytes");
  return { kind: "block", block, position };
}

function tornWithoutHeader(reader: ChunkReader, position: number, fixed: Buffer): string | undefined {
  if (fixed.length < BLOCK_FIXED_BYTES && reader.endsAt(position + fixed.length))
    return "the file ends inside a header";
  return reader.isZeroFrom(position) ? "the file ends in zeros" : undefined;
}

/**
 * True if the rest of a segment, which is shorter than its first header says, holds a later block of the tenant or is
 * itself a whole block under another length.
 */
function wasWhole(rest: Buffer, header: BlockHeader): boolean {
  const magic = rest.subarray(0, 4);
  for (let at = rest.indexOf(magic, 4); at >= 0; at = rest.indexOf(magic, at + 1)) {
    if (at + 24 > rest.length) break;
    const isLater = rest.readBigUInt64LE(at + 16) > header.firstOffset;
    if (isLater && rest.readBigUInt64LE(at + 8) === header.tenant) return true;
  }
  const spare = rest.length - BLOCK_FIXED_BYTES - HASH_BYTES;
  const sealedBytes = spare - header.count * HASH_BYTES;
  const count = (spare - header.sealedBytes) / HASH_BYTES;
  return hashesAs(rest, { at: 92, value: sealedBytes }) || hashesAs(rest, { at: 24, value: count });
}

/** True if the bytes end in the block hash that they have once a length in the header is what it may have been. */
function hashesAs(bytes: Buffer, length: { readonly at: number; readonly value: number }): boolean {
  if (!Number.isInteger(length.value) || length.value < 1 || length.value >= 2 ** 32) return false;
  const mended = Buffer.from(bytes);
  mended.writeUInt32LE(length.value, length.at);
  return isWhole(mended, mended.length);
}

function breaksChain(header: BlockHeader, chain: ChainState): string | undefined {
  if (header.tenant !== chain.tenant) return "a block belongs to another tenant";
  if (header.firstOffset !== chain.nextOffset) return "a block's offset does not follow";
  if (!header.previousHash.equals(chain.hash)) return "a block does not continue the chain";
  return undefined;
}

export function damaged(at: { readonly tenant: TenantId; readonly firstOffset: bigint }, why: string): Error {
  return kimberliteError("log_damaged", `the log is damaged at offset ${at.firstOffset}: ${why}`, {
    detail: { tenant: at.tenant, offset: at.firstOffset },
  });
}

/** Sequential reads through one chunk; a block larger than the chunk is read by itself. */
class ChunkReader {
  readonly #file: DiskFile;
  #chunk: Buffer = Buffer.alloc(0);
  #start = 0;

  constructor(file: DiskFile) {
    this.#file = file;
  }

  /** Up to `length` bytes; fewer only where the file ends. The buffer stays valid. */
  read(position: number, length: number): Buffer {
    const at = position - this.#start;
    if (at < 0 || at + length > this.#chunk.length) {
      this.#chunk = this.#file.read(position, Math.max(length, READ_CHUNK_BYTES));
      this.#start = position;
      return this.#chunk.subarray(0, length);
    }
    return this.#chunk.subarray(at, at + length);
  }

  endsAt(position: number): boolean {
    return this.#file.size() <= position;
  }

  isZeroFrom(position: number): boolean {
    for (let at = position; ; at += READ_CHUNK_BYTES) {
      const bytes = this.#file.read(at, READ_CHUNK_BYTES);
      if (bytes.length === 0) return true;
      if (bytes.some((byte) => byte !== 0)) return false;
    }
  }
}
