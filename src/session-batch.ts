/**
 * Batches that are one transaction, from BEGIN to COMMIT, known before they begin: they run as one caller of the commit
 * pipeline, in one turn, and share its group commit. What takes longer than a moment, or does not end as a transaction
 * does, is undone and runs step by step instead.
 *
 * Kept: nothing of an attempt stays that is given up; a batch whose commit fails is told so by its COMMIT.
 */
import { KimberliteError, kimberliteError } from "./errors.ts";
import { INLINE_LIMIT_MS } from "./pipeline/commit-pipeline.ts";
import { requestBytes } from "./pipeline/pending-bytes.ts";
import type { SessionControl } from "./projection/sql-text.ts";
import { resultBytes } from "./projection/values.ts";
import type { StatementRequest, StatementResult, WriteSession } from "./projection/writer.ts";
import {
  type BatchOutcome,
  type BatchStep,
  NOTHING,
  noTransaction,
  type SessionPorts,
  type SessionResult,
  type SessionStatement,
  toResult,
} from "./sql-session.ts";

/** A step, and what it is if it is no statement on the data. */
export interface PlannedStep extends BatchStep {
  readonly control: SessionControl | undefined;
}

type ToRequest = (statement: SessionStatement, maxResultBytes: number) => StatementRequest;

/** Thrown out of an attempt to undo it. */
class Undone extends Error {
  readonly outcomes: readonly BatchOutcome[] | undefined;

  constructor(outcomes: readonly BatchOutcome[] | undefined) {
    super("undone");
    this.outcomes = outcomes;
  }
}

/** @returns undefined if the batch must run step by step */
export async function runAsOneJob(
  ports: SessionPorts,
  steps: readonly PlannedStep[],
  toRequest: ToRequest,
): Promise<readonly BatchOutcome[] | undefined> {
  if (!isOneTransaction(steps)) return undefined;
  const { context, operate } = ports;
  let attempt: Attempt | undefined;
  const work = (session: WriteSession): readonly BatchOutcome[] => {
    attempt = new Attempt(ports, toRequest, (request) => session.run(request));
    return attempt.all(steps, () => session.open);
  };
  const bytes = steps.reduce((sum, { statement }) => sum + requestBytes(toRequest(statement, 0)), 0);
  try {
    const { value, offset } = await operate((engine) => engine.pipeline.submit(context, work, bytes));
    return withOffset(value, steps, offset);
  } catch (error) {
    if (error instanceof Undone) return error.outcomes;
    if (attempt?.committed !== true) throw error;
    return attempt.commitFailed(error as Error);
  }
}

/** The COMMIT that ran tells the offset. */
function withOffset(
  outcomes: readonly BatchOutcome[],
  steps: readonly PlannedStep[],
  offset: bigint | undefined,
): readonly BatchOutcome[] {
  return outcomes.map((outcome, index) =>
    steps[index]?.control?.kind === "commit" && outcome !== undefined && "result" in outcome
      ? { result: { ...outcome.result, offset } }
      : outcome,
  );
}

/** The reads of a batch, of one snapshot. @returns undefined if the batch must run step by step */
export async function runAsOneRead(
  ports: SessionPorts,
  steps: readonly PlannedStep[],
  toRequest: ToRequest,
): Promise<readonly BatchOutcome[] | undefined> {
  if (!isOneTransaction(steps)) return undefined;
  try {
    return await ports.operate(async (engine) => {
      const reader = await engine.settledReader();
      return reader.together(() =>
        new Attempt(ports, toRequest, (request) => reader.query(request)).all(steps, () => true),
      );
    });
  } catch (error) {
    if (error instanceof Undone) return error.outcomes;
    throw error;
  }
}

function isOneTransaction(steps: readonly PlannedStep[]): boolean {
  const [first, ...rest] = steps;
  if (first?.control?.kind !== "begin" || first.when !== undefined) return false;
  const kinds = rest.map((step) => step.control?.kind);
  return (
    kinds.includes("commit") &&
    kinds.every((kind) => kind === undefined || kind === "commit" || kind === "rollback")
  );
}

