/**
 * Reads that must not hold up the main thread: every read starts there, under a deadline of milliseconds; one that
 * does not make it is run again in a lane under its full limit, and its text is remembered as slow.
 *
 * Kept: a tenant has one slow read at a time, so that it cannot take every lane; the others wait, as many as are bounded.
 */
import { LRUCache } from "lru-cache";
import { KimberliteError, kimberliteError } from "../errors.ts";
import { INLINE_VALUE_BYTES, type StatementLimits } from "../projection/connection.ts";
import type { LaneTarget } from "../projection/lane-protocol.ts";
import type { Lanes } from "../projection/lanes.ts";
import type { SqlParams } from "../projection/values.ts";
import type { StatementRequest, StatementResult } from "../projection/writer.ts";

/**
 * True for the failure of a statement on the main thread that a lane may do better: out of its moment there, or with a
 * value that is too large for there and not too large at all.
 */
export function belongsInLane(error: unknown, request: StatementRequest, limits: StatementLimits): boolean {
  if (!(error instanceof KimberliteError)) return false;
  if (error.code === "statement_timeout") return true;
  if (error.code !== "value_too_large" || limits.maxValueBytes <= INLINE_VALUE_BYTES) return false;
  if (request.sql.length > limits.maxSqlBytes) return false;
  return !holdsMore(request.exact ?? request.params, limits.maxValueBytes);
}

/** Whether a parameter is larger than any thread takes: it is not carried to another to be refused there. */
function holdsMore(params: SqlParams | undefined, bytes: number): boolean {
  const values: readonly unknown[] = params === undefined ? [] : Object.values(params);
  return values.some((value) => {
    if (typeof value === "string") return value.length > bytes;
    return ArrayBuffer.isView(value) && value.byteLength > bytes;
  });
}

/** How long a read may hold the main thread. */
const INLINE_LIMIT_MS = 10;
const MAX_REMEMBERED = 64;
const MAX_REMEMBERED_CHARS = 256 * 1024;
/** Slow reads of a tenant that run or wait. */
const MAX_SLOW_READS = 100;
const RETRY_AFTER_MS = 100;

export interface ReadPlace {
  readonly inline: (request: StatementRequest) => StatementResult;
  readonly target: () => LaneTarget;
}

export class SlowReads {
  readonly #lanes: Lanes;
  readonly #limits: StatementLimits;
  readonly #slow: LRUCache<string, true> = new LRUCache({
    max: MAX_REMEMBERED,
    maxSize: MAX_REMEMBERED_CHARS,
    sizeCalculation: (_, sql) => sql.length + 1,
  });
  #last: Promise<unknown> = Promise.resolve();
  #running = 0;
  #closed = false;

  constructor(lanes: Lanes, limits: StatementLimits) {
    this.#lanes = lanes;
    this.#limits = limits;
  }

  /** Runs one read; a promise only if it went to a lane. @throws `overloaded` if too many are waiting for that, `closed` */
  run(request: StatementRequest, place: ReadPlace): StatementResult | Promise<StatementResult> {
    if (this.#slow.size > 0 && this.#slow.has(request.sql)) return this.#runInLane(request, place);
    const limitMs = request.timeLimitMs ?? this.#limits.timeLimitMs;
    if (limitMs <= INLINE_LIMIT_MS) return place.inline(request);
    try {
      return place.inline({ ...request, timeLimitMs: INLINE_LIMIT_MS });
    } catch (error) {
      if (!belongsInLane(error, request, this.#limits)) throw error;
      this.#slow.set(request.sql, true);
      return this.#runInLane(request, place);
    }
  }

  get busy(): boolean {
    return this.#running > 0;
  }

  /**
   * Refuses the reads that wait for a lane, each of which may take its whole time there, and resolves when the one that has
   * it ended. Idempotent.
   */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#last;
  }

  #requireOpen(): void {
    if (this.#closed) throw kimberliteError("closed", "the tenant is closed");
  }

  #runInLane(request: StatementRequest, place: ReadPlace): Promise<StatementResult> {
    this.#requireOpen();
    if (this.#running >= MAX_SLOW_READS) {
      throw kimberliteError("overloaded", "too many slow reads of the tenant are waiting", {
        retryAfterMs: RETRY_AFTER_MS,
      });
    }
    this.#running += 1;
    const run = this.#last.then(async () => {
      this.#requireOpen();
      const target = place.target();
      const startedMs = performance.now();
      const result = await this.#lanes.lease(target.path, (lease) => lease.query(target, request));
      if (performance.now() - startedMs < INLINE_LIMIT_MS / 2) this.#slow.delete(request.sql);
      return result;
    });
    this.#last = run
      .catch(() => undefined)
      .finally(() => {
        this.#running -= 1;
      });
    return run;
  }
}
