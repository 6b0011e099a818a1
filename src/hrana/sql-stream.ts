/**
 * One stream of Hrana: a session on the tenant, and what the protocol asks of it.
 *
 * Kept: requests of a stream run one after another; what fails is an answer, and ends the stream only when its credential
 * or its tenant stands no more.
 */
import type {
  BatchOutcome,
  BatchPart,
  BatchState,
  BatchStep,
  SessionResult,
  SqlSession,
} from "../sql-session.ts";
import { placeArguments } from "./arguments.ts";
import { toHranaError } from "./hrana-error.ts";
import { invalid } from "./limits.ts";
import type {
  BatchCond,
  Column,
  CursorEntry,
  DescribeResult,
  HranaBatch,
  SqlReference,
  StepOutcome,
  Stmt,
  StmtResult,
  StreamRequest,
  StreamResponse,
} from "./protocol.ts";
import { resolveBatch, resolveRequest } from "./references.ts";
import type { SqlStore } from "./sql-store.ts";

/** Told of each statement of a batch that fails. */
export type NoteFailure = (error: unknown) => void;

export class SqlStream {
  readonly #session: SqlSession;
  readonly #store: SqlStore;
  #closed = false;

  /** @param store of the stream (HTTP) or of its connection (WebSocket) */
  constructor(session: SqlSession, store: SqlStore) {
    this.#session = session;
    this.#store = store;
  }

  get closed(): boolean {
    return this.#closed;
  }

  async answer(given: StreamRequest, note: NoteFailure): Promise<StreamResponse> {
    if (this.#closed) throw invalid("the stream is closed");
    const request = resolveRequest(given, this.#store);
    switch (request.type) {
      case "close":
        await this.close();
        return { type: "close" };
      case "execute":
        return { type: "execute", result: await this.#execute(request.stmt) };
      case "batch":
        return { type: "batch", outcomes: await this.#batch(request.batch, note) };
      case "sequence":
        await this.#session.sequence(textOf(request));
        return { type: "sequence" };
      case "describe":
        return { type: "describe", result: await this.#describe(textOf(request)) };
      case "store_sql":
        this.#store.store(request.sqlId, request.sql);
        return { type: "store_sql" };
      case "close_sql":
        this.#store.close(request.sqlId);
        return { type: "close_sql" };
      case "get_autocommit":
        return { type: "get_autocommit", isAutocommit: this.#session.autocommit };
    }
  }

  async #batch(batch: HranaBatch, note: NoteFailure): Promise<StepOutcome[]> {
    const outcomes = await this.#session.batch(toSteps(batch));
    for (const outcome of outcomes) if (outcome !== undefined && "error" in outcome) note(outcome.error);
    return outcomes.map((outcome, index) => toOutcome(outcome, batch[index]?.stmt.wantRows ?? true));
  }

  /** A batch's results, one entry at a time: found as they are taken. */
  async *entries(given: HranaBatch, note: NoteFailure): AsyncGenerator<CursorEntry, void> {
    if (this.#closed) throw invalid("the stream is closed");
    const batch = resolveBatch(given, this.#store);
    let wantRows = true;
    for await (const part of this.#session.batchPages(toSteps(batch))) {
      if (part.kind === "begin") wantRows = batch[part.step]?.stmt.wantRows ?? true;
      if (part.kind === "error") note(part.error);
      if (part.kind !== "rows") yield toEntry(part);
      else if (wantRows) for (const row of part.rows) yield { type: "row", row };
    }
  }

  /** Rolls back what is open. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#session.close();
  }

  async #execute(stmt: Stmt): Promise<StmtResult> {
    return toStmtResult(await this.#session.run(toStatement(stmt)), stmt.wantRows);
  }

  async #describe(sql: string): Promise<DescribeResult> {
    const { parameters, columns, types, explain, readOnly } = await this.#session.describe(sql);
    const cols = toColumns(columns, types);
    return { params: parameters, cols, isExplain: explain, isReadonly: readOnly };
  }
}

function textOf({ sql }: SqlReference): string {
  if (sql === undefined) throw invalid("the text is not there");
  return sql;
}

function toStatement(stmt: Stmt): BatchStep["statement"] {
  const sql = textOf(stmt);
  return { sql, values: placeArguments(sql, stmt), dropRows: !stmt.wantRows };
}

/** A step whose statement cannot be made fails alone, when its turn comes. */
function toSteps(batch: HranaBatch): BatchStep[] {
  return batch.map(({ stmt, condition }): BatchStep => {
    const when = condition === undefined ? undefined : (state: BatchState) => holds(condition, state);
    let statement: BatchStep["statement"];
    try {
      statement = toStatement(stmt);
    } catch (error) {
      return { statement: { sql: "" }, refused: error as Error, ...(when === undefined ? {} : { when }) };
    }
    return when === undefined ? { statement } : { statement, when };
  });
}

/** Whether a condition holds. It is on steps that were before its own. */
function holds(condition: BatchCond, state: BatchState): boolean {
  switch (condition.type) {
    case "ok":
    case "error": {
      const outcome = state.outcomes[condition.step];
      if (outcome === undefined) return false;
      return condition.type === "ok" ? "result" in outcome : "error" in outcome;
    }
    case "not":
      return !holds(condition.cond, state);
    case "and":
      return condition.conds.every((each) => holds(each, state));
    case "or":
      return condition.conds.some((each) => holds(each, state));
    case "is_autocommit":
      return state.autocommit;
  }
}

function toEntry(part: Exclude<BatchPart, { kind: "rows" }>): CursorEntry {
  switch (part.kind) {
    case "begin": {
      const { step, columns, types } = part;
      return { type: "step_begin", step, cols: toColumns(columns, types) };
    }
    case "end":
      return {
        type: "step_end",
        affectedRowCount: part.rowsAffected,
        lastInsertRowid: toRowid(part.lastInsertRowid),
      };
    case "error":
      return { type: "step_error", step: part.step, error: toHranaError(part.error) };
  }
}

function toColumns(names: readonly string[], types: readonly (string | null)[]): Column[] {
  return names.map((name, index) => ({ name, decltype: types[index] ?? null }));
}

function toRowid(rowid: number | bigint | undefined): bigint | undefined {
  return rowid === undefined ? undefined : BigInt(rowid);
}

function toOutcome(outcome: BatchOutcome, wantRows: boolean): StepOutcome {
  if (outcome === undefined) return undefined;
  if ("error" in outcome) return { error: toHranaError(outcome.error) };
  return { result: toStmtResult(outcome.result, wantRows) };
}

function toStmtResult(result: SessionResult, wantRows: boolean): StmtResult {
  const { columns, types, rows, rowsAffected, lastInsertRowid, offset } = result;
  return {
    cols: toColumns(columns, types),
    rows: wantRows ? rows : [],
    affectedRowCount: rowsAffected,
    lastInsertRowid: toRowid(lastInsertRowid),
    replicationIndex: offset,
  };
}
