/**
 * Bringing a projection to where its log is wanted: the records that it lacks are applied in transactions of bounded size.
 *
 * It begins on the main thread and gives the event loop its turn; what takes longer than a few moments goes on in a lane,
 * from lease to lease. Kept: whatever the place and wherever it is interrupted, the same rows; each transaction leaves a
 * projection that says where it is, so that a replay which a crash, a closing tenant or a lane's end stops is gone on with.
 */
import type { Disk } from "../host/disk.ts";
import { failpoint } from "../host/failpoint.ts";
import type { Randomness } from "../host/randomness.ts";
import type { TenantKeys } from "../keys/tenant-keys.ts";
import { type Block, isHollow, trimmed } from "../log/block.ts";
import type { LogHead, TenantLog } from "../log/tenant-log.ts";
import type { ProjectionMeta } from "../projection/bookkeeping.ts";
import { openConnection, type StatementLimits } from "../projection/connection.ts";
import type { Lanes, Lease } from "../projection/lanes.ts";
import { REPLAY_CACHE_KIB, type ReplayEnd } from "../projection/replay.ts";
import { fromSqlite, isSqliteError } from "../projection/sqlite-error.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import { BlockOpener } from "./log-records.ts";
import { copyFile, findBase, type ProjectionBase } from "./projection-base.ts";
import { ReplayHere, ReplayInLane, type ReplayPlace } from "./replay-place.ts";

export interface ReplayParts {
  readonly tenant: TenantId;
  readonly root: string;
  readonly disk: Disk;
  readonly randomness: Randomness;
  readonly keys: TenantKeys;
  readonly limits: StatementLimits;
  readonly lanes: Lanes;
  readonly onProgress?: ((progress: RebuildProgress) => void) | undefined;
  /** Asked at each turn: what it throws ends the replay. */
  readonly requireGoingOn?: (() => void) | undefined;
}

/** How far a rebuild or catch-up is. */
export interface RebuildProgress {
  readonly tenant: TenantId;
  readonly doneOffsets: bigint;
  readonly totalOffsets: bigint;
  readonly changes: number;
}

export interface ReplayRequest {
  /** First record that is not applied. */
  readonly untilOffset: bigint;
  readonly log: TenantLog;
  readonly path: string;
  readonly key: Buffer;
  /** DEK version of the key, for a base under the same one. */
  readonly version?: number;
  /** The base to begin with, in the place of the tenant's. */
  readonly base?: Pick<ProjectionBase, "path" | "size"> | undefined;
}

export interface Replayed {
  readonly blocksSealed: number;
  readonly replayedChanges: number;
}

/** What one transaction holds at most, but for its last block. */
interface Stretch {
  readonly changes: number;
  readonly bytes: number;
  readonly ms: number;
}

/** What is left is for another transaction (`paused`), or for a lane (`beyond`); `lost`: so is all of this one. */
type StretchEnd = "all" | "paused" | "beyond" | "lost";

const HERE: Stretch = { changes: 20_000, bytes: 4 * 1024 * 1024, ms: 200 };
/** A lane is given back after one, for other tenants' replays. */
const IN_LANE: Stretch = { changes: 20_000, bytes: 32 * 1024 * 1024, ms: 2_000 };
const TURN_MS = 10;

/**
 * Applies the log's records up to `untilOffset` to the projection at `path`.
 *
 * @throws `log_damaged`, `keys_missing`, `offset_trimmed`, `disk_full`, `disk_failed`, `overloaded` if its lane ended, and
 * what `requireGoingOn` throws
 */
export async function replayInto(parts: ReplayParts, request: ReplayRequest): Promise<Replayed> {
  parts.requireGoingOn?.();
  if (!parts.disk.has(request.path)) await layBase(parts, request);
  const replay = new Replay(parts, request);
  try {
    return await replay.run();
  } catch (error) {
    throw isSqliteError(error) ? fromSqlite(error, undefined) : error;
  } finally {
    replay.close();
  }
}

