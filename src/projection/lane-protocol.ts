/**
 * What the main thread and a lane say to each other. A lane is a worker thread that runs what would take too long on
 * the main thread: slow statements, and transactions that are held open.
 */
import { type ErrorCode, type ErrorDetail, KimberliteError, kimberliteError } from "../errors.ts";
import type { ProjectionMeta } from "./bookkeeping.ts";
import type { StatementLimits } from "./connection.ts";
import type { Page } from "./paged-read.ts";
import type { ReplayEnd } from "./replay.ts";
import type { ReplayPortion } from "./replay-portion.ts";
import type { SharedView } from "./shared-table.ts";
import { fromSqlite, isSqliteError } from "./sqlite-error.ts";
import type { StatementDescription } from "./statement-cache.ts";
import type { StatementRequest, StatementResult } from "./writer.ts";

/** A projection file and what opens it. */
export interface LaneTarget {
  readonly path: string;
  readonly key: Uint8Array;
  readonly limits: StatementLimits;
}

/** A subject that the transaction erases, and what its certificate will say. */
export interface SubjectErased {
  readonly subject: Uint8Array;
  readonly facts: string;
}

/** What is asked of a shared table. */
export type SharedStep = Extract<SessionStep, { readonly kind: "run" | "describe" }>;

export type LaneCall =
  | { readonly kind: "query"; readonly target: LaneTarget; readonly request: StatementRequest }
  | {
      readonly kind: "shared";
      readonly target: LaneTarget;
      readonly view: SharedView;
      readonly step: SharedStep;
    }
  | { readonly kind: "begin"; readonly target: LaneTarget; readonly foreignKeys: boolean }
  | { readonly kind: "run"; readonly requests: readonly StatementRequest[] }
  | { readonly kind: "erase-subject"; readonly erased: SubjectErased; readonly logOffset: bigint }
  | { readonly kind: "step"; readonly step: SessionStep }
  | { readonly kind: "begin-read"; readonly target: LaneTarget }
  | { readonly kind: "end-read" }
  | { readonly kind: "finish" }
  | { readonly kind: "commit"; readonly meta: Omit<ProjectionMeta, "nextStream"> }
  | { readonly kind: "rollback" }
  | { readonly kind: "checkpoint"; readonly target: LaneTarget }
  | { readonly kind: "replay-begin"; readonly target: LaneTarget }
  | { readonly kind: "replay"; readonly portions: readonly ReplayPortion[] }
  | { readonly kind: "replay-commit"; readonly end: ReplayEnd }
  | { readonly kind: "replay-drop" }
  | { readonly kind: "forget"; readonly path: string };

/** What a finished but not yet committed transaction did. */
export interface LaneFinished {
  /** The changes as the record will hold them (`encodeChanges`); undefined if there are none. */
  readonly changes: Uint8Array | undefined;
  readonly pageCount: number;
}

/** One step of a transaction that is held open. */
export type SessionStep =
  | { readonly kind: "run"; readonly request: StatementRequest }
  | { readonly kind: "describe"; readonly sql: string }
  /** Of a snapshot: the columns of a statement that is then read by `next-page`, one at a time. */
  | { readonly kind: "open-pages"; readonly request: StatementRequest }
  | { readonly kind: "next-page"; readonly maxBytes: number; readonly mostMs: number }
  | { readonly kind: "close-pages" }
  | { readonly kind: "savepoint" | "release" | "rollback-to"; readonly name: string };

export type StepValue = StatementResult | StatementDescription | Page | undefined;

/** What a step gave, and whether the transaction is still there: SQLite ends it for some failures. */
export type StepOutcome =
  | { readonly open: boolean; readonly value: StepValue }
  | { readonly open: boolean; readonly error: LaneError };

export type LaneValue =
  | StatementResult
  | StatementDescription
  | StatementResult[]
  | StepOutcome
  | LaneFinished
  | ProjectionMeta
  | number
  | undefined;

export interface LaneMessage {
  readonly id: number;
  readonly call: LaneCall;
}

export type LaneReply =
  | { readonly id: number; readonly value: LaneValue }
  | { readonly id: number; readonly error: LaneError };

export interface LaneError {
  readonly code: ErrorCode | undefined;
  readonly message: string;
  readonly detail: ErrorDetail;
}

export function toLaneError(thrown: unknown): LaneError {
  const error = isSqliteError(thrown) ? fromSqlite(thrown, undefined) : thrown;
  if (error instanceof KimberliteError)
    return { code: error.code, message: error.message, detail: error.detail };
  return { code: undefined, message: error instanceof Error ? error.message : "unknown", detail: {} };
}

export function fromLaneError(error: LaneError): Error {
  if (error.code === undefined) return new Error(error.message);
  return kimberliteError(error.code, error.message, { detail: error.detail });
}