/** One attempt to run all steps in one turn. */
class Attempt {
  readonly #ports: SessionPorts;
  readonly #toRequest: ToRequest;
  readonly #execute: (request: StatementRequest) => StatementResult;
  readonly #startedMs: number = performance.now();
  readonly #outcomes: BatchOutcome[] = [];
  #steps: readonly PlannedStep[] = [];
  #state: "open" | "committed" | "rolled back" = "open";
  #leftBytes: number;
  #statements = 0;

  constructor(
    ports: SessionPorts,
    toRequest: ToRequest,
    execute: (request: StatementRequest) => StatementResult,
  ) {
    this.#ports = ports;
    this.#toRequest = toRequest;
    this.#execute = execute;
    this.#leftBytes = ports.maxResultBytes;
  }

  get committed(): boolean {
    return this.#state === "committed";
  }

  /** @param isOpen whether SQLite still has the transaction */
  all(steps: readonly PlannedStep[], isOpen: () => boolean): readonly BatchOutcome[] {
    this.#steps = steps;
    for (const step of steps) {
      this.#one(step);
      if (this.#state === "open" && !isOpen()) this.#state = "rolled back";
    }
    if (this.#state === "committed") return this.#outcomes;
    throw new Undone(this.#state === "open" ? undefined : this.#outcomes);
  }

  /** What the batch comes to when its changes could not be kept. */
  commitFailed(error: Error): readonly BatchOutcome[] {
    const at = this.#outcomes.findIndex(
      (outcome, index) => this.#steps[index]?.control?.kind === "commit" && outcome !== undefined,
    );
    this.#outcomes.length = at;
    this.#outcomes.push({ error });
    this.#state = "open";
    for (const step of this.#steps.slice(at + 1)) this.#one(step);
    return this.#outcomes;
  }

  #one({ when, control, statement, refused }: PlannedStep): void {
    const autocommit = this.#outcomes.length === 0 || this.#state !== "open";
    if (when?.({ outcomes: this.#outcomes, autocommit }) === false) {
      this.#outcomes.push(undefined);
      return;
    }
    try {
      if (refused !== undefined) throw refused;
      this.#ports.stands();
      this.#outcomes.push({ result: control === undefined ? this.#run(statement) : this.#control(control) });
    } catch (error) {
      if (error instanceof Undone) throw error;
      this.#outcomes.push({ error: error as Error });
    }
  }

  #control(control: SessionControl): SessionResult {
    if (control.kind === "begin") return NOTHING;
    if (this.#state !== "open") throw noTransaction(`cannot ${control.kind} - no transaction is active`);
    this.#state = control.kind === "commit" ? "committed" : "rolled back";
    return NOTHING;
  }

  #run(statement: SessionStatement): SessionResult {
    if (this.#state === "rolled back") {
      throw kimberliteError("transaction_closed", "the transaction was rolled back");
    }
    // After its COMMIT a statement is one of its own; and what takes long is not for one turn.
    if (this.#state === "committed" || performance.now() - this.#startedMs > INLINE_LIMIT_MS) {
      throw new Undone(undefined);
    }
    if (this.#statements > 0) this.#ports.charge();
    this.#statements += 1;
    try {
      const request = { ...this.#toRequest(statement, this.#leftBytes), timeLimitMs: INLINE_LIMIT_MS };
      const result = toResult(this.#execute(request));
      this.#leftBytes -= resultBytes(result.rows);
      return result;
    } catch (error) {
      if (isForLane(error) || (this.#ports.inPages === true && isTooLarge(error)))
        throw new Undone(undefined);
      throw error;
    }
  }
}

export function isTooLarge(error: unknown): boolean {
  return error instanceof KimberliteError && error.code === "result_too_large";
}

/** Out of its moment, or a value too large for this thread: a lane may do it. */
function isForLane(error: unknown): boolean {
  if (!(error instanceof KimberliteError)) return false;
  return error.code === "statement_timeout" || error.code === "value_too_large";
}