/** A trimmed log's projection begins as it was where the records begin. */
async function layBase(parts: ReplayParts, request: ReplayRequest): Promise<void> {
  const base = request.base ?? findBase(parts, request.version);
  if (base === undefined || base.size > request.untilOffset) return;
  await copyFile(parts.disk, base.path, request.path);
}

class Replay {
  readonly #parts: ReplayParts;
  readonly #request: ReplayRequest;
  readonly #opener: BlockOpener;
  readonly #startedMs: number = performance.now();
  #feed: BlockFeed | undefined;
  #changes = 0;
  #dek: ReplayEnd["dek"] = { version: 0, blocksSealed: 0 };
  #turnStartedMs: number = performance.now();

  constructor(parts: ReplayParts, request: ReplayRequest) {
    this.#parts = parts;
    this.#request = request;
    this.#opener = new BlockOpener(parts, request.log);
  }

  async run(): Promise<Replayed> {
    let end = await this.#here();
    while (end !== "all") end = await this.#inLane();
    this.#report(this.#request.untilOffset, 0);
    const { version, blocksSealed } = this.#dek;
    // A version that was put into force since has sealed nothing yet.
    return {
      blocksSealed: version === this.#parts.keys.current.version ? blocksSealed : 0,
      replayedChanges: this.#changes,
    };
  }

  close(): void {
    this.#feed?.close();
  }

  async #here(): Promise<StretchEnd> {
    const { limits } = this.#parts;
    const { path, key } = this.#request;
    const options = { path, key, limits, role: "write", cacheKib: REPLAY_CACHE_KIB, inline: true } as const;
    for (;;) {
      const place = new ReplayHere(openConnection(options));
      try {
        const end = await this.#transaction(place, HERE);
        if (end !== "paused" || performance.now() - this.#startedMs > HERE.ms) return end;
      } finally {
        place.close();
      }
    }
  }

  #inLane(): Promise<StretchEnd> {
    const { lanes, limits } = this.#parts;
    const { path, key } = this.#request;
    const work = async (lease: Lease): Promise<StretchEnd> => {
      const place = await ReplayInLane.begin(lease, { path, key: Uint8Array.from(key), limits });
      try {
        return await this.#transaction(place, IN_LANE);
      } finally {
        await place.close();
      }
    };
    return lanes.lease(path, work, "replay");
  }

  async #transaction(place: ReplayPlace, stretch: Stretch): Promise<StretchEnd> {
    const { log } = this.#request;
    const { meta } = place;
    const progress = new ReplayProgress(meta);
    const feed = this.#feedFrom(meta.nextOffset);
    const end = await this.#apply(place, { stretch, progress, feed });
    if (end === "lost") {
      feed.rewind();
      return end;
    }
    failpoint("catch-up-before-commit");
    this.#dek = progress.dek();
    const isLast = end === "all";
    const isWhole = await place.commit({ head: progress.head(log.head), dek: this.#dek, isLast });
    feed.forget();
    failpoint("catch-up-after-commit");
    this.#changes += place.changes;
    return isWhole ? end : "beyond";
  }

  async #apply(
    place: ReplayPlace,
    { stretch, progress, feed }: { stretch: Stretch; progress: ReplayProgress; feed: BlockFeed },
  ): Promise<StretchEnd> {
    const { untilOffset } = this.#request;
    const startedMs = performance.now();
    let bytes = 0;
    while (progress.nextOffset < untilOffset) {
      const isLong = performance.now() - startedMs > stretch.ms;
      if (isLong || place.changes >= stretch.changes || bytes >= stretch.bytes) return "paused";
      const block = feed.next();
      if (block === undefined) break;
      if (isHollow(block.header)) throw trimmed(block.header);
      if (!place.takes(block.totalBytes)) {
        feed.putBack();
        return "beyond";
      }
      const portion = this.#opener.portion(block, progress.nextOffset, untilOffset);
      if (!(await place.apply(portion))) return "lost";
      progress.note(block, untilOffset);
      bytes += block.totalBytes;
      await this.#turn(progress, place);
    }
    return "all";
  }

  /** One walk of the log for all transactions: what is behind a place in a segment is not read again. */
  #feedFrom(offset: bigint): BlockFeed {
    if (this.#feed?.nextOffset !== offset) {
      this.#feed?.close();
      this.#feed = new BlockFeed(this.#request.log, offset);
    }
    return this.#feed;
  }

  async #turn(progress: ReplayProgress, place: ReplayPlace): Promise<void> {
    if (performance.now() - this.#turnStartedMs <= TURN_MS) return;
    this.#report(progress.nextOffset, place.changes);
    await new Promise<void>((resolve) => setImmediate(resolve));
    this.#turnStartedMs = performance.now();
    this.#parts.requireGoingOn?.();
  }

  #report(doneOffsets: bigint, uncommitted: number): void {
    const { tenant, onProgress } = this.#parts;
    const { untilOffset: totalOffsets } = this.#request;
    onProgress?.({ tenant, doneOffsets, totalOffsets, changes: this.#changes + uncommitted });
  }
}

