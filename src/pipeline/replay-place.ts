/**
 * Where a replay runs: on the main thread as long as it is a matter of moments, else in a lane.
 *
 * A row or a schema change takes as long as the tenant made it: an index over millions of rows, an expression in it that
 * takes seconds. On the main thread all tenants would wait. Kept: whatever the place, the same rows; what is not committed
 * is not there.
 */
import type { ProjectionMeta } from "../projection/bookkeeping.ts";
import type { Connection } from "../projection/connection.ts";
import type { LaneTarget } from "../projection/lane-protocol.ts";
import type { Lease } from "../projection/lanes.ts";
import { type ReplayEnd, Replayer } from "../projection/replay.ts";
import { type ReplayPortion, recordsOf } from "../projection/replay-portion.ts";

/** A projection that records are applied to, in a transaction. */
export interface ReplayPlace {
  /** What the projection said of itself when the transaction began. */
  readonly meta: ProjectionMeta;
  /** Changes applied since then. */
  readonly changes: number;
  /** Whether a block of that size may be tried here at all. */
  takes(blockBytes: number): boolean;
  /** @returns false if it takes too long here: nothing of the transaction is left then */
  apply(portion: ReplayPortion): Promise<boolean> | boolean;
  /** @returns false if what was committed is not all: full-text indexes are left to be made, elsewhere */
  commit(end: ReplayEnd): Promise<boolean> | boolean;
}

/** Longest time that one block may hold the main thread. */
const BLOCK_LIMIT_MS = 50;
/** What is larger takes long to decode. */
const MAX_BLOCK_BYTES = 1024 * 1024;
/** Of portions that go to a lane together. */
const MESSAGE_BYTES = 256 * 1024;

/** On this thread. */
export class ReplayHere implements ReplayPlace {
  readonly #replayer: Replayer;

  /** Takes over the connection. */
  constructor(connection: Connection) {
    try {
      this.#replayer = new Replayer(connection);
      this.#replayer.begin();
    } catch (error) {
      connection.db.close();
      throw error;
    }
  }

  get meta(): ProjectionMeta {
    return this.#replayer.meta;
  }

  get changes(): number {
    return this.#replayer.changes;
  }

  takes(blockBytes: number): boolean {
    return blockBytes <= MAX_BLOCK_BYTES;
  }

  apply(portion: ReplayPortion): boolean {
    return this.#replayer.within(BLOCK_LIMIT_MS, () => {
      for (const record of recordsOf(portion)) this.#replayer.apply(record);
    });
  }

  commit(end: ReplayEnd): boolean {
    const indexes = this.#replayer.commit(end);
    if (indexes.length === 0) return true;
    const made = this.#replayer.within(BLOCK_LIMIT_MS, () => {
      for (const name of indexes) this.#replayer.makeIndex(name);
    });
    if (made) this.#replayer.settle(end);
    return made;
  }

  close(): void {
    this.#replayer.close();
  }
}

/** In a lane. While it applies one message the next is gathered here: no more than the two are in memory. */
export class ReplayInLane implements ReplayPlace {
  readonly meta: ProjectionMeta;
  changes = 0;
  readonly #lease: Lease;
  #gathered: ReplayPortion[] = [];
  #gatheredBytes = 0;
  #running: Promise<void> = Promise.resolve();

  private constructor(lease: Lease, meta: ProjectionMeta) {
    this.#lease = lease;
    this.meta = meta;
  }

  static async begin(lease: Lease, target: LaneTarget): Promise<ReplayInLane> {
    return new ReplayInLane(lease, await lease.replayBegin(target));
  }

  takes(): boolean {
    return true;
  }

  async apply(portion: ReplayPortion): Promise<boolean> {
    this.#gathered.push(portion);
    this.#gatheredBytes += bytesOf(portion);
    if (this.#gatheredBytes >= MESSAGE_BYTES) await this.#send();
    return true;
  }

  async commit(end: ReplayEnd): Promise<boolean> {
    if (this.#gathered.length > 0) await this.#send();
    await this.#running;
    await this.#lease.replayCommit(end);
    return true;
  }

  /** Leaves nothing of a transaction that was not committed. */
  async close(): Promise<void> {
    await this.#running.catch(() => undefined);
    // A lane that ended has no file open.
    await this.#lease.replayDrop().catch(() => undefined);
  }

  async #send(): Promise<void> {
    await this.#running;
    const portions = this.#gathered;
    this.#gathered = [];
    this.#gatheredBytes = 0;
    this.#running = this.#lease.replay(portions).then((changes) => {
      this.changes = changes;
    });
    // What fails is thrown where it is waited for next.
    this.#running.catch(() => undefined);
  }
}

/** What is decoded already goes at once: its size is not known. */
function bytesOf(portion: ReplayPortion): number {
  if (portion.kind === "decoded") return MESSAGE_BYTES;
  return portion.records.reduce((sum, { length }) => sum + length, 0);
}
