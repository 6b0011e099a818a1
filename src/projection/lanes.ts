/**
 * Lanes: a few worker threads that run what would hold up the main thread, so that one tenant's slow statement delays
 * no other tenant. A lane serves one lease at a time.
 *
 * There are lanes for work, whose end is the statement's, and lanes that are held for a client, who may take its time
 * between statements: who waits for clients never waits in front of who works. Replays, which may be long, have lanes of
 * their own, and go from lease to lease in stretches. Each kind is bounded; a tenant has at most one lease for slow reads,
 * one for its writer and a few that are held. Leases beyond the number of lanes wait, and the next lane goes to the one
 * whose tenant has the fewest.
 */
import { Worker } from "node:worker_threads";
import { kimberliteError } from "../errors.ts";
import type { ProjectionMeta } from "./bookkeeping.ts";
import {
  fromLaneError,
  type LaneCall,
  type LaneFinished,
  type LaneReply,
  type LaneTarget,
  type SessionStep,
  type SharedStep,
  type StepOutcome,
  type SubjectErased,
} from "./lane-protocol.ts";
import type { ReplayEnd } from "./replay.ts";
import { packed, type ReplayPortion } from "./replay-portion.ts";
import type { SharedView } from "./shared-table.ts";
import type { StatementDescription } from "./statement-cache.ts";
import type { StatementRequest, StatementResult } from "./writer.ts";

const WORKER_URL: URL = new URL(
  `./lane-worker${import.meta.url.endsWith(".ts") ? ".ts" : ".js"}`,
  import.meta.url,
);
/** What a lane is for: a statement's time, a client's who holds a transaction, or reads a snapshot, or a replay's. */
export type LaneUse = "work" | "hold" | "snapshot" | "replay";

const MAX_LANES: Readonly<Record<LaneUse, number>> = { work: 6, hold: 16, snapshot: 8, replay: 2 };
/** A lane that is not for work, and nobody's this long, ends: it takes some 20 MB. */
const IDLE_MS = 30_000;

/** A lane that is somebody's until it is given back. */
export interface Lease {
  query(target: LaneTarget, request: StatementRequest): Promise<StatementResult>;
  /** Runs a statement of a reader to whom a table of the target's is shared. */
  shared(
    target: LaneTarget,
    view: SharedView,
    step: SharedStep,
  ): Promise<StatementResult | StatementDescription>;
  begin(target: LaneTarget, options?: { readonly foreignKeys?: boolean }): Promise<void>;
  step(step: SessionStep): Promise<StepOutcome>;
  /** Begins a snapshot that \`query\` and \`step\` read until \`endRead\`. */
  beginRead(target: LaneTarget): Promise<void>;
  endRead(): Promise<void>;
  run(requests: readonly StatementRequest[]): Promise<StatementResult[]>;
  eraseSubject(erased: SubjectErased, logOffset: bigint): Promise<void>;
  finish(): Promise<LaneFinished>;
  commit(meta: Omit<ProjectionMeta, "nextStream">): Promise<void>;
  rollback(): Promise<void>;
  checkpoint(target: LaneTarget): Promise<void>;
  /** Begins a transaction that applies records of the log to the file. @returns what the file says of itself */
  replayBegin(target: LaneTarget): Promise<ProjectionMeta>;
  /** @returns row and schema changes that were applied since the transaction began */
  replay(portions: readonly ReplayPortion[]): Promise<number>;
  /** Commits, and makes the indexes that want it; closes the file. */
  replayCommit(end: ReplayEnd): Promise<void>;
  /** Closes the file, without what was not committed; harmless after that. */
  replayDrop(): Promise<void>;
}

interface Lane {
  readonly worker: Worker;
  readonly use: LaneUse;
  readonly pending: Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>;
  /** Path of the projection whose connections it may hold. */
  path: string | undefined;
  busy: boolean;
  /** Ends it when it was idle too long. */
  idle: NodeJS.Timeout | undefined;
  dead: boolean;
  /** No longer one of the lanes: ends with its lease. */
  retired: boolean;
  readonly ended: PromiseWithResolvers<void>;
  nextId: number;
}

