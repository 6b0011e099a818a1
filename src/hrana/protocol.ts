/**
 * What Hrana's messages say, whatever their encoding and version: the structures of `HRANA_3_SPEC`, of which those of
 * versions 1 and 2 are a part. Integers are bigints and floats are numbers, so that 1 and 1.0 stay apart.
 */
import type { SqlValue } from "../projection/values.ts";

/** A text, or the number under which it was stored. */
export interface SqlReference {
  readonly sql: string | undefined;
  readonly sqlId: number | undefined;
}

export interface NamedArgument {
  readonly name: string;
  readonly value: SqlValue;
}

export interface Stmt extends SqlReference {
  readonly args: readonly SqlValue[];
  readonly namedArgs: readonly NamedArgument[];
  readonly wantRows: boolean;
}

export type BatchCond =
  | { readonly type: "ok" | "error"; readonly step: number }
  | { readonly type: "not"; readonly cond: BatchCond }
  | { readonly type: "and" | "or"; readonly conds: readonly BatchCond[] }
  | { readonly type: "is_autocommit" };

export interface HranaBatchStep {
  readonly condition: BatchCond | undefined;
  readonly stmt: Stmt;
}

export type HranaBatch = readonly HranaBatchStep[];

/** What is asked of a stream, over HTTP or WebSocket. */
export type StreamRequest =
  | { readonly type: "close" }
  | { readonly type: "execute"; readonly stmt: Stmt }
  | { readonly type: "batch"; readonly batch: HranaBatch }
  | ({ readonly type: "sequence" | "describe" } & SqlReference)
  | { readonly type: "store_sql"; readonly sqlId: number; readonly sql: string }
  | { readonly type: "close_sql"; readonly sqlId: number }
  | { readonly type: "get_autocommit" };

export interface Column {
  readonly name: string;
  readonly decltype: string | null;
}

export interface StmtResult {
  readonly cols: readonly Column[];
  readonly rows: readonly (readonly SqlValue[])[];
  readonly affectedRowCount: number;
  readonly lastInsertRowid: bigint | undefined;
  /** Offset in the tenant's log of what was committed with the statement; libSQL's own field, which its specification lacks. */
  readonly replicationIndex: bigint | undefined;
}

/** What is told of a failure; `code` is SQLite's own where it has one, else one of `docs/errors.md`. */
export interface HranaError {
  readonly message: string;
  readonly code: string;
}

/** Of a step that ran; undefined for one that was skipped. */
export type StepOutcome = { readonly result: StmtResult } | { readonly error: HranaError } | undefined;

export interface DescribeResult {
  readonly params: readonly (string | null)[];
  readonly cols: readonly Column[];
  readonly isExplain: boolean;
  readonly isReadonly: boolean;
}

export type StreamResponse =
  | { readonly type: "close" | "sequence" | "store_sql" | "close_sql" }
  | { readonly type: "execute"; readonly result: StmtResult }
  | { readonly type: "batch"; readonly outcomes: readonly StepOutcome[] }
  | { readonly type: "describe"; readonly result: DescribeResult }
  | { readonly type: "get_autocommit"; readonly isAutocommit: boolean };

export type StreamResult =
  | { readonly type: "ok"; readonly response: StreamResponse }
  | { readonly type: "error"; readonly error: HranaError };

/** A batch's results as a cursor gives them. */
export type CursorEntry =
  | { readonly type: "step_begin"; readonly step: number; readonly cols: readonly Column[] }
  | { readonly type: "row"; readonly row: readonly SqlValue[] }
  | {
      readonly type: "step_end";
      readonly affectedRowCount: number;
      readonly lastInsertRowid: bigint | undefined;
    }
  | { readonly type: "step_error"; readonly step: number; readonly error: HranaError }
  | { readonly type: "error"; readonly error: HranaError };

export interface PipelineRequest {
  readonly baton: string | undefined;
  readonly requests: readonly StreamRequest[];
}

export interface PipelineResponse {
  readonly baton: string | undefined;
  readonly results: readonly StreamResult[];
}

export interface CursorRequest {
  readonly baton: string | undefined;
  readonly batch: HranaBatch;
}

export interface CursorResponse {
  readonly baton: string | undefined;
}

/** What comes over a WebSocket. */
export type ClientMessage =
  | { readonly type: "hello"; readonly jwt: string | undefined }
  | { readonly type: "request"; readonly requestId: number; readonly request: SocketRequest }
  /** A request that holds more than is taken: it is answered with why. */
  | { readonly type: "refused"; readonly requestId: number; readonly error: Error };

export type SocketRequest =
  | { readonly type: "open_stream" | "close_stream"; readonly streamId: number }
  | {
      readonly type: "open_cursor";
      readonly streamId: number;
      readonly cursorId: number;
      readonly batch: HranaBatch;
    }
  | { readonly type: "close_cursor"; readonly cursorId: number }
  | { readonly type: "fetch_cursor"; readonly cursorId: number; readonly maxCount: number }
  /** `store_sql` and `close_sql` are of the connection; the others of a stream. */
  | { readonly type: "on_connection"; readonly request: SqlStoreRequest }
  | { readonly type: "on_stream"; readonly streamId: number; readonly request: StreamRequest };

export type SqlStoreRequest = Extract<StreamRequest, { readonly type: "store_sql" | "close_sql" }>;

export type SocketResponse =
  | { readonly type: "open_stream" | "close_stream" | "open_cursor" | "close_cursor" }
  | { readonly type: "fetch_cursor"; readonly entries: readonly CursorEntry[]; readonly done: boolean }
  | StreamResponse;

/** What goes over a WebSocket. */
export type ServerMessage =
  | { readonly type: "hello_ok" }
  | { readonly type: "hello_error"; readonly error: HranaError }
  | { readonly type: "response_ok"; readonly requestId: number; readonly response: SocketResponse }
  | { readonly type: "response_error"; readonly requestId: number; readonly error: HranaError };

/** The one encoding of a version, both ways. @throws `invalid_argument` for what does not decode */
export interface Encoding {
  /** Of an HTTP body; compared without parameters. */
  readonly contentType: string;
  readonly cursorContentType: string;
  readPipeline(body: Uint8Array): PipelineRequest;
  readCursor(body: Uint8Array): CursorRequest;
  readMessage(data: Uint8Array): ClientMessage;
  writePipeline(response: PipelineResponse): string | Uint8Array;
  writeError(error: HranaError): string | Uint8Array;
  /** As one line, or behind its length. */
  writeCursor(response: CursorResponse): string | Uint8Array;
  writeEntry(entry: CursorEntry): string | Uint8Array;
  writeMessage(message: ServerMessage): string | Uint8Array;
}
