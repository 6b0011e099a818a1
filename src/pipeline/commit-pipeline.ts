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
 */
import { assert, kimberliteError } from "../errors.ts";
import type { Clock } from "../host/clock.ts";
import type { TenantKeys } from "../keys/tenant-keys.ts";
import { recordCostBytes } from "../log/block.ts";
import type { Journal } from "../log/journal.ts";
import { type Change, encodeRecord } from "../log/record.ts";
import type { PreparedBlock, TenantLog } from "../log/tenant-log.ts";
import type { StatementLimits } from "../projection/connection.ts";
import { noteEvents } from "../projection/replay.ts";
import type { ProjectionWriter, WriteSession } from "../projection/writer.ts";
import type { QuotaGate } from "../quota/quota-gate.ts";
import type { TenantId } from "../tenant/tenant-id.ts";

/** Who asked, and under which names. */
export interface CallContext {
  readonly actor: string;
  readonly correlationId?: string | undefined;
  readonly idempotencyKey?: string | undefined;
}

/** What a caller learns: its value, and the offset of its record if it changed anything. */
export interface Committed<T> {
  readonly value: T;
  readonly offset: bigint | undefined;
}

export interface InteractiveOptions {
  readonly timeLimitMs: number;
}

export interface PipelineParts {
  readonly tenant: TenantId;
  readonly log: TenantLog;
  readonly writer: ProjectionWriter;
  readonly keys: TenantKeys;
  readonly journal: Journal;
  readonly clock: Clock;
  readonly gate: QuotaGate;
  readonly limits: StatementLimits;
  readonly pageSize: number;
  /** Blocks sealed under the present DEK version so far. */
  readonly blocksSealed: number;
  readonly dekRotateAfterBlocks: number;
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
  readonly resolve: (committed: Committed<unknown>) => void;
  readonly reject: (error: unknown) => void;
}

interface Interactive {
  readonly context: CallContext;
  readonly run: (session: WriteSession) => Promise<unknown>;
  readonly timeLimitMs: number;
  readonly resolve: (committed: Committed<unknown>) => void;
  readonly reject: (error: unknown) => void;
}

interface Accepted {
  readonly job: Job;
  readonly value: unknown;
  readonly offset: bigint | undefined;
}

interface Batch {
  readonly records: Buffer[];
  readonly accepted: Accepted[];
  recordBytes: number;
  readonly timeUs: bigint;
}

const MAX_BATCH_JOBS = 512;
const MAX_BATCH_MS = 20;
const MAX_BATCH_BYTES = 16 * 1024 * 1024;
const MAX_QUEUE = 100_000;
const RECORD_HEADROOM_BYTES = 4096;

export class CommitPipeline {
  readonly #parts: PipelineParts;
  readonly #queue: (Job | Interactive)[] = [];
  #blocksSealed: number;
  #running = false;
  #rotating: Promise<void> | undefined;
  #closed: Error | undefined;
  #idle: (() => void)[] = [];

  constructor(parts: PipelineParts) {
    this.#parts = parts;
    this.#blocksSealed = parts.blocksSealed;
  }

  get busy(): boolean {
    return this.#running || this.#queue.length > 0;
  }

  get waiting(): number {
    return this.#queue.length;
  }

  get blocksSealed(): number {
    return this.#blocksSealed;
  }

  /** Runs work in the next batch. Resolves when what it changed is durable; rejects if it failed or was refused. */
  submit<T>(context: CallContext, work: (session: WriteSession) => T): Promise<Committed<T>> {
    return new Promise((resolve, reject) => {
      this.#enqueue({ context, work, resolve: resolve as Job["resolve"], reject });
    });
  }

  /** Holds the writer over several turns of the event loop, for a bounded time, and commits what was done. */
  interact<T>(
    context: CallContext,
    run: (session: WriteSession) => Promise<T>,
    options: InteractiveOptions,
  ): Promise<Committed<T>> {
    return new Promise((resolve, reject) => {
      this.#enqueue({ context, run, ...options, resolve: resolve as Job["resolve"], reject });
    });
  }

