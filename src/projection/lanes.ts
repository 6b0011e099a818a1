/**
 * Lanes: a few worker threads that run what would hold up the main thread, so that one tenant's slow statement delays
 * no other tenant. A lane serves one lease at a time; a tenant has at most one lease for reads and one for its writer;
 * leases beyond the number of lanes wait their turn.
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
import type { SharedView } from "./shared-table.ts";
import type { StatementDescription } from "./statement-cache.ts";
import type { StatementRequest, StatementResult } from "./writer.ts";

const WORKER_URL: URL = new URL(
  `./lane-worker${import.meta.url.endsWith(".ts") ? ".ts" : ".js"}`,
  import.meta.url,
);
const DEFAULT_MAX_LANES = 6;

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
}

interface Lane {
  readonly worker: Worker;
  readonly pending: Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>;
  /** Path of the projection whose connections it may hold. */
  path: string | undefined;
  busy: boolean;
  dead: boolean;
  /** No longer one of the lanes: ends with its lease. */
  retired: boolean;
  readonly ended: PromiseWithResolvers<void>;
  nextId: number;
}

interface Waiting {
  readonly path: string;
  readonly take: (lane: Lane) => void;
  readonly refuse: (error: Error) => void;
}

export class Lanes {
  readonly #maxLanes: number;
  readonly #lanes: Set<Lane> = new Set();
  #waiting: Waiting[] = [];
  #closed = false;

  constructor(maxLanes: number = DEFAULT_MAX_LANES) {
    this.#maxLanes = maxLanes;
  }

  /** Runs work with a lane of its own; waits if all are taken. A lane that last served the same file is preferred. */
  async lease<T>(path: string, work: (lease: Lease) => Promise<T>): Promise<T> {
    if (this.#closed) throw kimberliteError("closed", "the database is closed");
    const lane =
      this.#takeFree(path) ??
      (await new Promise<Lane>((take, refuse) => this.#waiting.push({ path, take, refuse })));
    lane.path = path;
    try {
      return await work(leaseOf(lane));
    } finally {
      this.#giveBack(lane);
    }
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

  #takeFree(path: string): Lane | undefined {
    const free = [...this.#lanes].filter((lane) => !lane.busy);
    const lane = free.find((candidate) => candidate.path === path) ?? free[0] ?? this.#spawn();
    if (lane !== undefined) {
      lane.busy = true;
      lane.worker.ref();
    }
    return lane;
  }

  #giveBack(lane: Lane): void {
    const next = this.#lanes.has(lane) ? this.#waiting.shift() : undefined;
    if (next !== undefined) return next.take(lane);
    lane.busy = false;
    lane.worker.unref();
    if (lane.retired) void lane.worker.terminate();
    if (!this.#lanes.has(lane)) this.#serveWaiting();
  }

  /** After a lane died: a new one takes its place for whoever waits. */
  #serveWaiting(): void {
    const next = this.#waiting[0];
    const lane = next === undefined ? undefined : this.#takeFree(next.path);
    if (next === undefined || lane === undefined) return;
    this.#waiting.shift();
    next.take(lane);
  }

  #spawn(): Lane | undefined {
    if (this.#lanes.size >= this.#maxLanes) return undefined;
    const worker = new Worker(WORKER_URL);
    const lane: Lane = {
      worker,
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

function call<T>(lane: Lane, message: LaneCall): Promise<T> {
  return new Promise((resolve, reject) => {
    if (lane.dead) return reject(kimberliteError("overloaded", "the thread of a slow statement has ended"));
    const id = lane.nextId;
    lane.nextId += 1;
    lane.pending.set(id, { resolve: resolve as (value: unknown) => void, reject });
    // The key moves to the lane, which zeroes it: no copy stays behind on this thread.
    const moved = "target" in message ? [message.target.key.buffer as ArrayBuffer] : [];
    lane.worker.postMessage({ id, call: message }, moved);
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
  };
}