/** The blocks of a log from an offset on; those since the last commit can be had again. */
class BlockFeed {
  readonly #blocks: Iterator<Block, void>;
  #given: Block[] = [];
  #again: Block[] = [];
  #committed: bigint;

  constructor(log: TenantLog, from: bigint) {
    this.#blocks = log.blocks(from);
    this.#committed = from;
  }

  /** First offset that was not committed. */
  get nextOffset(): bigint {
    return this.#committed;
  }

  next(): Block | undefined {
    const block = this.#again.shift() ?? (this.#blocks.next().value as Block | undefined);
    if (block !== undefined) this.#given.push(block);
    return block;
  }

  /** What was given is committed. */
  forget(): void {
    const last = this.#given.at(-1)?.header;
    if (last !== undefined) this.#committed = last.firstOffset + BigInt(last.count);
    this.#given = [];
  }

  /** The last that was given is given again. */
  putBack(): void {
    const last = this.#given.pop();
    if (last !== undefined) this.#again.unshift(last);
  }

  rewind(): void {
    this.#again = [...this.#given, ...this.#again];
    this.#given = [];
  }

  close(): void {
    this.#blocks.return?.();
  }
}

/** Where in the log the projection is: what its metadata must say after each transaction of a replay. */
class ReplayProgress {
  nextOffset: bigint;
  #blocksSealed: number;
  #hash: Buffer;
  #timeUs: bigint;
  #dekVersion: number;

  constructor(meta: ProjectionMeta) {
    this.nextOffset = meta.nextOffset;
    this.#blocksSealed = meta.blocksSealed;
    this.#hash = meta.hash;
    this.#timeUs = meta.lastTimeUs;
    this.#dekVersion = meta.dekVersion;
  }

  note({ header, storedHash }: Block, until: bigint): void {
    const end = header.firstOffset + BigInt(header.count);
    this.nextOffset = end < until ? end : until;
    this.#blocksSealed = header.dekVersion === this.#dekVersion ? this.#blocksSealed + 1 : 1;
    this.#dekVersion = header.dekVersion;
    this.#timeUs = header.timeUs;
    this.#hash = Buffer.from(storedHash);
  }

  /** Between the ends of the log the place in a segment is not kept: such a projection is continued by offset. */
  head(end: LogHead): LogHead {
    if (this.nextOffset === end.nextOffset) return end;
    return { ...end, nextOffset: this.nextOffset, hash: this.#hash, lastTimeUs: this.#timeUs, position: 0 };
  }

  dek(): ReplayEnd["dek"] {
    return { version: this.#dekVersion, blocksSealed: this.#blocksSealed };
  }
}
