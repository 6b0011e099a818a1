/**
 * The commit pipeline of one tenant: one writer, many callers, group commit.
 *
 * Whatever waits when the writer becomes free is one batch: each caller's work runs in a savepoint of one SQLite
 * transaction; what they changed becomes one block, sealed once, made durable by the journal; then the transaction is
 * committed and every caller is answered with its offset.
 *
 * Kept: nobody is told "committed" before the block is durable; if the append fails the whole transaction is rolled
 * back; a caller that fails, fails alone. If SQLite itself rolls the transaction back, the innocent are run again. Once
 * a block is durable it is committed, whatever the projection says: a projection that cannot follow is reopened and
 * catches up from the log.
 *
 * The projection's own COMMIT costs more than all the rest, so it may lag behind the acknowledged log: batches gather
 * in one SQLite transaction until the tenant is read, or there are many, or a moment has passed. A read first commits
 * them; only if a batch is on its way to the disk just then must it wait, and after that each batch is committed at
 * once for as long as reads come.
 *
 * Over 500 lines because batches, lanes and the lagging commit are one state: who may write, and what is not durable yet.
 */
import { KimberliteError, kimberliteError } from "../errors.ts";
import { failpoint } from "../host/failpoint.ts";
import type { Journal } from "../log/journal.ts";
import { decodeChanges, encodeChanges, joinRecord } from "../log/record.ts";
import type { PreparedBlock } from "../log/tenant-log.ts";
import type { ProjectionMeta } from "../projection/bookkeeping.ts";
import type { LaneTarget } from "../projection/lane-protocol.ts";
import type { Lanes, Lease } from "../projection/lanes.ts";
import type { StatementRequest, StatementResult, WriteSession } from "../projection/writer.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import { Batch, type BatchParts, type CallContext } from "./batch.ts";
import { type LaneTransaction, OpenTransaction, withTimeLimit } from "./lane-transaction.ts";
import { type PendingBytes, requestBytes } from "./pending-bytes.ts";
import type { SettleSweep } from "./settle-sweep.ts";
import { belongsInLane } from "./slow-reads.ts";

/** What a caller learns: its value, and the offset of its record if it changed anything. */
export interface Committed<T> {
  readonly value: T;
  readonly offset: bigint | undefined;
}

export interface PipelineParts extends BatchParts {
  readonly tenant: TenantId;
  readonly journal: Journal;
  /** Blocks sealed under the present DEK version so far. */
  readonly blocksSealed: number;
  readonly dekRotateAfterBlocks: number;
  /** Brings the projection's file to the log's end, by replay. */
  readonly catchUp: () => Promise<void>;
  readonly sweep: SettleSweep;
  readonly pending: PendingBytes;
  /** After the projection's transaction was committed. */
  readonly onSettled: () => void;
  readonly lanes: Lanes;
  readonly laneTarget: () => LaneTarget;
  readonly projectionPath: string;
  /** Before the first block of all: the tenant's folders are made durable. */
  readonly beforeFirstBlock: () => Promise<void>;
  /** After a commit that changed the schema, or any commit: readers and subscribers look again. */
  readonly onCommit: (nextOffset: bigint) => void;
  /** The projection or a segment could not follow a durable block: the tenant must be opened anew. */
  readonly onBroken: (error: unknown) => void;
}

interface Job {
  readonly context: CallContext;
  readonly work: (session: WriteSession) => unknown;
  /** The same work as statements, if it is that: then it can be run in a lane when it proves slow. */
  readonly requests: readonly StatementRequest[] | undefined;
  /** What it holds in memory until it is answered; 0 from then on. */
  bytes: number;
  readonly resolve: (committed: Committed<unknown>) => void;
  readonly reject: (error: unknown) => void;
}

/** Work that runs in a lane: slow statements, and transactions that are held open. */
interface LaneJob {
  /** The lane of a transaction that is held; slow statements take one when their turn comes. */
  readonly lease?: Lease;
  readonly context: CallContext;
  readonly run: (transaction: LaneTransaction) => Promise<unknown>;
  readonly timeLimitMs: number;
  /** False while the session that asks has turned them off. */
  readonly foreignKeys?: boolean;
  bytes: number;
  readonly resolve: (committed: Committed<unknown>) => void;
  readonly reject: (error: unknown) => void;
}

