/**
 * One open tenant: its keys, log, projection, pipeline and quota, and nothing of any other's.
 *
 * Opened by bringing the projection to the log's end; closed by finishing what is queued and zeroing the keys.
 */
import { join } from "node:path";
import { KimberliteError, kimberliteError } from "../errors.ts";
import type { Clock } from "../host/clock.ts";
import type { TenantKeys } from "../keys/tenant-keys.ts";
import type { Journal } from "../log/journal.ts";
import { logFolder } from "../log/segment.ts";
import type { TenantLog } from "../log/tenant-log.ts";
import { Bookkeeping } from "../projection/bookkeeping.ts";
import {
  deferCheckpoints,
  openConnection,
  type StatementLimits,
  walBytes,
} from "../projection/connection.ts";
import type { Guard } from "../projection/guard.ts";
import type { LaneTarget } from "../projection/lane-protocol.ts";
import type { Lease } from "../projection/lanes.ts";
import { ProjectionReader } from "../projection/reader.ts";
import type { SqliteDatabase } from "../projection/sqlite.ts";
import { isProjectionDamage } from "../projection/sqlite-error.ts";
import { ProjectionWriter, type StatementRequest, type StatementResult } from "../projection/writer.ts";
import type { QuotaGate } from "../quota/quota-gate.ts";
import type { TenantQuota } from "../tenant/tenant-config.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import { CommitPipeline } from "./commit-pipeline.ts";
import type { PendingBytes } from "./pending-bytes.ts";
import { findBase } from "./projection-base.ts";
import { type Recovered, type RecoveryParts, recover, removeProjections } from "./recovery.ts";
import { removeProjectionInForce } from "./reencryption-mark.ts";
import { replayInto } from "./replay-into.ts";
import type { SettleSweep } from "./settle-sweep.ts";
import { SlowReads } from "./slow-reads.ts";
import { TimeTravel } from "./time-travel.ts";

const CHECKPOINT_LOOK_COMMITS = 64;
/** Snapshots that one tenant may hold, each of which takes a lane; and those that may wait for it. */
const MAX_HELD_SNAPSHOTS = 4;
const MAX_SNAPSHOTS = 200;
const CHECKPOINT_WAL_BYTES = 4 * 1024 * 1024;

export interface EngineOptions extends RecoveryParts {
  readonly clock: Clock;
  readonly journal: Journal;
  readonly gate: QuotaGate;
  readonly dekRotateAfterBlocks: number;
  /** Told before the tenant's first block, once in its life. */
  readonly onFirstWrite: () => Promise<void>;
  readonly onBroken: (error: unknown) => void;
  readonly sweep: SettleSweep;
  readonly pending: PendingBytes;
}

/** A projection as it was after `size` records. */
export interface ProjectionSnapshot {
  readonly db: SqliteDatabase;
  readonly guard: Guard;
  readonly size: bigint;
  close(): void;
}

export class TenantEngine {
  readonly tenant: TenantId;
  readonly log: TenantLog;
  readonly pipeline: CommitPipeline;
  readonly keys: TenantKeys;
  readonly replayedChanges: number;
  readonly projectionPath: string;
  readonly #options: EngineOptions;
  readonly #projectionKey: Buffer;
  readonly #writer: ProjectionWriter;
  #reader: ProjectionReader | undefined;
  #readerGeneration = 0;
  readonly timeTravel: TimeTravel;
  readonly slowReads: SlowReads;
  readonly #watchers: Set<() => void> = new Set();
  #firstOffset: bigint | undefined;
  #snapshots = 0;
  readonly #snapshotTurns: (() => void)[] = [];
  #closing = false;
  #commits = 0;
  #checkpointDone = false;
  #checkpointing: Promise<void> | undefined;

  private constructor(options: EngineOptions, recovered: Recovered) {
    this.tenant = options.tenant;
    this.#options = options;
    this.keys = options.keys;
    this.log = recovered.log;
    this.replayedChanges = recovered.replayedChanges;
    this.projectionPath = recovered.path;
    this.#projectionKey = recovered.key;
    this.#writer = openWriter(recovered, options.limits);
    this.pipeline = this.#makePipeline(recovered.blocksSealed);
    this.timeTravel = new TimeTravel(this, options);
    this.slowReads = new SlowReads(options.lanes, options.limits);
  }

