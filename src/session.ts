/**
 * A session: one caller's sequence of statements on a tenant, as a connection to SQLite is elsewhere.
 *
 * Outside a transaction each statement is one of its own; reads go to a reader and wait for nobody. BEGIN holds the
 * tenant's writer in a lane for a bounded time; past it, or when SQLite ended the transaction, the session refuses what
 * comes until COMMIT or ROLLBACK, so that nothing runs alone that was meant to be part of a transaction.
 *
 * Kept: statements of one session run one after another; every one is admitted by the tenant's state and rate; what it may
 * do is decided by SQLite where it is compiled. A closed session has no transaction.
 */
import { KimberliteError, kimberliteError } from "./errors.ts";
import { type Held, HeldRead, HeldTransaction } from "./held-transaction.ts";
import { fromLaneError, type SessionStep, type StepValue } from "./projection/lane-protocol.ts";
import type { Page } from "./projection/paged-read.ts";
import { splitSql } from "./projection/sql-splitter.ts";
import { mayRead, parseControl, type SessionControl } from "./projection/sql-text.ts";
import type { StatementDescription } from "./projection/statement-cache.ts";
import type { StatementRequest } from "./projection/writer.ts";
import { isTooLarge, type PlannedStep, runAsOneJob, runAsOneRead } from "./session-batch.ts";
import { type PagedResult, pagesOf, runSteps } from "./session-pages.ts";
import {
  type BatchOutcome,
  type BatchPart,
  type BatchStep,
  NOTHING,
  noTransaction,
  type SessionPorts,
  type SessionResult,
  type SessionStatement,
  type SqlSession,
  toResult,
} from "./sql-session.ts";

/** A result up to this size is found at once, also where it is asked for in pages. */
const SMALL_BYTES = 256 * 1024;
const PAGE_BYTES = 128 * 1024;
/** How long a result may take to be read in pages, whatever its client does: a snapshot and a lane are held meanwhile. */
const CURSOR_MS = 30_000;

export class Session implements SqlSession {
  readonly #ports: SessionPorts;
  #held: Held | undefined;
  /** Snapshots of results that are being read in pages. */
  readonly #paged: Set<Held> = new Set();
  /** Why the transaction is gone that the caller may believe in. */
  #lost: Error | undefined;
  #foreignKeys = true;
  #closed = false;

  /** By `Kimberlite.session` alone. */
  constructor(ports: SessionPorts) {
    this.#ports = ports;
  }

  get autocommit(): boolean {
    return this.#held === undefined || this.#held.ended !== undefined;
  }

  async run(statement: SessionStatement): Promise<SessionResult> {
    return this.#run(statement, this.#ports.maxResultBytes);
  }