interface Sealed {
  readonly prepared: PreparedBlock;
  /** What the projection says of itself once it has the block. */
  readonly meta: Omit<ProjectionMeta, "nextStream">;
}

/** A lane in which transactions of the tenant are held, as long as there are some. */
interface HeldLane {
  readonly lease: Lease;
  users: number;
  readonly end: () => void;
}

const MAX_BATCH_JOBS = 512;
const MAX_BATCH_MS = 20;
const MAX_BATCH_BYTES = 16 * 1024 * 1024;
const MAX_QUEUE = 100_000;
const MAX_HOLDS = 1_000;
/** How long the statements of a call may hold the main thread before they go to a lane. */
export const INLINE_LIMIT_MS = 20;
const LANE_GRACE_MS = 1_000;
/** A timer of Node.js that is longer fires at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;
/** Half of the 2³² seals that SP 800-38D allows one key with random nonces. */
const MAX_BLOCKS_PER_KEY = 2 ** 31;
/** Batches that may wait in the projection's transaction: as many are replayed at most after a crash. */
const MAX_UNSETTLED_BATCHES = 64;
/** While the tenant was read within this time, its batches are committed at once. */
const READ_LATELY_MS = 100;

export class CommitPipeline {
  readonly #parts: PipelineParts;
  readonly #queue: (Job | LaneJob)[] = [];
  /** Of the jobs that are queued or run. */
  #pendingBytes = 0;
  #blocksSealed: number;
  #running = false;
  #inBatch = false;
  /** Of the blocks that are durable and in the projection's transaction, which is not committed yet: where it will be. */
  #unsettled: Omit<ProjectionMeta, "nextStream"> | undefined;
  #unsettledBatches = 0;
  #lastReadMs = Number.NEGATIVE_INFINITY;
  readonly #batchEnds: (() => void)[] = [];
  #closed: Error | undefined;
  #idle: (() => void)[] = [];
  /** Transactions that are held or wait to be; they come one after another, in one lane. */
  #holds = 0;
  #lastHold: Promise<unknown> = Promise.resolve();
  #held: HeldLane | undefined;

  constructor(parts: PipelineParts) {
    this.#parts = parts;
    this.#blocksSealed = parts.blocksSealed;
  }

  get busy(): boolean {
    return this.#running || this.#queue.length > 0 || this.#holds > 0;
  }

  /** Bytes of the calls that wait or run. */
  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  get blocksSealed(): number {
    return this.#blocksSealed;
  }

