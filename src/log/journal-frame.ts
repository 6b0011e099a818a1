/**
 * Frames of the commit journal: their bytes, and what the two files say when they are read back.
 *
 * A frame is a header (magic, format, generation of its file, place in it, length, number of entries, SHA-256 over all
 * of it) and its entries. A frame that is not whole is not there.
 */
import { hash } from "node:crypto";
import { kimberliteError } from "../errors.ts";
import type { Disk } from "../host/disk.ts";
import type { TenantId } from "../tenant/tenant-id.ts";

const MAGIC = 0x4c4e_4a4b;
const MAGIC_BYTES: Buffer = Buffer.from("KJNL");
const FORMAT_VERSION = 1;
const FRAME_HEADER_BYTES = 64;
export const ENTRY_HEADER_BYTES = 32;
/** Frames begin at multiples of it: a sector, which a disk writes whole or not at all. */
export const ALIGNMENT = 512;

/** Bytes for one place in one segment. */
export interface JournalEntry {
  readonly tenant: TenantId;
  /** First offset of the segment that the bytes belong to. */
  readonly segment: bigint;
  readonly position: number;
  readonly bytes: Buffer;
}

/** One frame: entries that become durable together. Its length is a multiple of the alignment. */
export function encodeFrame(
  entries: readonly JournalEntry[],
  at: { generation: bigint; sequence: number },
): Buffer {
  const payload = entries.reduce((sum, entry) => sum + ENTRY_HEADER_BYTES + entry.bytes.length, 0);
  const used = FRAME_HEADER_BYTES + payload;
  const frame = Buffer.alloc(Math.ceil(used / ALIGNMENT) * ALIGNMENT);
  frame.writeUInt32LE(MAGIC, 0);
  frame.writeUInt32LE(FORMAT_VERSION, 4);
  frame.writeBigUInt64LE(at.generation, 8);
  frame.writeBigUInt64LE(BigInt(at.sequence), 16);
  frame.writeUInt32LE(payload, 24);
  frame.writeUInt32LE(entries.length, 28);
  let position = FRAME_HEADER_BYTES;
  for (const entry of entries) {
    frame.writeBigUInt64LE(entry.tenant, position);
    frame.writeBigUInt64LE(entry.segment, position + 8);
    frame.writeBigUInt64LE(BigInt(entry.position), position + 16);
    frame.writeUInt32LE(entry.bytes.length, position + 24);
    entry.bytes.copy(frame, position + ENTRY_HEADER_BYTES);
    position += ENTRY_HEADER_BYTES + entry.bytes.length;
  }
  frameChecksum(frame, used).copy(frame, 32);
  return frame;
}

function frameChecksum(frame: Buffer, used: number): Buffer {
  return hash(
    "sha256",
    Buffer.concat([frame.subarray(0, 32), frame.subarray(FRAME_HEADER_BYTES, used)]),
    "buffer",
  );
}

export interface Frames {
  readonly generation: bigint;
  readonly entries: JournalEntry[];
}

export interface FileFrames extends Frames {
  /** Number of whole frames, and where they end. */
  readonly count: number;
  readonly end: number;
  /** Newest generation of a whole frame behind the place where reading stopped. */
  readonly behind: bigint;
}

/** Reads one file of the journal; none is like an empty one. @throws `format_too_new` */
export function readFrames(disk: Disk, path: string): FileFrames {
  const bytes = disk.readFile(path) ?? Buffer.alloc(0);
  const { position, count, ...frames } = walkFrames(bytes);
  let behind = 0n;
  for (let at = bytes.indexOf(MAGIC_BYTES, position); at !== -1; at = bytes.indexOf(MAGIC_BYTES, at + 1)) {
    const found = at % ALIGNMENT === 0 ? (parseFrame(bytes, at)?.generation ?? 0n) : 0n;
    if (found > behind) behind = found;
  }
  return { ...frames, count, end: position, behind };
}

/** The whole frames from the start that follow each other, and where they end. */
export function walkFrames(bytes: Buffer): Frames & { readonly position: number; readonly count: number } {
  const entries: JournalEntry[] = [];
  const generation = parseFrame(bytes, 0)?.generation ?? 0n;
  let position = 0;
  let count = 0;
  for (; ; count += 1) {
    const frame = parseFrame(bytes, position);
    if (frame === undefined || frame.generation !== generation || frame.sequence !== BigInt(count)) break;
    for (const entry of frame.entries) entries.push(entry);
    position += frame.totalBytes;
  }
  return { generation, entries, position, count };
}

/**
 * A frame is written only after the one before it is durable, and the older file is the one that is begun anew, its
 * first sector zeroed first. So a whole frame behind the end of reading proves that one before it was lost, unless a
 * newer generation stands at the file's start, or was about to: then the other file holds a newer one than the frame's.
 */
export function refuseLostFrames(a: FileFrames, b: FileFrames): void {
  const lost = (file: FileFrames, other: FileFrames): boolean => {
    if (file.behind === 0n) return false;
    return file.generation === 0n ? file.behind > other.generation : file.behind >= file.generation;
  };
  if (lost(a, b) || lost(b, a)) {
    throw kimberliteError("journal_damaged", "the commit journal is damaged before its end");
  }
}

interface ParsedFrame extends Frames {
  readonly sequence: bigint;
  readonly totalBytes: number;
}

function parseFrame(bytes: Buffer, at: number): ParsedFrame | undefined {
  if (at + FRAME_HEADER_BYTES > bytes.length || bytes.readUInt32LE(at) !== MAGIC) return undefined;
  const version = bytes.readUInt32LE(at + 4);
  if (version > FORMAT_VERSION) {
    throw kimberliteError("format_too_new", `the journal has format ${version}`, { detail: { version } });
  }
  const used = FRAME_HEADER_BYTES + bytes.readUInt32LE(at + 24);
  if (at + used > bytes.length) return undefined;
  const frame = bytes.subarray(at, at + used);
  if (!frameChecksum(frame, used).equals(frame.subarray(32, 64))) return undefined;
  return {
    generation: frame.readBigUInt64LE(8),
    sequence: frame.readBigUInt64LE(16),
    totalBytes: Math.ceil(used / ALIGNMENT) * ALIGNMENT,
    entries: parseEntries(frame),
  };
}

function parseEntries(frame: Buffer): JournalEntry[] {
  const entries: JournalEntry[] = [];
  let position = FRAME_HEADER_BYTES;
  for (let left = frame.readUInt32LE(28); left > 0; left -= 1) {
    const length = frame.readUInt32LE(position + 24);
    const start = position + ENTRY_HEADER_BYTES;
    entries.push({
      tenant: frame.readBigUInt64LE(position) as TenantId,
      segment: frame.readBigUInt64LE(position + 8),
      position: Number(frame.readBigUInt64LE(position + 16)),
      bytes: frame.subarray(start, start + length),
    });
    position = start + length;
  }
  return entries;
}