  async batch(steps: readonly BatchStep[]): Promise<readonly BatchOutcome[]> {
    this.#requireOpen();
    const planned = steps.map((step) => ({ ...step, control: parseControl(textOf(step.statement.sql)) }));
    return (
      (await this.#batchAtOnce(planned)) ??
      runSteps(planned, {
        autocommit: () => this.autocommit,
        maxResultBytes: this.#ports.maxResultBytes,
        run: (statement, maxResultBytes) => this.#run(statement, maxResultBytes),
      })
    );
  }

  batchPages(steps: readonly BatchStep[]): AsyncGenerator<BatchPart, void> {
    this.#requireOpen();
    const planned = steps.map((step) => ({ ...step, control: parseControl(textOf(step.statement.sql)) }));
    return pagesOf(planned, {
      autocommit: () => this.autocommit,
      atOnce: () => this.#batchAtOnce(planned, true),
      start: (statement) => this.#start(statement),
    });
  }

  async sequence(sql: string): Promise<void> {
    for (const statement of splitSql(textOf(sql))) await this.run({ sql: statement, dropRows: true });
  }

  async describe(sql: string): Promise<StatementDescription> {
    this.#requireOpen();
    this.#ports.stands();
    const control = parseControl(textOf(sql));
    if (control !== undefined) return describeControl(control);
    if (this.#held !== undefined)
      return (await this.#step({ kind: "describe", sql })) as StatementDescription;
    const { context, operate } = this.#ports;
    const read = (): Promise<StatementDescription> =>
      operate(async (engine) => (await engine.settledReader()).describe(sql));
    const write = (): Promise<StatementDescription> =>
      operate(
        async (engine) => (await engine.pipeline.submit(context, (session) => session.describe(sql))).value,
      );
    try {
      return await elseInLane(read, () => this.#describeHeld(sql, () => HeldRead.begin(this.#ports)));
    } catch (error) {
      if (!isWrite(error)) throw error;
      return elseInLane(write, () => {
        // The writer is not held for one who may not write.
        if (this.#ports.access === "read") throw error;
        return this.#describeHeld(sql, () => HeldTransaction.begin(this.#ports, true));
      });
    }
  }

  async #describeHeld(sql: string, begin: () => Promise<Held>): Promise<StatementDescription> {
    const held = await begin();
    try {
      const outcome = await held.step({ kind: "describe", sql });
      if ("error" in outcome) throw fromLaneError(outcome.error);
      return outcome.value as StatementDescription;
    } finally {
      await held.rollback();
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    const held = this.#held === undefined ? [...this.#paged] : [this.#held, ...this.#paged];
    this.#held = undefined;
    await Promise.all(held.map((each) => each.rollback()));
  }

  /** A batch that is one transaction, or one snapshot, in one turn; undefined if it is neither, or takes too long for that. */
  async #batchAtOnce(
    steps: readonly PlannedStep[],
    inPages = false,
  ): Promise<readonly BatchOutcome[] | undefined> {
    if (this.#held !== undefined || this.#lost !== undefined || !this.#foreignKeys) return undefined;
    const { access } = this.#ports;
    if (access === "read" || steps[0]?.control?.kind !== "begin") return undefined;
    const ports = inPages ? { ...this.#ports, maxResultBytes: SMALL_BYTES, inPages } : this.#ports;
    if (steps[0].control.mode === "readonly") return runAsOneRead(ports, steps, this.#requestOf);
    return runAsOneJob(ports, steps, this.#requestOf);
  }

  /** A step whose rows are read in pages if they are many; while the session holds its writer they are found at once. */
  async #start(statement: SessionStatement): Promise<PagedResult> {
    this.#requireOpen();
    this.#ports.stands();
    const control = parseControl(textOf(statement.sql));
    if (control?.kind === "begin" && (control.mode === "readonly" || this.#ports.access === "read")) {
      await this.#control(control, CURSOR_MS);
      return NOTHING;
    }
    if (control !== undefined) return this.#control(control);
    const request = this.#requestOf(statement, this.#ports.maxResultBytes);
    const held = this.#held;
    if (held?.reads === true) return this.#pagesOf(held, request);
    const mayBeLarge = held === undefined && this.#lost === undefined && this.#foreignKeys;
    if (!mayBeLarge || !(this.#ports.access === "read" || mayRead(request.sql))) return this.run(statement);
    try {
      return toResult(await this.#ports.read({ ...request, maxResultBytes: SMALL_BYTES }));
    } catch (error) {
      if (isWrite(error)) return this.run(statement);
      if (!isTooLarge(error)) throw error;
    }
    const snapshot = await this.#hold("readonly", CURSOR_MS);
    this.#paged.add(snapshot);
    return this.#pagesOf(snapshot, request, async () => {
      this.#paged.delete(snapshot);
      await snapshot.rollback();
    });
  }

  /** Opens pages of what is held; `end` is told when they are over. */
  async #pagesOf(
    held: Held,
    { maxResultBytes: _, ...request }: StatementRequest,
    end: () => Promise<void> = async () => undefined,
  ): Promise<PagedResult> {
    const ask = async (step: SessionStep): Promise<unknown> => {
      this.#ports.stands();
      if (this.#closed) throw kimberliteError("closed", "the session is closed");
      this.#ports.admitted();
      if (held.ended !== undefined) throw held.ended;
      const outcome = await held.step(step).catch((error: unknown) => {
        throw held.ended ?? error;
      });
      if ("error" in outcome) throw fromLaneError(outcome.error);
      return outcome.value;
    };
    const close = async (): Promise<void> => {
      if (held.ended === undefined) await held.step({ kind: "close-pages" }).catch(() => undefined);
      await end();
    };
    try {
      const head = toResult(await ask({ kind: "open-pages", request }));
      const next = (): Promise<Page> =>
        ask({ kind: "next-page", maxBytes: PAGE_BYTES, mostMs: CURSOR_MS }) as Promise<Page>;
      return { ...head, pages: { next, close } };
    } catch (error) {
      await close();
      throw error;
    }
  }

  async #run(statement: SessionStatement, maxResultBytes: number): Promise<SessionResult> {
    this.#requireOpen();
    this.#ports.stands();
    const control = parseControl(textOf(statement.sql));
    if (control !== undefined) return this.#control(control);
    const request = this.#requestOf(statement, maxResultBytes);
    if (this.#held !== undefined) return toResult(await this.#step({ kind: "run", request }));
    if (this.#lost !== undefined) throw this.#lost;
    return this.#runAlone(request);
  }

  readonly #requestOf = (statement: SessionStatement, maxResultBytes: number): StatementRequest => ({
    sql: statement.sql,
    exact: statement.values ?? [],
    maxResultBytes,
    dropRows: statement.dropRows === true,
    rowsOnly: this.#ports.access !== "schema",
  });

  async #runAlone(request: StatementRequest): Promise<SessionResult> {
    const { access, context, operate, read } = this.#ports;
    if (access === "read") return toResult(await read(request));
    if (!this.#foreignKeys) return this.#runHeld(request);
    if (mayRead(request.sql)) {
      try {
        return toResult(await read(request));
      } catch (error) {
        if (!isWrite(error)) throw error;
      }
    }
    return operate(async (engine) => {
      const { value, offset } = await engine.pipeline.submitStatements(context, [request]);
      return { ...toResult(value[0]), offset };
    });
  }

  /** One statement in a transaction of its own that does what the session has set. */
  async #runHeld(request: StatementRequest): Promise<SessionResult> {
    await this.#begin("immediate");
    try {
      const result = toResult(await this.#step({ kind: "run", request }));
      const offset = await this.#commit();
      return { ...result, offset };
    } catch (error) {
      await this.#rollback();
      throw error;
    }
  }

  async #step(step: SessionStep): Promise<StepValue> {
    const held = this.#held;
    if (held === undefined) throw noTransaction("savepoints are for transactions");
    if (held.ended !== undefined) throw this.#lose(held.ended);
    this.#ports.charge();
    const outcome = await held.step(step).catch((error: unknown) => {
      throw held.ended === undefined ? error : this.#lose(held.ended);
    });
    if ("error" in outcome) {
      const error = fromLaneError(outcome.error);
      if (!outcome.open) {
        await held.rollback();
        this.#lose(kimberliteError("transaction_closed", "the transaction was rolled back by SQLite"));
      }
      throw error;
    }
    return outcome.value;
  }

  /** From here to COMMIT or ROLLBACK nothing runs. */
  #lose(why: Error): Error {
    this.#held = undefined;
    this.#lost = why;
    return why;
  }

  async #control(control: SessionControl, readMs?: number): Promise<SessionResult> {
    switch (control.kind) {
      case "begin":
        if (!this.autocommit) throw noTransaction("cannot start a transaction within a transaction");
        if (this.#lost !== undefined) throw this.#lost;
        await this.#begin(control.mode, readMs);
        return NOTHING;
      case "commit":
        return { ...NOTHING, offset: await this.#commit() };
      case "rollback":
        await this.#rollback();
        return NOTHING;
      case "foreign-keys":
        return this.#setForeignKeys(control.on);
      default:
        if (this.#lost !== undefined) throw this.#lost;
        await this.#step(control);
        return NOTHING;
    }
  }

  async #begin(mode: "deferred" | "immediate" | "readonly", readMs?: number): Promise<void> {
    this.#held = await this.#hold(mode, readMs);
  }

  /** @param readMs how long a snapshot may be held, if longer than a transaction */
  async #hold(mode: "deferred" | "immediate" | "readonly", readMs = 0): Promise<Held> {
    const { access, hold } = this.#ports;
    if (mode === "immediate" && access === "read") {
      throw kimberliteError("read_only", "this session only reads; BEGIN TRANSACTION READONLY");
    }
    const readOnly = mode === "readonly" || access === "read";
    const timeLimitMs = Math.max(hold.timeLimitMs, readMs);
    const held = readOnly
      ? await HeldRead.begin({ ...this.#ports, hold: { ...hold, timeLimitMs } })
      : await HeldTransaction.begin(this.#ports, this.#foreignKeys);
    if (this.#closed) await held.rollback();
    this.#requireOpen();
    return held;
  }

  /** @returns the offset of its record, if it changed anything */
  async #commit(): Promise<bigint | undefined> {
    const held = this.#held;
    const lost = held?.ended ?? this.#lost;
    this.#held = undefined;
    this.#lost = undefined;
    if (lost !== undefined) throw lost;
    if (held === undefined) throw noTransaction("cannot commit - no transaction is active");
    this.#ports.charge();
    return held.commit();
  }

  async #rollback(): Promise<void> {
    const held = this.#held;
    const lost = this.#lost;
    this.#held = undefined;
    this.#lost = undefined;
    if (held === undefined && lost === undefined) {
      throw noTransaction("cannot rollback - no transaction is active");
    }
    await held?.rollback();
  }

  /** Within a transaction it does nothing, as in SQLite. */
  #setForeignKeys(on: boolean | undefined): SessionResult {
    if (on === undefined) {
      const rows = [[this.#foreignKeys ? 1n : 0n]];
      return { ...NOTHING, columns: ["foreign_keys"], types: [null], rows };
    }
    if (on === this.#foreignKeys || !this.autocommit) return NOTHING;
    if (this.#ports.access !== "schema") {
      throw kimberliteError("not_authorized", "turning foreign keys off takes the role admin");
    }
    this.#foreignKeys = on;
    return NOTHING;
  }

  #requireOpen(): void {
    if (this.#closed) throw kimberliteError("closed", "the session is closed");
  }
}

/** What takes longer than a moment to compile is compiled in a lane. */
async function elseInLane<T>(here: () => Promise<T>, inLane: () => Promise<T>): Promise<T> {
  try {
    return await here();
  } catch (error) {
    if (!(error instanceof KimberliteError) || error.code !== "statement_timeout") throw error;
  }
  return inLane();
}

/** True for a refusal of a connection that only reads: the statement may be one that writes. */
function isWrite(error: unknown): boolean {
  return error instanceof KimberliteError && (error.code === "read_only" || error.code === "unsupported_sql");
}

function textOf(sql: unknown): string {
  if (typeof sql !== "string") throw kimberliteError("invalid_sql", "SQL is a string");
  return sql;
}

function describeControl(control: SessionControl): StatementDescription {
  const isQuestion = control.kind === "foreign-keys" && control.on === undefined;
  const columns = isQuestion ? ["foreign_keys"] : [];
  return {
    parameters: [],
    columns,
    types: columns.map(() => null),
    readOnly: true,
    explain: false,
  };
}