  /**
   * Runs work in the next batch. Resolves when what it changed is durable; rejects if it failed or was refused.
   *
   * @param bytes what the work holds in memory until then, if that is much
   */
  submit<T>(context: CallContext, work: (session: WriteSession) => T, bytes = 0): Promise<Committed<T>> {
    return new Promise((resolve, reject) => {
      this.#enqueue({
        context,
        work,
        requests: undefined,
        bytes,
        resolve: resolve as Job["resolve"],
        reject,
      });
    });
  }

  /**
   * Runs statements as one transaction. They start on this thread; if one is still running after a moment, all of them
   * are undone and run again in a lane, with the full time limit, so that no other tenant waits for them.
   */
  submitStatements(
    context: CallContext,
    requests: readonly StatementRequest[],
  ): Promise<Committed<StatementResult[]>> {
    const work = (session: WriteSession): StatementResult[] => runInline(session, requests);
    let bytes = 0;
    for (const request of requests) bytes += requestBytes(request);
    return new Promise((resolve, reject) => {
      this.#enqueue({ context, work, requests, bytes, resolve: resolve as Job["resolve"], reject });
    });
  }

  /**
   * Holds the writer over several turns of the event loop, for a bounded time, and commits what was done. A lane is found
   * first: while all are held for others, the tenant's other writes go on. It has its turn among them unless it has to wait for one.
   *
   * @throws `overloaded` when too many wait
   */
  interact<T>(
    context: CallContext,
    run: (transaction: LaneTransaction) => Promise<T>,
    options: { readonly timeLimitMs: number; readonly foreignKeys?: boolean },
  ): Promise<Committed<T>> {
    if (this.#holds >= MAX_HOLDS) {
      const error = kimberliteError("overloaded", "too many transactions of the tenant wait", {
        retryAfterMs: 100,
      });
      return Promise.reject(error);
    }
    this.#holds += 1;
    const { promise, resolve, reject } = Promise.withResolvers<Committed<T>>();
    const submit = (held: HeldLane): void => {
      held.users += 1;
      const leave = (error?: unknown): void => {
        held.users -= 1;
        // A lane that has ended serves nobody who comes later.
        if (error instanceof KimberliteError && error.code === "overloaded") this.#forgetHeld(held);
        if (held.users === 0) held.end();
      };
      this.#enqueue({
        context,
        run,
        lease: held.lease,
        bytes: 0,
        ...options,
        resolve: (committed) => {
          leave();
          resolve(committed as Committed<T>);
        },
        reject: (error) => {
          leave(error);
          reject(error);
        },
      });
    };
    this.#submitHeld(submit, reject);
    return promise.finally(() => {
      this.#holds -= 1;
      this.#wakeIdle();
    });
  }

  /** In its turn among the tenant's writes if a lane is free or held for the tenant already; else when it gets one. */
  #submitHeld(submit: (held: HeldLane) => void, reject: (error: unknown) => void): void {
    if (this.#held !== undefined && !this.#parts.lanes.isAwaited("hold")) return submit(this.#held);
    const first = this.#holds === 1;
    const taken = first ? this.#takeHeld(submit) : this.#lastHold.then(() => this.#takeHeld(submit));
    this.#lastHold = taken.catch(reject);
  }

  /** Resolves when nobody is in the lane any more. */
  #takeHeld(submit: (held: HeldLane) => void): Promise<void> {
    if (this.#closed !== undefined) return Promise.reject(this.#closed);
    const { lanes, projectionPath } = this.#parts;
    const hold = async (lease: Lease): Promise<void> => {
      const { promise, resolve: end } = Promise.withResolvers<void>();
      const held = { lease, users: 0, end };
      this.#held = held;
      submit(held);
      await promise;
      this.#forgetHeld(held);
    };
    return lanes.lease(projectionPath, hold, "hold");
  }

  #forgetHeld(held: HeldLane): void {
    if (this.#held === held) this.#held = undefined;
  }

  /** Lets what is queued finish, then refuses more. */
  async drain(): Promise<void> {
    while (this.busy) await new Promise<void>((resolve) => this.#idle.push(resolve));
    if (this.#closed === undefined) this.settleNow();
  }

  /** Refuses everything from now on, with this error. */
  stop(error: Error): void {
    this.#closed = error;
    this.#parts.sweep.forget(this);
    for (const job of this.#queue.splice(0)) this.#reject(job, error);
  }

  #enqueue(job: Job | LaneJob): void {
    if (this.#closed !== undefined) return job.reject(this.#closed);
    const { pending } = this.#parts;
    if (this.#queue.length >= MAX_QUEUE || !pending.admit(job.bytes, this.#pendingBytes)) {
      return job.reject(kimberliteError("overloaded", "the tenant's queue is full", { retryAfterMs: 100 }));
    }
    this.#pendingBytes += job.bytes;
    this.#queue.push(job);
    if (!this.#running) this.#start();
  }

  /** Every job that was queued is answered by one of these two. */
  #resolve(job: Job | LaneJob, committed: Committed<unknown>): void {
    this.#release(job);
    job.resolve(committed);
  }

  #reject(job: Job | LaneJob, error: unknown): void {
    this.#release(job);
    job.reject(error);
  }

  #release(job: Job | LaneJob): void {
    if (job.bytes === 0) return;
    this.#pendingBytes -= job.bytes;
    this.#parts.pending.release(job.bytes);
    job.bytes = 0;
  }

  #start(): void {
    this.#running = true;
    // Callers of the same turn of the event loop share the batch.
    setImmediate(() => {
      this.#loop().catch((error: unknown) => this.#break(error));
    });
  }

  async #loop(): Promise<void> {
    while (this.#queue.length > 0 && this.#closed === undefined) {
      const first = this.#queue[0] as Job | LaneJob;
      if ("run" in first) {
        this.#queue.shift();
        await this.#runInLane(first);
      } else await this.#runBatch();
      for (const wake of this.#batchEnds.splice(0)) wake();
    }
    this.#running = false;
    this.#wakeIdle();
  }

  #wakeIdle(): void {
    for (const wake of this.#idle.splice(0)) wake();
  }

  async #runBatch(): Promise<void> {
    const jobs = this.#takeJobs();
    let batch: Batch<Job>;
    try {
      batch = await this.#executeAll(jobs);
    } catch (error) {
      for (const job of jobs) this.#reject(job, error);
      return this.#undoBatch();
    }
    await this.#commit(batch);
  }

  #takeJobs(): Job[] {
    let count = 0;
    while (
      count < MAX_BATCH_JOBS &&
      count < this.#queue.length &&
      !("run" in (this.#queue[count] as Job | LaneJob))
    ) {
      count += 1;
    }
    return this.#queue.splice(0, count) as Job[];
  }

  /** Runs jobs until all are done or the batch is full; what is left over goes back to the queue's front. */
  async #executeAll(jobs: Job[]): Promise<Batch<Job>> {
    let pending = jobs;
    for (;;) {
      const batch = this.#newBatch();
      this.#begin();
      const lost = this.#executeSome(pending, batch);
      if (lost === undefined) return batch;
      // The transaction is gone with the work of those before: run them again, without the one that did it.
      await this.#restoreLost();
      pending = pending.filter((job) => job !== lost.job && !lost.failed.has(job));
    }
  }

  /** Undoes the batch; a transaction that holds no other is ended, for it keeps the file locked. */
  #undoBatch(): void {
    const { writer } = this.#parts;
    this.#inBatch = false;
    if (this.#unsettled === undefined) writer.rollback();
    else writer.undoBatch();
  }

  #begin(): void {
    this.#inBatch = true;
    this.#parts.writer.begin();
  }

  /** Durable batches that went with a transaction that SQLite rolled back come back from the log. */
  async #restoreLost(): Promise<void> {
    const unsettled = this.#unsettled;
    this.#unsettled = undefined;
    this.#inBatch = false;
    if (unsettled === undefined) return;
    try {
      await this.#parts.catchUp();
      this.#parts.writer.reload();
    } catch (error) {
      // What comes next would be run on rows that lack what was acknowledged.
      this.#break(error);
      throw error;
    }
  }

  #executeSome(jobs: readonly Job[], batch: Batch<Job>): { job: Job; failed: ReadonlySet<Job> } | undefined {
    const { writer, clock } = this.#parts;
    const startedMs = clock.monotonicMs();
    const failed = new Set<Job>();
    for (const [index, job] of jobs.entries()) {
      if (batch.recordBytes > MAX_BATCH_BYTES || clock.monotonicMs() - startedMs > MAX_BATCH_MS) {
        this.#queue.unshift(...jobs.slice(index));
        return undefined;
      }
      let offset: bigint | undefined;
      const outcome = writer.runJob(job.work, (changes) => {
        offset = batch.accept(job.context, changes);
      });
      if (outcome.ok) batch.accepted.push({ job, value: outcome.value, offset });
      else {
        this.#fail(job, outcome.error);
        failed.add(job);
        if (outcome.lostTransaction) return { job, failed };
      }
    }
    return undefined;
  }

  /** Answers a caller that failed; one that only ran out of its moment on this thread goes on in a lane. */
  #fail(job: Job, error: unknown): void {
    const { requests } = job;
    const { limits } = this.#parts;
    const goesOn = requests?.every((request) => belongsInLane(error, request, limits)) === true;
    if (requests === undefined || !goesOn) return this.#reject(job, error);
    const run = (transaction: LaneTransaction): Promise<StatementResult[]> => transaction.run(requests);
    const { timeLimitMs } = this.#parts.limits;
    this.#queue.push({
      ...job,
      run,
      timeLimitMs: Math.min(timeLimitMs * requests.length + LANE_GRACE_MS, MAX_TIMER_MS),
    });
    // They are the other's now.
    job.bytes = 0;
  }

  #newBatch(): Batch<Job> {
    return new Batch(this.#parts);
  }

  async #commit(batch: Batch<Job>): Promise<void> {
    const { log } = this.#parts;
    if (batch.records.length === 0) {
      this.#undoBatch();
      return this.#answer(batch);
    }
    let sealed: Sealed;
    try {
      if (log.nextOffset === 0n) await this.#parts.beforeFirstBlock();
      await this.#keepSubjectKeys(batch);
      sealed = this.#seal(batch);
      await this.#makeDurable(sealed.prepared);
    } catch (error) {
      this.#answerUndone(batch, error);
      return this.#undoBatch();
    }
    this.#follow(sealed);
    failpoint("commit-before-answer");
    this.#answer(batch);
    this.#parts.onCommit(log.nextOffset);
    await this.#rotateWhenDue();
  }

  /** Keys that the batch made for new subjects are durable before anything under them is. */
  async #keepSubjectKeys(batch: Batch<Job>): Promise<void> {
    if (batch.withSubjects) await this.#parts.keys.subjects.flush();
  }

  #seal(batch: Batch<Job>): Sealed {
    const { log, keys } = this.#parts;
    const { version, key } = keys.current;
    const { records, timeUs, withSubjects } = batch;
    const prepared = log.prepare({ records, key, dekVersion: version, epoch: 0n, timeUs, withSubjects });
    // In clear text they share memory with what lives longer.
    for (const record of records) record.fill(0);
    return {
      prepared,
      meta: { ...prepared.next, dekVersion: version, blocksSealed: this.#blocksSealed + 1 },
    };
  }

  #makeDurable(prepared: PreparedBlock): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#parts.journal.commit(prepared.entry, (error) =>
        error === undefined ? resolve() : reject(error as Error),
      );
    });
  }

  /** The block is durable: segment and projection follow it. If one cannot, callers are still committed. */
  #follow({ prepared, meta }: Sealed): void {
    const { log, journal, writer } = this.#parts;
    this.#blocksSealed += 1;
    this.#inBatch = false;
    try {
      log.advance(prepared);
    } catch (error) {
      journal.retain(prepared.entry);
      return this.#break(error);
    }
    try {
      writer.endBatch();
      this.#unsettled = meta;
      this.#unsettledBatches += 1;
      if (this.#readLately() || this.#unsettledBatches >= MAX_UNSETTLED_BATCHES) this.settleNow();
      else this.#parts.sweep.add(this);
    } catch (error) {
      this.#break(error);
    }
  }

  /**
   * Commits the projection's transaction if that shows nothing that is not durable.
   *
   * @returns false while a batch is on its way to the disk: then `settled` waits for it.
   */
  settleNow(): boolean {
    if (this.#unsettled === undefined) return true;
    if (this.#inBatch) return false;
    const { writer } = this.#parts;
    const meta = this.#unsettled;
    this.#unsettled = undefined;
    this.#unsettledBatches = 0;
    try {
      writer.bookkeeping.writeMeta({ ...meta, nextStream: writer.nextStream });
      writer.commit();
    } catch (error) {
      this.#break(error);
      throw error;
    }
    this.#parts.onSettled();
    return true;
  }

  /** For reads: true if everything acknowledged is committed. While reads come, each batch is committed at once. */
  readyToRead(): boolean {
    this.#lastReadMs = performance.now();
    return this.#unsettled === undefined || this.settleNow();
  }

  /** Resolves when everything acknowledged before the call is committed. */
  async settled(): Promise<void> {
    while (!this.readyToRead()) await new Promise<void>((resolve) => this.#batchEnds.push(resolve));
  }

  #readLately(): boolean {
    return performance.now() - this.#lastReadMs < READ_LATELY_MS;
  }

  /** Callers that changed nothing learn what they found, but for those who may have found what is undone now. */
  #answerUndone(batch: Batch<Job>, error: unknown): void {
    const first = batch.accepted.findIndex(({ offset }) => offset !== undefined);
    for (const [index, { job, value, offset }] of batch.accepted.entries()) {
      if (index < first) this.#resolve(job, { value, offset });
      else this.#reject(job, error);
    }
  }

  #answer(batch: Batch<Job>): void {
    for (const { job, value, offset } of batch.accepted) this.#resolve(job, { value, offset });
  }

  #break(error: unknown): void {
    this.#running = false;
    try {
      this.#parts.writer.rollback();
    } catch {
      // The connection is about to be closed, which rolls back as well.
    }
    this.#unsettled = undefined;
    this.#inBatch = false;
    for (const wake of this.#batchEnds.splice(0)) wake();
    this.stop(
      kimberliteError("overloaded", "the tenant is being reopened; try again", {
        cause: error,
        retryAfterMs: 50,
      }),
    );
    this.#parts.onBroken(error);
    for (const wake of this.#idle.splice(0)) wake();
  }

  /** Runs work in a lane, which holds the tenant's write lock meanwhile; nothing of this thread does. */
  async #runInLane(job: LaneJob): Promise<void> {
    const { lanes, laneTarget } = this.#parts;
    try {
      this.settleNow();
      const target = laneTarget();
      const leased = (lease: Lease): Promise<Committed<unknown>> => this.#leased(job, lease, target);
      const committed = await (job.lease === undefined
        ? lanes.lease(target.path, leased)
        : leased(job.lease));
      this.#resolve(job, committed);
    } catch (error) {
      this.#reject(job, error);
    }
  }

  async #leased(job: LaneJob, lease: Lease, target: LaneTarget): Promise<Committed<unknown>> {
    await lease.begin(target, { foreignKeys: job.foreignKeys ?? true });
    const transaction = new OpenTransaction(lease, {
      untilMs: performance.now() + job.timeLimitMs,
      nextOffset: this.#parts.log.nextOffset,
    });
    let sealed: Sealed | undefined;
    let value: unknown;
    let offset: bigint | undefined;
    try {
      value = await withTimeLimit(job.run(transaction), job.timeLimitMs);
      await transaction.end();
      const { changes, pageCount } = await lease.finish();
      const batch = this.#newBatch();
      if (changes !== undefined) {
        offset = this.#parts.log.nextOffset;
        const ready = this.#parts.keys.hasSubjects
          ? encodeChanges(batch.seal(job.context, offset, decodeChanges(changes)))
          : changes;
        batch.take(joinRecord({ offset, timeUs: batch.timeUs, ...job.context }, ready), {
          pages: pageCount,
          metered: job.context.unmetered !== true,
        });
        if (this.#parts.log.nextOffset === 0n) await this.#parts.beforeFirstBlock();
        await this.#keepSubjectKeys(batch);
        sealed = this.#seal(batch);
        await this.#makeDurable(sealed.prepared);
      }
    } catch (error) {
      await transaction.end();
      await lease.rollback();
      throw error;
    }
    if (sealed === undefined) await lease.rollback();
    else await this.#followInLane(sealed, lease);
    return { value, offset };
  }

  async #followInLane(sealed: Sealed, lease: Lease): Promise<void> {
    const { log, journal, writer, onCommit } = this.#parts;
    this.#blocksSealed += 1;
    try {
      try {
        log.advance(sealed.prepared);
      } catch (error) {
        journal.retain(sealed.prepared.entry);
        throw error;
      }
      await lease.commit(sealed.meta);
      writer.refresh();
    } catch (error) {
      this.#break(error);
    }
    onCommit(log.nextOffset);
    await this.#rotateWhenDue();
  }

  /** NIST SP 800-38D bounds the seals under one key with random nonces: the DEK changes long before. */
  async #rotateWhenDue(): Promise<void> {
    if (this.#blocksSealed < this.#parts.dekRotateAfterBlocks) return;
    try {
      await this.rotateDek();
    } catch (error) {
      // A key store that cannot be written now is asked again after the next block; only near the bound is it fatal.
      if (this.#blocksSealed >= MAX_BLOCKS_PER_KEY) throw error;
    }
  }

  /** Puts a new DEK version into force for the blocks that follow. */
  async rotateDek(): Promise<number> {
    const version = await this.#parts.keys.rotateDek();
    this.#blocksSealed = 0;
    return version;
  }
}

/** Runs statements on this thread, as long as all of them together take no more than a moment. */
function runInline(session: WriteSession, requests: readonly StatementRequest[]): StatementResult[] {
  if (requests.length === 1)
    return [session.run({ ...(requests[0] as StatementRequest), timeLimitMs: INLINE_LIMIT_MS })];
  const startedMs = performance.now();
  return requests.map((request) => {
    if (performance.now() - startedMs > INLINE_LIMIT_MS) {
      throw kimberliteError("statement_timeout", "the statements take longer than a moment");
    }
    return session.run({ ...request, timeLimitMs: INLINE_LIMIT_MS });
  });
}
