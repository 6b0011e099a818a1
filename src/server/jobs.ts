/**
 * Work that takes long, from its beginning to an hour after its end: how far it is, and what came of it. Whoever asked for it
 * waits for the answer, or asks not to (`Prefer: respond-async`, RFC 7240 §4.1) and looks here.
 *
 * Kept: a job is shown to those alone who may ask for it themselves; to anybody else there is none. What is kept is in
 * memory and bounded, for each tenant apart. A restart forgets it: such work goes on where it was when it is asked for again,
 * and the audit stream has how it ended.
 */
import { LRUCache } from "lru-cache";
import type { TSchema } from "typebox";
import { Clean } from "typebox/value";
import { type Action, isAuthorized } from "../auth/authorize.ts";
import type { Principal } from "../auth/principal.ts";
import { assert, kimberliteError } from "../errors.ts";
import type { Clock } from "../host/clock.ts";
import type { Randomness } from "../host/randomness.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import type { AdminGate } from "./admin-gate.ts";
import { type JsonValue, toJsonValue } from "./json-value.ts";
import { type Problem, toProblem } from "./problem.ts";
import type { Progress } from "./progress.ts";

const KEEP_MS = 60 * 60 * 1_000;
const MAX_TARGETS = 1_000;
const MAX_ENDED_PER_TARGET = 100;
const ID_BYTES = 16;

/** A job as it is shown. */
export interface Job {
  readonly id: string;
  /** Name of the operation. */
  readonly operation: string;
  readonly actor: string;
  readonly state: "running" | "done" | "failed";
  readonly beganAtUs: bigint;
  readonly endedAtUs?: bigint;
  readonly progress?: Progress;
  /** Of one that is done: what the operation answers. */
  readonly answer?: JsonValue;
  /** Of one that failed. */
  readonly problem?: Problem;
}

/** What a job needs to know of its operation. */
export interface LastingOperation {
  readonly id: string;
  readonly action: Action | "authenticated" | "public";
  readonly answer: TSchema;
}

interface Entry {
  readonly operation: LastingOperation;
  readonly target: TenantId | undefined;
  job: Job;
}

interface JobsParts {
  readonly clock: Clock;
  readonly randomness: Randomness;
  /** Bounds what one tenant's principals have under way. */
  readonly gate: AdminGate;
}

/** What is begun, on which tenant (undefined: the node), and for whom. */
export interface AskedWork {
  readonly operation: LastingOperation;
  readonly target: TenantId | undefined;
  readonly principal: Principal;
  readonly requestId: string;
}

export class Jobs {
  readonly #parts: JobsParts;
  readonly #running = new Map<Entry, Promise<unknown>>();
  readonly #ended = new LRUCache<string, LRUCache<string, Entry>>({ max: MAX_TARGETS });
  readonly #entries = new WeakMap<Promise<unknown>, Entry>();

  constructor(parts: JobsParts) {
    this.#parts = parts;
  }

  /** Does work as a job. @throws `quota_exceeded` (policy `maxConcurrentJobs`); the promise what the work throws */
  track(
    asked: AskedWork,
    work: (onProgress: (progress: Progress) => void) => Promise<unknown>,
  ): Promise<unknown> {
    const { operation, target, principal, requestId } = asked;
    const { gate, randomness } = this.#parts;
    const leave = principal.kind === "tenant" ? gate.enter(principal.tenant) : () => undefined;
    const job: Job = {
      id: randomness.bytes(ID_BYTES).toString("base64url"),
      operation: operation.id,
      actor: principal.actor,
      state: "running",
      beganAtUs: this.#nowUs(),
    };
    const entry: Entry = { operation, target, job };
    const answered = work((progress) => {
      entry.job = { ...entry.job, progress };
    });
    const ended = this.#end(entry, answered, requestId).finally(() => {
      leave();
      this.#running.delete(entry);
      this.#keep(entry);
    });
    this.#running.set(entry, ended);
    this.#entries.set(answered, entry);
    return answered;
  }

  /** Writes down how a job ended. Never rejects: an answer that is not of the operation's shape is a failed job. */
  async #end(entry: Entry, answered: Promise<unknown>, requestId: string): Promise<void> {
    try {
      const answer = Clean(entry.operation.answer, toJsonValue(await answered)) as JsonValue;
      entry.job = { ...entry.job, state: "done", endedAtUs: this.#nowUs(), answer };
    } catch (error) {
      const problem = toProblem(error, requestId).body;
      entry.job = { ...entry.job, state: "failed", endedAtUs: this.#nowUs(), problem };
    }
  }

  /** The job whose answer a promise of `track` is. */
  jobOf(answered: Promise<unknown>): Job {
    const entry = this.#entries.get(answered);
    assert(entry !== undefined, "work that takes long is a job");
    return entry.job;
  }

  /** Jobs on a tenant, or with undefined on the node, that the principal may know of; the oldest first. */
  list(principal: Principal, target: TenantId | undefined): Job[] {
    return this.#of(target)
      .filter(({ operation }) => mayKnow(principal, operation, target))
      .map(({ job }) => job)
      .toSorted((a, b) => Number(a.beganAtUs - b.beganAtUs));
  }

  /** @throws `job_not_found`, also for one that the principal may not know of */
  find(principal: Principal, target: TenantId | undefined, id: string): Job {
    const job = this.list(principal, target).find((one) => one.id === id);
    if (job !== undefined) return job;
    throw kimberliteError("job_not_found", "there is no such job, or it was forgotten");
  }

  /** Resolves when nothing runs any more. */
  async settled(): Promise<void> {
    await Promise.all(this.#running.values());
  }

  #of(target: TenantId | undefined): Entry[] {
    const running = [...this.#running.keys()].filter((entry) => entry.target === target);
    return [...(this.#ended.get(keyOf(target))?.values() ?? []), ...running];
  }

  #keep(entry: Entry): void {
    const key = keyOf(entry.target);
    let ended = this.#ended.get(key);
    if (ended === undefined) {
      const { clock } = this.#parts;
      ended = new LRUCache<string, Entry>({
        max: MAX_ENDED_PER_TARGET,
        ttl: KEEP_MS,
        perf: { now: () => clock.monotonicMs() },
      });
      this.#ended.set(key, ended);
    }
    ended.set(entry.job.id, entry);
  }

  #nowUs(): bigint {
    return this.#parts.clock.wallTimeUs();
  }
}

function mayKnow(principal: Principal, { action }: LastingOperation, target: TenantId | undefined): boolean {
  assert(action !== "public" && action !== "authenticated", "work that takes long is for those who may");
  return isAuthorized(principal, action, target);
}

function keyOf(target: TenantId | undefined): string {
  return target === undefined ? "node" : target.toString();
}