  /** @throws `log_damaged`, `keys_missing`, `format_too_new`, `disk_full`, `disk_failed`, `runtime_unsupported` */
  static async open(options: EngineOptions): Promise<TenantEngine> {
    const { disk, root, tenant, journal } = options;
    await journal.settle(tenant);
    disk.makeFolder(logFolder(root, tenant));
    let engine: TenantEngine;
    try {
      engine = new TenantEngine(options, await recover(options));
    } catch (error) {
      if (!isProjectionDamage(error)) throw error;
      removeProjectionInForce(options, options.keys);
      engine = new TenantEngine(options, await recover(options));
    }
    if (!(await engine.#destroyErased())) return engine;
    // It was built with rows of a subject whose key is only gone now.
    engine.#closeFiles();
    removeProjections(disk, root, tenant);
    return new TenantEngine(options, await recover(options));
  }

  /**
   * Destroys keys of subjects that the log says were erased: a crash came before, or the key store is an earlier one.
   *
   * @returns true if there was one
   */
  async #destroyErased(): Promise<boolean> {
    if (!this.keys.hasSubjects) return false;
    let destroyed = false;
    try {
      for (const { subject } of this.#writer.bookkeeping.erasedSubjects())
        if (await this.keys.subjects.destroy(subject)) destroyed = true;
    } catch (error) {
      this.#closeFiles();
      throw error;
    }
    return destroyed;
  }

  #closeFiles(): void {
    this.#writer.close();
    this.log.close();
  }

  /** True while something would be lost or broken by closing. */
  get busy(): boolean {
    return this.pipeline.busy || this.slowReads.busy || this.#snapshots > 0 || this.#watchers.size > 0;
  }

  /** First record that there is: those before were trimmed. */
  get firstOffset(): bigint {
    const { disk, root } = this.#options;
    this.#firstOffset ??= findBase({ disk, root, tenant: this.tenant })?.size ?? 0n;
    return this.#firstOffset;
  }

  get projectionBytes(): number {
    return this.#writer.pageCount() * this.#writer.pageSize();
  }

  /**
   * Reads a snapshot of what is committed, on this thread; a statement that takes longer than a moment is stopped and
   * run again in a lane, and the next time goes there at once.
   */
  query(request: StatementRequest): StatementResult | Promise<StatementResult> {
    if (!this.pipeline.readyToRead()) return this.pipeline.settled().then(() => this.query(request));
    return this.slowReads.run(request, {
      inline: (bounded) => this.reader().query(bounded),
      target: () => this.laneTarget(this.projectionPath),
    });
  }

  /** Holds a snapshot of what is committed in a lane while `work` reads it by `step`; a few at a time. */
  async holdSnapshot<T>(work: (lease: Lease) => Promise<T>): Promise<T> {
    await this.pipeline.settled();
    if (this.#snapshots >= MAX_SNAPSHOTS) {
      throw kimberliteError("overloaded", "too many transactions of the tenant read at once", {
        detail: { sqlite: "SQLITE_BUSY", limit: MAX_SNAPSHOTS },
        retryAfterMs: 100,
      });
    }
    this.#snapshots += 1;
    try {
      // Its turn is given to it by the one that ends.
      if (this.#snapshots > MAX_HELD_SNAPSHOTS)
        await new Promise<void>((resolve) => this.#snapshotTurns.push(resolve));
      const target = this.laneTarget(this.projectionPath);
      return await this.#options.lanes.lease(
        target.path,
        async (lease) => {
          await lease.beginRead(target);
          try {
            return await work(lease);
          } finally {
            await lease.endRead();
          }
        },
        "snapshot",
      );
    } finally {
      this.#snapshots -= 1;
      this.#snapshotTurns.shift()?.();
    }
  }

  /** What a lane needs to open a projection file of this tenant; the key in it is a copy. */
  laneTarget(path: string): LaneTarget {
    return { path, key: Uint8Array.from(this.#projectionKey), limits: this.#options.limits };
  }

  /** The reader, when everything acknowledged so far is in its snapshots. */
  async settledReader(): Promise<ProjectionReader> {
    await this.pipeline.settled();
    return this.reader();
  }

  reader(): ProjectionReader {
    const generation = this.#writer.schemaGeneration;
    if (this.#reader === undefined) {
      const { limits } = this.#options;
      const connection = openConnection({
        path: this.projectionPath,
        key: this.#projectionKey,
        role: "read",
        limits,
        inline: true,
      });
      this.#reader = new ProjectionReader(connection, limits);
    } else if (generation !== this.#readerGeneration) this.#reader.forgetStatements();
    this.#readerGeneration = generation;
    return this.#reader;
  }

  /**
   * A read-only connection that stays at what is committed now. While it is open the write-ahead log only grows, and the
   * tenant's SQL has no part in it: it is for reading whole tables, row by row.
   */
  async snapshot(): Promise<ProjectionSnapshot> {
    await this.pipeline.settled();
    this.requireOpen();
    const { limits } = this.#options;
    const { db, guard } = openConnection({
      path: this.projectionPath,
      key: this.#projectionKey,
      role: "read",
      limits,
    });
    try {
      db.exec("BEGIN");
      const size = new Bookkeeping(db).readMeta().nextOffset;
      return { db, guard, size, close: () => void db.close() };
    } catch (error) {
      db.close();
      throw error;
    }
  }

  /** Calls back after every commit until the returned function is called; keeps the tenant open meanwhile. */
  watch(onCommit: () => void): () => void {
    this.#watchers.add(onCommit);
    return () => this.#watchers.delete(onCommit);
  }

  setQuota(quota: TenantQuota): void {
    this.#options.gate.change(quota);
  }

  /**
   * Asked before each step of work that goes on over several turns, for its engine may be closed in between.
   *
   * @throws `overloaded`
   */
  requireOpen(): void {
    if (!this.#closing) return;
    throw kimberliteError("overloaded", "the tenant is being reopened; go on where you are", {
      detail: { tenant: this.tenant },
      retryAfterMs: 50,
    });
  }

  async close(): Promise<void> {
    this.#closing = true;
    const readsEnded = this.slowReads.close();
    await this.pipeline.drain();
    this.pipeline.stop(kimberliteError("closed", "the tenant is closed"));
    for (const wake of [...this.#watchers]) wake();
    this.#watchers.clear();
    await readsEnded;
    await this.#checkpointing;
    await this.timeTravel.close();
    await this.#options.lanes.forget(this.projectionPath);
    this.#reader?.close();
    this.#closeFiles();
    this.keys.close();
  }

  #makePipeline(blocksSealed: number): CommitPipeline {
    const options = this.#options;
    return new CommitPipeline({
      ...options,
      log: this.log,
      writer: this.#writer,
      pageSize: this.#writer.pageSize(),
      blocksSealed,
      laneTarget: () => this.laneTarget(this.projectionPath),
      projectionPath: this.projectionPath,
      beforeFirstBlock: () => this.#makeFoldersDurable(),
      onCommit: () => {
        for (const wake of [...this.#watchers]) wake();
      },
      onSettled: () => this.#afterCommit(),
      catchUp: () => this.#catchUp(),
    });
  }

  /**
   * The bulk of a checkpoint is done in a lane. While the tenant is written without a pause that never reaches the end
   * of the write-ahead log; the few pages that came since are moved here, between two commits, so that it begins anew.
   */
  #afterCommit(): void {
    this.#commits += 1;
    if (this.#checkpointDone) {
      this.#checkpointDone = false;
      this.#finishCheckpoint();
    } else if (this.#commits % CHECKPOINT_LOOK_COMMITS === 0) this.#checkpointWhenDue();
  }

  #finishCheckpoint(): void {
    try {
      this.#writer.checkpoint();
    } catch (error) {
      // Nothing of the commit depends on it; while the disk refuses, the write-ahead log grows and it is tried again.
      if (!(error instanceof KimberliteError)) throw error;
    }
  }

  /** Checkpoints sync twice, which takes milliseconds: in a lane, where nobody waits for them. */
  #checkpointWhenDue(): void {
    if (this.#checkpointing !== undefined || walBytes(this.projectionPath) < CHECKPOINT_WAL_BYTES) return;
    const target = this.laneTarget(this.projectionPath);
    const done = this.#options.lanes.lease(target.path, (lease) => lease.checkpoint(target));
    // One that fails is tried again when next looked at; meanwhile the write-ahead log grows.
    this.#checkpointing = done
      .catch(() => undefined)
      .finally(() => {
        this.#checkpointing = undefined;
        this.#checkpointDone = true;
      });
  }

  async #catchUp(): Promise<void> {
    const { log, projectionPath: path } = this;
    // To the end, whatever comes in between: those who wait for it have acknowledged commits in it.
    const parts = { ...this.#options, requireGoingOn: undefined };
    await replayInto(parts, { log, path, key: this.#projectionKey, untilOffset: log.nextOffset });
  }

  async #makeFoldersDurable(): Promise<void> {
    const { disk, root, tenant, onFirstWrite } = this.#options;
    const folder = logFolder(root, tenant);
    await this.log.makeFirstSegment();
    for (const path of [join(folder, ".."), join(folder, "..", "..")]) disk.syncFolder(path);
    await onFirstWrite();
  }
}

function openWriter(recovered: Recovered, limits: StatementLimits): ProjectionWriter {
  const connection =
    recovered.connection ?? openConnection({ ...recovered, role: "write", limits, inline: true });
  try {
    deferCheckpoints(connection);
    return new ProjectionWriter(connection, limits);
  } catch (error) {
    connection.db.close();
    throw error;
  }
}
