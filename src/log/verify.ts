/**
 * Verification of a log from its files alone: every header, hash, link of the chain, segment boundary and Merkle root;
 * with keys also every seal, leaf and record. Needs no key, no projection and no running database; finds the first
 * offset at which a log is not what it must be.
 */
import type { KeyObject } from "node:crypto";
import { type ErrorCode, KimberliteError, kimberliteError } from "../errors.ts";
import type { Disk } from "../host/disk.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import { type Block, GENESIS_HASH, isHollow, openBlock } from "./block.ts";
import { MerkleFrontier } from "./merkle.ts";
import { decodeRecord } from "./record.ts";
import { isRecordAt } from "./record-scan.ts";
import { damaged, listSegments, readSegmentHeader, scanSegment, segmentPath } from "./segment.ts";

export interface VerifyOptions {
  readonly disk: Disk;
  readonly folder: string;
  readonly tenant: TenantId;
  /** Gives the log key of a DEK version: with it the seals are opened too. */
  readonly keyOf?: ((dekVersion: number) => KeyObject) | undefined;
  /** Records that must be there at least; more may follow while the tenant is written. */
  readonly untilOffset?: bigint | undefined;
  /** Chain value after `untilOffset` records, if it is known: a log that was forked or put back differs there. */
  readonly untilHash?: Buffer | undefined;
  /** Records that were trimmed, if that is known: any other record whose contents are gone is damage. */
  readonly trimmedRecords?: bigint | undefined;
  /** Sizes at which the root is wanted, for checkpoints to compare with. */
  readonly rootsAt?: readonly bigint[] | undefined;
  readonly onProgress?: ((progress: VerifyProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface VerifyProgress {
  readonly tenant: TenantId;
  readonly bytes: number;
  readonly offset: bigint;
}

export interface VerifyReport {
  readonly tenant: TenantId;
  readonly ok: boolean;
  /** Records that verified: offsets 0 … size−1. */
  readonly size: bigint;
  /** Of these the first ones, of which the leaves alone are there. */
  readonly trimmed: bigint;
  readonly blocks: number;
  readonly segments: number;
  readonly bytes: number;
  /** Merkle root over the records that verified. */
  readonly root: Buffer;
  readonly sealsOpened: boolean;
  readonly firstBadOffset?: bigint;
  readonly reason?: string;
  readonly roots: ReadonlyMap<bigint, Buffer>;
}

const TURN_BYTES = 4 * 1024 * 1024;
/** A later format is a finding too: a changed bit of a version looks like one, and cannot be told from it. */
const REPORTED: ReadonlySet<string> = new Set<ErrorCode>(["log_damaged", "format_too_new"]);

interface State {
  nextOffset: bigint;
  trimmed: bigint;
  hash: Buffer;
  frontier: MerkleFrontier;
  blocks: number;
  segments: number;
  bytes: number;
  timeUs: bigint;
}

/** Streams the whole log. Memory: one block. @throws `disk_failed`, `aborted`; damage is in the report. */
export async function verifyLog(options: VerifyOptions): Promise<VerifyReport> {
  const state: State = {
    nextOffset: 0n,
    trimmed: 0n,
    hash: GENESIS_HASH,
    frontier: MerkleFrontier.empty(),
    blocks: 0,
    segments: 0,
    bytes: 0,
    timeUs: 0n,
  };
  const roots = new Map<bigint, Buffer>();
  let reason = await walk(options, state, roots);
  if (reason === undefined && options.untilOffset !== undefined && state.nextOffset < options.untilOffset) {
    reason = "the log ends before what was committed to it";
  }
  return {
    tenant: options.tenant,
    ok: reason === undefined,
    size: state.nextOffset,
    trimmed: state.trimmed,
    blocks: state.blocks,
    segments: state.segments,
    bytes: state.bytes,
    root: state.frontier.root(),
    sealsOpened: options.keyOf !== undefined,
    roots,
    ...(reason === undefined ? {} : { firstBadOffset: state.nextOffset, reason }),
  };
}

function refuseIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw kimberliteError("aborted", "verification was ended by its signal");
}

/** @returns why it stopped before the end, or undefined. */
async function walk(
  options: VerifyOptions,
  state: State,
  roots: Map<bigint, Buffer>,
): Promise<string | undefined> {
  refuseIfAborted(options.signal);
  const wanted = new Set(options.rootsAt ?? []);
  if (wanted.has(0n)) roots.set(0n, state.frontier.root());
  let turn = 0;
  try {
    for (const firstOffset of listSegments(options.disk, options.folder)) {
      if (firstOffset !== state.nextOffset) return "a segment is missing, or stands where none should";
      for (const step of verifySegment(options, state, { firstOffset, wanted, roots })) {
        if (typeof step === "string") return step;
        turn += step;
        if (turn < TURN_BYTES) continue;
        turn = 0;
        options.onProgress?.({ tenant: options.tenant, bytes: state.bytes, offset: state.nextOffset });
        await new Promise<void>((resolve) => setImmediate(resolve));
        refuseIfAborted(options.signal);
      }
      state.segments += 1;
    }
  } catch (error) {
    if (error instanceof KimberliteError && REPORTED.has(error.code)) return error.message;
    throw error;
  }
  options.onProgress?.({ tenant: options.tenant, bytes: state.bytes, offset: state.nextOffset });
  return undefined;
}

interface SegmentTask {
  readonly firstOffset: bigint;
  readonly wanted: ReadonlySet<bigint>;
  readonly roots: Map<bigint, Buffer>;
}

function* verifySegment(
  options: VerifyOptions,
  state: State,
  task: SegmentTask,
): Generator<number | string, void> {
  const { disk, tenant, folder } = options;
  const file = disk.open(segmentPath(folder, task.firstOffset), "read");
  try {
    const { header, bytes } = readSegmentHeader(file, { tenant, firstOffset: task.firstOffset });
    if (!header.previousHash.equals(state.hash)) return yield "a segment does not continue the one before";
    const frontier = state.frontier.snapshot().hashes;
    const agrees =
      header.frontier.length === frontier.length &&
      frontier.every((root, i) => root.equals(header.frontier[i] as Buffer));
    if (!agrees) return yield "a segment's Merkle state is not that of the records before it";
    state.bytes += bytes;
    for (const scanned of scanSegment(file, bytes, {
      tenant,
      nextOffset: state.nextOffset,
      hash: state.hash,
    })) {
      if (scanned.kind === "end") return;
      if (scanned.kind !== "block") {
        if (
          options.untilOffset !== undefined &&
          state.nextOffset >= options.untilOffset &&
          scanned.kind === "torn"
        )
          return;
        return yield scanned.why;
      }
      verifyBlock(options, state, scanned.block);
      noteRoots(state, scanned.block, task);
      yield scanned.block.totalBytes;
    }
  } finally {
    file.close();
  }
}

function verifyBlock(options: VerifyOptions, state: State, block: Block): void {
  const at = { tenant: options.tenant, firstOffset: block.header.firstOffset };
  if (isHollow(block.header) && !mayBeHollow(options, state, block))
    throw damaged(at, "records are gone that were not trimmed");
  if (options.keyOf !== undefined && !isHollow(block.header)) {
    let offset = block.header.firstOffset;
    for (const record of openBlock(block, options.keyOf(block.header.dekVersion))) {
      if (!isRecordAt(record, offset) && decodeRecord(record).offset !== offset) {
        throw damaged(at, "a record's offset is not its place");
      }
      offset += 1n;
    }
  }
  if (block.header.timeUs < state.timeUs) throw damaged(at, "a block is older than the one before");
  const isEnd = block.header.firstOffset + BigInt(block.header.count) === options.untilOffset;
  if (isEnd && options.untilHash !== undefined && !block.storedHash.equals(options.untilHash)) {
    throw damaged(at, "it does not end in the block that was committed");
  }
}

/** Anyone can take the contents out of a block and chain it anew; what was trimmed is known, and is the log's beginning. */
function mayBeHollow({ trimmedRecords }: VerifyOptions, state: State, { header }: Block): boolean {
  const isBeginning = state.trimmed === header.firstOffset;
  const end = header.firstOffset + BigInt(header.count);
  return isBeginning && (trimmedRecords === undefined || end <= trimmedRecords);
}

function noteRoots(state: State, block: Block, task: SegmentTask): void {
  for (const leaf of block.leafHashes) {
    state.frontier.append(leaf);
    state.nextOffset += 1n;
    if (task.wanted.has(state.nextOffset)) task.roots.set(state.nextOffset, state.frontier.root());
  }
  if (isHollow(block.header)) state.trimmed = state.nextOffset;
  state.hash = Buffer.from(block.storedHash);
  state.blocks += 1;
  state.bytes += block.totalBytes;
  state.timeUs = block.header.timeUs;
}