  /** Lets what is queued finish, then refuses more. */
  async drain(): Promise<void> {
    while (this.busy) await new Promise<void>((resolve) => this.#idle.push(resolve));
    await this.#rotating?.catch(() => undefined);
  }

  /** Refuses everything from now on, with this error. */
  stop(error: Error): void {
    this.#closed = error;
    for (const job of this.#queue.splice(0)) job.reject(error);
  }

  #enqueue(job: Job | Interactive): void {
    if (this.#closed !== undefined) return job.reject(this.#closed);
    if (this.#queue.length >= MAX_QUEUE) {
      return job.reject(kimberliteError("overloaded", "the tenant's queue is full", { retryAfterMs: 100 }));
    }
    this.#queue.push(job);
    if (!this.#running) this.#start();
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
      const first = this.#queue[0] as Job | Interactive;
      if ("run" in first) {
        this.#queue.shift();
        await this.#runInteractive(first);
      } else await this.#runBatch();
    }
    this.#running = false;
    for (const wake of this.#idle.splice(0)) wake();
  }

  async #runBatch(): Promise<void> {
    const jobs = this.#takeJobs();
    let batch: Batch;
    try {
      batch = this.#executeAll(jobs);
    } catch (error) {
      this.#parts.writer.rollback();
      for (const job of jobs) job.reject(error);
      return;
    }
    await this.#commit(batch);
  }

  #takeJobs(): Job[] {
    let count = 0;
    while (count < MAX_BATCH_JOBS && count < this.#queue.length && !("run" in (this.#queue[count] as Job | Interactive))) {
      count += 1;
    }
    return this.#queue.splice(0, count) as Job[];
  }

  /** Runs jobs until all are done or the batch is full; what is left over goes back to the queue's front. */
  #executeAll(jobs: Job[]): Batch {
    let pending = jobs;
    for (;;) {
      const batch = this.#newBatch();
      this.#parts.writer.begin();
      const lost = this.#executeSome(pending, batch);
      if (lost === undefined) return batch;
      // The transaction is gone with the work of those before: run them again, without the one that did it.
      pending = pending.filter((job) => job !== lost.job && !lost.failed.has(job));
    }
  }

