/**
 * One tenant's log: its blocks in segment files, appended in order, read as streams.
 *
 * Kept: offsets are dense from 0; each block continues the chain of the one before; nothing is advanced until the
 * caller says that the bytes are durable, so a failed append leaves no trace and is tried again with other content.
 * Survives: a torn tail (cut back), and finds any other damage where it is read.
 */
import type { KeyObject } from "node:crypto";
import { assert, kimberliteError } from "../errors.ts";
import type { Disk, DiskFile } from "../host/disk.ts";
import type { Randomness } from "../host/randomness.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import { type Block, blockBytes, GENESIS_HASH, HASH_BYTES, sealBlock, sealHollow } from "./block.ts";
import type { JournalEntry } from "./journal-frame.ts";
import { MerkleFrontier } from "./merkle.ts";
import {
  type ChainState,
  damaged,
  encodeSegmentHeader,
  listSegments,
  logFolder,
  readSegmentHeader,
  type Scanned,
  SEGMENT_MAX_BYTES,
  scanSegment,
  segmentHeaderBytes,
  segmentPath,
} from "./segment.ts";

/** Where the log ends: kept beside the projection, so that opening need not read the log. */
export interface LogHead {
  readonly nextOffset: bigint;
  readonly hash: Buffer;
  /** First offset of the last segment, and the length of that file. */
  readonly segment: bigint;
  readonly position: number;
  readonly lastTimeUs: bigint;
  /** Bytes of all segments. */
  readonly totalBytes: number;
}

/** A sealed block on its way to the journal. */
export interface PreparedBlock {
  readonly entry: JournalEntry;
  readonly next: LogHead;
  readonly newSegment: boolean;
}

export interface TenantLogOptions {
  readonly tenant: TenantId;
  readonly root: string;
  /** Where the segments are, if it is not where a tenant's log is below `root`. */
  readonly folder?: string;
  readonly disk: Disk;
  readonly randomness: Randomness;
  /** From the projection, if it has one. */
  readonly head?: LogHead | undefined;
  /** Length that a segment does not exceed, unless its first block does; 64 MiB unless given. */
  readonly segmentMaxBytes?: number | undefined;
}

interface PrepareRequest {
  readonly records: readonly Uint8Array[];
  readonly key: KeyObject;
  readonly dekVersion: number;
  readonly epoch: bigint;
  readonly timeUs: bigint;
  readonly salts?: readonly Uint8Array[];
  readonly withSubjects?: boolean;
}

const EMPTY_HEAD: LogHead = {
  nextOffset: 0n,
  hash: GENESIS_HASH,
  segment: 0n,
  position: 0,
  lastTimeUs: 0n,
  totalBytes: 0,
};
const MARK_EVERY_BYTES = 256 * 1024;

interface Mark {
  readonly position: number;
  readonly chain: ChainState;
}

export class TenantLog {
  readonly tenant: TenantId;
  readonly #disk: Disk;
  readonly #folder: string;
  readonly #randomness: Randomness;
  readonly #segmentMaxBytes: number;
  #head: LogHead = EMPTY_HEAD;
  #segments: bigint[];
  #appendFile: DiskFile | undefined;
  #frontier: MerkleFrontier | undefined;
  /** Places in segments where reading can begin, so that it need not begin at a segment's start. */
  readonly #marks: Map<bigint, Mark[]> = new Map();

  private constructor(options: TenantLogOptions) {
    this.tenant = options.tenant;
    this.#disk = options.disk;
    this.#randomness = options.randomness;
    this.#segmentMaxBytes = options.segmentMaxBytes ?? SEGMENT_MAX_BYTES;
    this.#folder = options.folder ?? logFolder(options.root, options.tenant);
    this.#segments = listSegments(options.disk, this.#folder);
  }

  /**
   * Opens the log, from `head` on if it is given, else from the start of its last segment; cuts a torn tail back.
   *
   * Cost: reads what was appended after `head`.
   * @throws `log_damaged` if the log ends before `head`, or what follows is neither a block nor a torn tail.
   */
  static open(options: TenantLogOptions): TenantLog {
    const log = new TenantLog(options);
    log.#findEnd(options.head);
    return log;
  }

  get head(): LogHead {
    return this.#head;
  }

  get nextOffset(): bigint {
    return this.#head.nextOffset;
  }

  /** Exact growth of the log's files by a block of these records, with the header of a new segment if it begins one. */
  growthBytes(count: number, recordBytes: number): number {
    const block = blockBytes(count, recordBytes);
    return this.#rolls(block) ? block + segmentHeaderBytes(bitCount(this.#head.nextOffset)) : block;
  }