interface Waiting {
  readonly path: string;
  readonly use: LaneUse;
  readonly take: (lane: Lane) => void;
  readonly refuse: (error: Error) => void;
}

export class Lanes {
  readonly #max: Readonly<Record<LaneUse, number>>;
  readonly #lanes: Set<Lane> = new Set();
  #waiting: Waiting[] = [];
  #closed = false;

  constructor(max: Partial<Record<LaneUse, number>> = {}) {
    this.#max = { ...MAX_LANES, ...max };
  }

  /** Runs work with a lane of its own; waits if all are taken. A lane that last served the same file is preferred. */
  async lease<T>(path: string, work: (lease: Lease) => Promise<T>, use: LaneUse = "work"): Promise<T> {
    if (this.#closed) throw kimberliteError("closed", "the database is closed");
    const lane =
      this.#takeFree(path, use) ??
      (await new Promise<Lane>((take, refuse) => this.#waiting.push({ path, use, take, refuse })));
    lane.path = path;
    try {
      return await work(leaseOf(lane));
    } finally {
      this.#giveBack(lane);
    }
  }

  /** Whether somebody waits for a lane of that use. */
  isAwaited(use: LaneUse): boolean {
    return this.#waiting.some((waiting) => waiting.use === use);
  }

  /** Closes the connections that lanes hold to a file: before it is removed, or its tenant closed. */
  async forget(path: string): Promise<void> {
    for (const lane of this.#lanes) {
      if (lane.path !== path) continue;
      lane.worker.ref();
      await call(lane, { kind: "forget", path }).catch(() => undefined);
      if (lane.busy) continue;
      lane.worker.unref();
      lane.path = undefined;
    }
  }

  /** Ends every lane that there is now, each when its lease is over; later leases get new ones. */
  async retireAll(): Promise<void> {
    const retired = [...this.#lanes];
    this.#lanes.clear();
    await Promise.all(
      retired.map((lane) => {
        lane.retired = true;
        return lane.busy ? lane.ended.promise : lane.worker.terminate();
      }),
    );
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const { refuse } of this.#waiting.splice(0))
      refuse(kimberliteError("closed", "the database is closed"));
    await Promise.all([...this.#lanes].map((lane) => lane.worker.terminate()));
    this.#lanes.clear();
  }

  #takeFree(path: string, use: LaneUse): Lane | undefined {
    const free = [...this.#lanes].filter((lane) => lane.use === use && !lane.busy);
    const lane = free.find((candidate) => candidate.path === path) ?? free[0] ?? this.#spawn(use);
    if (lane !== undefined) {
      clearTimeout(lane.idle);
      lane.busy = true;
      lane.worker.ref();
    }
    return lane;
  }

  #giveBack(lane: Lane): void {
    const next = this.#lanes.has(lane) ? this.#takeWaiting(lane) : undefined;
    if (next !== undefined) return next.take(lane);
    lane.busy = false;
    lane.worker.unref();
    if (lane.use !== "work") lane.idle = setTimeout(() => this.#endIdle(lane), IDLE_MS).unref();
    if (lane.retired) void lane.worker.terminate();
    if (!this.#lanes.has(lane)) this.#serveWaiting(lane.use);
  }

  /** Of those that wait for such a lane, the first of those whose file has the fewest. */
  #takeWaiting(given: Pick<Lane, "use"> & Partial<Lane>): Waiting | undefined {
    const held = new Map<string | undefined, number>();
    for (const lane of this.#lanes) {
      if (lane.use !== given.use || !lane.busy || lane === given) continue;
      held.set(lane.path, (held.get(lane.path) ?? 0) + 1);
    }
    let found: { readonly at: number; readonly count: number } | undefined;
    for (const [at, { path, use }] of this.#waiting.entries()) {
      const count = held.get(path) ?? 0;
      if (use === given.use && count < (found?.count ?? Number.POSITIVE_INFINITY)) found = { at, count };
      if (found?.count === 0) break;
    }
    return found === undefined ? undefined : this.#waiting.splice(found.at, 1)[0];
  }

  #endIdle(lane: Lane): void {
    if (lane.busy || !this.#lanes.delete(lane)) return;
    void lane.worker.terminate();
  }

  /** After a lane died: a new one takes its place for whoever waits. */
  #serveWaiting(use: LaneUse): void {
    const next = this.#takeWaiting({ use });
    if (next === undefined) return;
    const lane = this.#takeFree(next.path, use);
    if (lane === undefined) this.#waiting.unshift(next);
    else next.take(lane);
  }

  #spawn(use: LaneUse): Lane | undefined {
    const count = [...this.#lanes].filter((lane) => lane.use === use).length;
    if (count >= this.#max[use]) return undefined;
    const worker = new Worker(WORKER_URL);
    const lane: Lane = {
      worker,
      use,
      idle: undefined,
      pending: new Map(),
      path: undefined,
      busy: false,
      dead: false,
      retired: false,
      ended: Promise.withResolvers<void>(),
      nextId: 1,
    };
    worker.on("message", (reply: LaneReply) => settle(lane, reply));
    const died = (cause: unknown): void => {
      this.#lanes.delete(lane);
      lane.dead = true;
      lane.ended.resolve();
      for (const { reject } of lane.pending.values()) {
        reject(kimberliteError("overloaded", "the thread of a slow statement ended", { cause }));
      }
      lane.pending.clear();
    };
    worker.on("error", died);
    worker.on("exit", died);
    this.#lanes.add(lane);
    return lane;
  }
}

function settle(lane: Lane, reply: LaneReply): void {
  const waiting = lane.pending.get(reply.id);
  lane.pending.delete(reply.id);
  if ("error" in reply) waiting?.reject(fromLaneError(reply.error));
  else waiting?.resolve(reply.value);
}

function call<T>(lane: Lane, message: LaneCall, memory: readonly ArrayBuffer[] = []): Promise<T> {
  return new Promise((resolve, reject) => {
    if (lane.dead) return reject(kimberliteError("overloaded", "the thread of a slow statement has ended"));
    const id = lane.nextId;
    lane.nextId += 1;
    lane.pending.set(id, { resolve: resolve as (value: unknown) => void, reject });
    // The key moves to the lane, which zeroes it: no copy stays behind on this thread.
    const key = "target" in message ? [message.target.key.buffer as ArrayBuffer] : [];
    lane.worker.postMessage({ id, call: message }, [...key, ...memory]);
  });
}

function leaseOf(lane: Lane): Lease {
  return {
    query: (target, request) => call(lane, { kind: "query", target, request }),
    shared: (target, view, step) => call(lane, { kind: "shared", target, view, step }),
    begin: (target, options) =>
      call(lane, { kind: "begin", target, foreignKeys: options?.foreignKeys ?? true }),
    step: (step) => call(lane, { kind: "step", step }),
    beginRead: (target) => call(lane, { kind: "begin-read", target }),
    endRead: () => call(lane, { kind: "end-read" }),
    run: (requests) => call(lane, { kind: "run", requests }),
    eraseSubject: (erased, logOffset) => call(lane, { kind: "erase-subject", erased, logOffset }),
    finish: () => call(lane, { kind: "finish" }),
    commit: (meta) => call(lane, { kind: "commit", meta }),
    rollback: () => call(lane, { kind: "rollback" }),
    checkpoint: (target) => call(lane, { kind: "checkpoint", target }),
    replayBegin: async (target) => {
      const meta = await call<ProjectionMeta>(lane, { kind: "replay-begin", target });
      return { ...meta, hash: Buffer.from(meta.hash) };
    },
    replay: (given) => {
      const { portions, memory } = packed(given);
      return call(lane, { kind: "replay", portions }, memory);
    },
    replayCommit: (end) => call(lane, { kind: "replay-commit", end }),
    replayDrop: () => call(lane, { kind: "replay-drop" }),
  };
}