  #executeSome(jobs: readonly Job[], batch: Batch): { job: Job; failed: ReadonlySet<Job> } | undefined {
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
        offset = this.#accept(batch, job.context, changes);
      });
      if (outcome.ok) batch.accepted.push({ job, value: outcome.value, offset });
      else {
        job.reject(outcome.error);
        failed.add(job);
        if (outcome.lostTransaction) return { job, failed };
      }
    }
    return undefined;
  }

  #newBatch(): Batch {
    const now = this.#parts.clock.wallTimeUs();
    const last = this.#parts.log.head.lastTimeUs;
    return { records: [], accepted: [], recordBytes: 0, timeUs: now > last ? now : last };
  }

  /** Makes the record of a caller's changes, inside its savepoint: throwing here undoes the caller alone. */
  #accept(batch: Batch, context: CallContext, changes: readonly Change[]): bigint | undefined {
    if (changes.length === 0) return undefined;
    const { log, writer, limits } = this.#parts;
    const offset = log.nextOffset + BigInt(batch.records.length);
    for (const change of changes) {
      if (change.kind === "events") {
        noteEvents(writer.bookkeeping, { offset, idempotencyKey: context.idempotencyKey }, change);
      }
    }
    const record = encodeRecord({ offset, timeUs: batch.timeUs, ...context, changes });
    if (record.length > limits.maxTransactionBytes + RECORD_HEADROOM_BYTES) {
      throw kimberliteError("transaction_too_large", "the transaction changes more than one record may hold", {
        detail: { maxTransactionBytes: limits.maxTransactionBytes, bytes: record.length },
      });
    }
    this.#checkStorage(batch, record.length);
    batch.records.push(record);
    batch.recordBytes += record.length;
    return offset;
  }

  #checkStorage(batch: Batch, recordBytes: number): void {
    const { gate, log, writer, pageSize } = this.#parts;
    const { maxLogBytes, maxProjectionBytes } = gate.quota;
    if (maxLogBytes === undefined && maxProjectionBytes === undefined) return;
    const growth = log.growthBytes(batch.records.length + 1, batch.recordBytes + recordBytes);
    assert(growth >= recordCostBytes(recordBytes), "a block is larger than its record");
    gate.checkStorage({
      logBytes: log.head.totalBytes + growth,
      projectionBytes: maxProjectionBytes === undefined ? 0 : writer.pageCount() * pageSize,
    });
  }

  async #commit(batch: Batch): Promise<void> {
    const { writer, log } = this.#parts;
    if (batch.records.length === 0) {
      writer.rollback();
      return this.#answer(batch);
    }
    let prepared: PreparedBlock;
    try {
      if (log.nextOffset === 0n) await this.#parts.beforeFirstBlock();
      prepared = this.#seal(batch);
      await this.#makeDurable(prepared);
    } catch (error) {
      writer.rollback();
      for (const { job, value, offset } of batch.accepted) {
        if (offset === undefined) job.resolve({ value, offset });
        else job.reject(error);
      }
      return;
    }
    this.#follow(prepared);
    this.#answer(batch);
    this.#parts.onCommit(log.nextOffset);
    await this.#rotateWhenDue();
  }

  #seal(batch: Batch): PreparedBlock {
    const { log, keys, writer } = this.#parts;
    const { version, key } = keys.current;
    const prepared = log.prepare({ records: batch.records, key, dekVersion: version, epoch: 0n, timeUs: batch.timeUs });
    writer.bookkeeping.writeMeta({
      ...prepared.next,
      dekVersion: version,
      blocksSealed: this.#blocksSealed + 1,
      nextStream: writer.nextStream,
    });
    return prepared;
  }

  #makeDurable(prepared: PreparedBlock): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#parts.journal.commit(prepared.entry, (error) => (error === undefined ? resolve() : reject(error as Error)));
    });
  }

  /** The block is durable: segment and projection follow it. If one cannot, callers are still committed. */
  #follow(prepared: PreparedBlock): void {
    const { log, journal, writer } = this.#parts;
    this.#blocksSealed += 1;
    try {
      log.advance(prepared);
    } catch (error) {
      journal.retain(prepared.entry);
      return this.#break(error);
    }
    try {
      writer.commit();
    } catch (error) {
      this.#break(error);
    }
  }

  #answer(batch: Batch): void {
    for (const { job, value, offset } of batch.accepted) job.resolve({ value, offset });
  }

  #break(error: unknown): void {
    this.#running = false;
    try {
      this.#parts.writer.rollback();
    } finally {
      this.stop(
        kimberliteError("overloaded", "the tenant is being reopened; try again", { cause: error, retryAfterMs: 50 }),
      );
      this.#parts.onBroken(error);
      for (const wake of this.#idle.splice(0)) wake();
    }
  }

  async #runInteractive(job: Interactive): Promise<void> {
    const { writer } = this.#parts;
    let session: WriteSession;
    try {
      writer.begin();
      session = writer.beginJob();
    } catch (error) {
      writer.rollback();
      return job.reject(error);
    }
    const batch = this.#newBatch();
    try {
      const value = await withTimeLimit(job.run(session), job.timeLimitMs);
      let offset: bigint | undefined;
      const outcome = writer.finishJob((changes) => {
        offset = this.#accept(batch, job.context, changes);
      });
      if (!outcome.ok) throw outcome.error;
      batch.accepted.push({ job: { ...job, work: () => value }, value, offset });
    } catch (error) {
      if (writer.inTransaction) writer.undoJob(error);
      writer.rollback();
      return job.reject(error);
    }
    await this.#commit(batch);
  }

  /** NIST SP 800-38D bounds the seals under one key with random nonces: the DEK changes long before. */
  async #rotateWhenDue(): Promise<void> {
    if (this.#blocksSealed < this.#parts.dekRotateAfterBlocks) return;
    await this.rotateDek();
  }

  /** Puts a new DEK version into force for the blocks that follow. */
  async rotateDek(): Promise<number> {
    const version = await this.#parts.keys.rotateDek();
    this.#blocksSealed = 0;
    return version;
  }
}

async function withTimeLimit<T>(work: Promise<T>, timeLimitMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(
        kimberliteError("transaction_timeout", "the transaction was held open past its time limit", {
          detail: { timeLimitMs },
        }),
      );
    }, timeLimitMs);
  });
  try {
    return await Promise.race([work, limit]);
  } finally {
    clearTimeout(timer);
  }
}
