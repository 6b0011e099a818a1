/**
 * Hrana's JSON to clients. Rows are written by hand, for most of a response is values: an integer is a string of digits, a
 * float a number that reads back as the same double, also an infinite one.
 */
import type { SqlValue } from "../projection/values.ts";
import type {
  Column,
  CursorEntry,
  CursorResponse,
  DescribeResult,
  HranaError,
  PipelineResponse,
  ServerMessage,
  SocketResponse,
  StepOutcome,
  StmtResult,
  StreamResult,
} from "./protocol.ts";

const text = (value: string | null): string => JSON.stringify(value);

export function jsonPipeline({ baton, results }: PipelineResponse): string {
  return `{"baton":${text(baton ?? null)},"base_url":null,"results":[${results.map(streamResult).join(",")}]}`;
}

export function jsonCursor({ baton }: CursorResponse): string {
  return `{"baton":${text(baton ?? null)},"base_url":null}\n`;
}

export function jsonEntry(entry: CursorEntry): string {
  return `${cursorEntry(entry)}\n`;
}

export function jsonError({ message, code }: HranaError): string {
  return `{"message":${text(message)},"code":${text(code)}}`;
}

export function jsonMessage(message: ServerMessage): string {
  switch (message.type) {
    case "hello_ok":
      return '{"type":"hello_ok"}';
    case "hello_error":
      return `{"type":"hello_error","error":${jsonError(message.error)}}`;
    case "response_ok":
      return `{"type":"response_ok","request_id":${message.requestId},"response":${response(message.response)}}`;
    case "response_error":
      return `{"type":"response_error","request_id":${message.requestId},"error":${jsonError(message.error)}}`;
  }
}

function streamResult(result: StreamResult): string {
  if (result.type === "error") return `{"type":"error","error":${jsonError(result.error)}}`;
  return `{"type":"ok","response":${response(result.response)}}`;
}

function response(given: SocketResponse): string {
  const type = text(given.type);
  switch (given.type) {
    case "execute":
      return `{"type":${type},"result":${stmtResult(given.result)}}`;
    case "batch":
      return `{"type":${type},"result":${batchResult(given.outcomes)}}`;
    case "describe":
      return `{"type":${type},"result":${describeResult(given.result)}}`;
    case "get_autocommit":
      return `{"type":${type},"is_autocommit":${given.isAutocommit}}`;
    case "fetch_cursor":
      return `{"type":${type},"entries":[${given.entries.map(cursorEntry).join(",")}],"done":${given.done}}`;
    default:
      return `{"type":${type}}`;
  }
}

function batchResult(outcomes: readonly StepOutcome[]): string {
  const results = outcomes.map((step) =>
    step !== undefined && "result" in step ? stmtResult(step.result) : "null",
  );
  const errors = outcomes.map((step) =>
    step !== undefined && "error" in step ? jsonError(step.error) : "null",
  );
  const last = outcomes.findLast((step) => offsetOf(step) !== undefined);
  return `{"step_results":[${results.join(",")}],"step_errors":[${errors.join(",")}]${index(offsetOf(last))}}`;
}

function offsetOf(step: StepOutcome): bigint | undefined {
  return step !== undefined && "result" in step ? step.result.replicationIndex : undefined;
}

function stmtResult(given: StmtResult): string {
  const { cols, rows, affectedRowCount, lastInsertRowid, replicationIndex } = given;
  return `{"cols":[${columns(cols)}],"rows":[${rows.map(row).join(",")}],${counts(affectedRowCount, lastInsertRowid)}${index(replicationIndex)}}`;
}

/** Left out where there is none, for most results are of reads. */
function index(offset: bigint | undefined): string {
  return offset === undefined ? "" : `,"replication_index":"${offset}"`;
}

function counts(affectedRowCount: number, lastInsertRowid: bigint | undefined): string {
  const rowid = lastInsertRowid === undefined ? "null" : `"${lastInsertRowid}"`;
  return `"affected_row_count":${affectedRowCount},"last_insert_rowid":${rowid}`;
}

function columns(cols: readonly Column[]): string {
  return cols.map(({ name, decltype }) => `{"name":${text(name)},"decltype":${text(decltype)}}`).join(",");
}

function describeResult({ params, cols, isExplain, isReadonly }: DescribeResult): string {
  const names = params.map((name) => `{"name":${text(name)}}`).join(",");
  return `{"params":[${names}],"cols":[${columns(cols)}],"is_explain":${isExplain},"is_readonly":${isReadonly}}`;
}

function cursorEntry(entry: CursorEntry): string {
  switch (entry.type) {
    case "step_begin":
      return `{"type":"step_begin","step":${entry.step},"cols":[${columns(entry.cols)}]}`;
    case "row":
      return `{"type":"row","row":${row(entry.row)}}`;
    case "step_end":
      return `{"type":"step_end",${counts(entry.affectedRowCount, entry.lastInsertRowid)}}`;
    case "step_error":
      return `{"type":"step_error","step":${entry.step},"error":${jsonError(entry.error)}}`;
    case "error":
      return `{"type":"error","error":${jsonError(entry.error)}}`;
  }
}

function row(values: readonly SqlValue[]): string {
  return `[${values.map(value).join(",")}]`;
}

function value(given: SqlValue): string {
  switch (typeof given) {
    case "bigint":
      return `{"type":"integer","value":"${given}"}`;
    case "number":
      return `{"type":"float","value":${float(given)}}`;
    case "string":
      return `{"type":"text","value":${JSON.stringify(given)}}`;
    default:
      return given === null ? '{"type":"null"}' : `{"type":"blob","base64":"${base64(given)}"}`;
  }
}

/** JSON has no infinity; a number past the largest double reads as one. */
function float(given: number): string {
  if (Number.isFinite(given)) return Object.is(given, -0) ? "-0.0" : String(given);
  return given > 0 ? "1e999" : "-1e999";
}

/** Without padding, as the clients in other languages expect. */
function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64").replace(/=+$/, "");
}