  /**
   * Makes the first segment durable, with its header alone, before anything says that there is a log: from then on a
   * missing log is damage, at whatever instant a crash comes. Does nothing where it stands already.
   */
  async makeFirstSegment(): Promise<void> {
    assert(this.#head.nextOffset === 0n, "the first segment of an empty log");
    const path = segmentPath(this.#folder, 0n);
    // Whole or not at all: a first segment without its header is damage too.
    if (this.#disk.has(path)) this.#disk.syncFolder(this.#folder);
    else await this.#disk.replaceFile(path, this.#newSegmentHeader());
  }

  /** Seals the next block. The log does not move until `advance` is called with it. */
  prepare(request: PrepareRequest): PreparedBlock {
    const { bytes, hash: blockHash } = sealBlock({
      ...request,
      tenant: this.tenant,
      firstOffset: this.#head.nextOffset,
      previousHash: this.#head.hash,
      randomness: this.#randomness,
    });
    return this.#place(bytes, { count: request.records.length, timeUs: request.timeUs, hash: blockHash });
  }

  #place(
    bytes: Buffer,
    block: { readonly count: number; readonly timeUs: bigint; readonly hash: Buffer },
  ): PreparedBlock {
    const newSegment = this.#rolls(bytes.length);
    const written = newSegment ? Buffer.concat([this.#newSegmentHeader(), bytes]) : bytes;
    const segment = newSegment ? this.#head.nextOffset : this.#head.segment;
    const position = newSegment ? 0 : this.#head.position;
    return {
      entry: { tenant: this.tenant, segment, position, bytes: written },
      newSegment,
      next: {
        nextOffset: this.#head.nextOffset + BigInt(block.count),
        hash: block.hash,
        segment,
        position: position + written.length,
        lastTimeUs: block.timeUs,
        totalBytes: this.#head.totalBytes + written.length,
      },
    };
  }

  /** As `prepare`, without the records: for a log that is built anew. */
  prepareHollow(block: Block): PreparedBlock {
    const { bytes, hash: blockHash } = sealHollow({
      ...block.header,
      leafHashes: block.leafHashes,
      firstOffset: this.#head.nextOffset,
      previousHash: this.#head.hash,
    });
    return this.#place(bytes, { count: block.header.count, timeUs: block.header.timeUs, hash: blockHash });
  }

  /** Writes a durable block into its segment and moves the end of the log behind it. */
  advance(prepared: PreparedBlock): void {
    const { entry, next } = prepared;
    if (prepared.newSegment) this.#beginSegment(entry.segment);
    this.#appendFile ??= this.#disk.open(segmentPath(this.#folder, entry.segment), "update");
    this.#appendFile.write(entry.bytes, entry.position);
    this.#foldLeaves(prepared);
    this.#head = next;
    this.#markEnd();
  }

  /** Blocks from the one that holds offset `from`, in order, each checked against the chain. Reads in chunks. */
  *blocks(from = 0n): Generator<Block, void> {
    const end = this.#head.nextOffset;
    if (from >= end) return;
    let index = this.#segments.findLastIndex((first) => first <= from);
    if (index < 0)
      throw damaged({ tenant: this.tenant, firstOffset: from }, "the segment that holds it is missing");
    let chain: ChainState | undefined;
    for (; index < this.#segments.length; index += 1) {
      for (const block of this.#segmentBlocks(this.#segments[index] as bigint, from, chain)) {
        const next = block.header.firstOffset + BigInt(block.header.count);
        if (next > from) yield block;
        chain = { tenant: this.tenant, nextOffset: next, hash: Buffer.from(block.storedHash) };
        if (next >= end) return;
      }
    }
    throw damaged({ tenant: this.tenant, firstOffset: chain?.nextOffset ?? from }, "the log ends too early");
  }

  /** Every leaf hash with an offset in `from … to−1`, in order. */
  *leafHashes(from: bigint, to: bigint): Generator<Buffer, void> {
    for (const block of this.blocks(from)) {
      for (const [index, leaf] of block.leafHashes.entries()) {
        const offset = block.header.firstOffset + BigInt(index);
        if (offset >= to) return;
        if (offset >= from) yield leaf;
      }
    }
  }

  /** The Merkle tree over all records so far. Cost: the leaves since the segment's start at first, then since last. */
  frontier(): MerkleFrontier {
    this.#frontier ??= this.#readFrontier();
    return this.#frontier;
  }

  close(): void {
    this.#appendFile?.close();
    this.#appendFile = undefined;
  }

  #rolls(blockLength: number): boolean {
    if (this.#segments.length === 0) return true;
    if (this.#segments.at(-1) === this.#head.nextOffset) return false;
    return this.#head.position + blockLength > this.#segmentMaxBytes;
  }

  #newSegmentHeader(): Buffer {
    return encodeSegmentHeader({
      tenant: this.tenant,
      firstOffset: this.#head.nextOffset,
      previousHash: this.#head.hash,
      frontier: this.frontier().snapshot().hashes,
    });
  }

  #beginSegment(firstOffset: bigint): void {
    this.close();
    this.#appendFile = this.#disk.open(segmentPath(this.#folder, firstOffset), "create");
    this.#segments.push(firstOffset);
  }

  /** Keeps the frontier at the head once somebody asked for it; until then nothing is paid for it. */
  #foldLeaves(prepared: PreparedBlock): void {
    if (this.#frontier === undefined && !prepared.newSegment) return;
    const frontier = this.frontier();
    for (const leaf of leavesOf(prepared)) frontier.append(leaf);
  }

  #readFrontier(): MerkleFrontier {
    if (this.#segments.length === 0 || this.#head.nextOffset === 0n) return MerkleFrontier.empty();
    const firstOffset = this.#head.segment;
    const file = this.#disk.open(segmentPath(this.#folder, firstOffset), "read");
    try {
      const { header } = readSegmentHeader(file, { tenant: this.tenant, firstOffset });
      const frontier = MerkleFrontier.restore({ size: firstOffset, hashes: [...header.frontier] });
      for (const leaf of this.leafHashes(firstOffset, this.#head.nextOffset)) frontier.append(leaf);
      return frontier;
    } finally {
      file.close();
    }
  }

  *#segmentBlocks(firstOffset: bigint, from: bigint, chain: ChainState | undefined): Generator<Block, void> {
    const path = segmentPath(this.#folder, firstOffset);
    if (!this.#disk.has(path)) throw damaged({ tenant: this.tenant, firstOffset }, "a segment is missing");
    const file = this.#disk.open(path, "read");
    try {
      const { header, bytes } = readSegmentHeader(file, { tenant: this.tenant, firstOffset });
      const begins: ChainState = { tenant: this.tenant, nextOffset: firstOffset, hash: header.previousHash };
      if (chain !== undefined && !(chain.hash.equals(begins.hash) && chain.nextOffset === firstOffset)) {
        throw damaged({ tenant: this.tenant, firstOffset }, "a segment does not continue the one before");
      }
      const mark = this.#markBefore(firstOffset, from) ?? { position: bytes, chain: begins };
      for (const scanned of scanSegment(file, mark.position, mark.chain)) {
        if (scanned.kind === "block") yield scanned.block;
        else if (scanned.kind === "end") return;
        else throw this.#damagedAt(scanned);
      }
    } finally {
      file.close();
    }
  }

  #damagedAt(scanned: Extract<Scanned, { why: string }>): Error {
    return kimberliteError("log_damaged", `the log is damaged: ${scanned.why}`, {
      detail: { tenant: this.tenant, offset: scanned.offset, position: scanned.position },
    });
  }

  #markBefore(segment: bigint, from: bigint): Mark | undefined {
    return this.#marks.get(segment)?.findLast((mark) => mark.chain.nextOffset <= from);
  }

  #markEnd(): void {
    const { segment, position, nextOffset, hash: blockHash } = this.#head;
    const marks = this.#marks.get(segment) ?? [];
    if (position - (marks.at(-1)?.position ?? 0) < MARK_EVERY_BYTES) return;
    marks.push({ position, chain: { tenant: this.tenant, nextOffset, hash: blockHash } });
    this.#marks.set(segment, marks);
  }

  #findEnd(head: LogHead | undefined): void {
    const last = this.#segments.at(-1);
    if (last === undefined) {
      if (head !== undefined && head.nextOffset > 0n) throw this.#endsBefore(0n);
      return;
    }
    const known = head !== undefined && head.nextOffset > 0n ? head : undefined;
    const start = known ?? this.#startOfLast(last);
    if (!this.#segments.includes(start.segment)) throw this.#endsBefore(start.segment);
    const file = this.#disk.open(segmentPath(this.#folder, start.segment), "update");
    try {
      if (known !== undefined) this.#requireEnd(file, known);
      this.#head = this.#scanFrom(file, start);
    } finally {
      file.close();
    }
    // Segments behind the head's: a crash came between writing them and saving the head.
    for (const next of this.#segments.filter((first) => first > this.#head.segment)) this.#continueInto(next);
  }

  #startOfLast(firstOffset: bigint): LogHead {
    if (this.#segments[0] !== 0n) throw this.#endsBefore(0n);
    const file = this.#disk.open(segmentPath(this.#folder, firstOffset), "read");
    try {
      const { header, bytes } = readSegmentHeader(file, { tenant: this.tenant, firstOffset });
      let before = 0;
      for (const earlier of this.#segments.slice(0, -1)) before += this.#segmentSize(earlier);
      return {
        nextOffset: firstOffset,
        hash: header.previousHash,
        segment: firstOffset,
        position: bytes,
        lastTimeUs: 0n,
        totalBytes: before + bytes,
      };
    } finally {
      file.close();
    }
  }

  #segmentSize(firstOffset: bigint): number {
    const file = this.#disk.open(segmentPath(this.#folder, firstOffset), "read");
    try {
      return file.size();
    } finally {
      file.close();
    }
  }

  #continueInto(firstOffset: bigint): void {
    if (firstOffset !== this.#head.nextOffset) {
      throw damaged({ tenant: this.tenant, firstOffset: this.#head.nextOffset }, "a segment is missing");
    }
    const file = this.#disk.open(segmentPath(this.#folder, firstOffset), "update");
    try {
      const { header, bytes } = readSegmentHeader(file, { tenant: this.tenant, firstOffset });
      if (!header.previousHash.equals(this.#head.hash)) {
        throw damaged({ tenant: this.tenant, firstOffset }, "a segment does not continue the one before");
      }
      const totalBytes = this.#head.totalBytes + bytes;
      this.#head = this.#scanFrom(file, { ...this.#head, segment: firstOffset, position: bytes, totalBytes });
    } finally {
      file.close();
    }
  }

  #scanFrom(file: DiskFile, start: LogHead): LogHead {
    let head = start;
    for (const scanned of scanSegment(file, start.position, { tenant: this.tenant, ...start })) {
      if (scanned.kind === "block") head = headAfter(head, scanned.block);
      else if (scanned.kind === "damaged") throw this.#damagedAt(scanned);
      else if (scanned.kind === "torn") file.truncate(scanned.position);
    }
    return head;
  }

  /** What stands before `head` must end in the block that it names: else the log was cut, replaced or changed there. */
  #requireEnd(file: DiskFile, head: LogHead): void {
    const { segment, position, nextOffset } = head;
    readSegmentHeader(file, { tenant: this.tenant, firstOffset: segment });
    if (file.size() < position) throw this.#endsBefore(this.#firstMissing(file, segment));
    if (file.read(position - HASH_BYTES, HASH_BYTES).equals(head.hash)) return;
    const missing = this.#firstMissing(file, segment);
    const at = { tenant: this.tenant, firstOffset: missing < nextOffset ? missing : nextOffset - 1n };
    throw damaged(at, "it is not the log that was committed to");
  }

  /** Where the whole blocks of a segment end; cuts nothing off. */
  #firstMissing(file: DiskFile, firstOffset: bigint): bigint {
    const { header, bytes } = readSegmentHeader(file, { tenant: this.tenant, firstOffset });
    const begins: ChainState = { tenant: this.tenant, nextOffset: firstOffset, hash: header.previousHash };
    let next = firstOffset;
    for (const scanned of scanSegment(file, bytes, begins)) {
      if (scanned.kind === "block")
        next = scanned.block.header.firstOffset + BigInt(scanned.block.header.count);
    }
    return next;
  }

  #endsBefore(offset: bigint): Error {
    return kimberliteError("log_damaged", "the log ends before what was committed to it", {
      detail: { tenant: this.tenant, offset },
    });
  }
}

function headAfter(head: LogHead, block: Block): LogHead {
  return {
    nextOffset: block.header.firstOffset + BigInt(block.header.count),
    hash: Buffer.from(block.storedHash),
    segment: head.segment,
    position: head.position + block.totalBytes,
    lastTimeUs: block.header.timeUs,
    totalBytes: head.totalBytes + block.totalBytes,
  };
}

function* leavesOf(prepared: PreparedBlock): Generator<Buffer, void> {
  const { entry, next } = prepared;
  const block = prepared.newSegment
    ? entry.bytes.subarray(entry.bytes.length - blockLength(prepared))
    : entry.bytes;
  const count = block.readUInt32LE(24);
  assert(next.nextOffset === block.readBigUInt64LE(16) + BigInt(count), "the head lies behind the block");
  for (let index = 0; index < count; index += 1)
    yield Buffer.from(block.subarray(96 + index * 32, 128 + index * 32));
}

function blockLength(prepared: PreparedBlock): number {
  return prepared.entry.bytes.length - segmentHeaderBytes(prepared.entry.bytes.readUInt32LE(56));
}

/** Number of complete subtrees of a tree of that size. */
function bitCount(size: bigint): number {
  let count = 0;
  for (let rest = size; rest > 0n; rest &= rest - 1n) count += 1;
  return count;
}
