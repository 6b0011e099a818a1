/** Making event streams and appending to them, through the tenant's commit pipeline. */
import { kimberliteError } from "../errors.ts";
import type { CallContext } from "../pipeline/batch.ts";
import type { TenantEngine } from "../pipeline/tenant-engine.ts";
import { FIRST_USER_STREAM, type IdempotencyRow, type StreamRow } from "../projection/bookkeeping.ts";
import { appendFingerprint } from "../projection/replay.ts";
import type { WriteSession } from "../projection/writer.ts";
import { isStreamId, type StreamId } from "../tenant/tenant-id.ts";
import { encodeEvent, MAX_EVENTS_PER_APPEND, parseStreamName } from "./event.ts";
import { parseOffset } from "./stream-reader.ts";

export interface AppendOptions {
  /** Offset in the stream that the first event must get: 0 for the first of all. */
  readonly expectedOffset?: bigint | number;
  /** 1 to 255 characters, unique to this append within the tenant. */
  readonly idempotencyKey?: string;
}

export interface AppendResult {
  /** Offset in the stream of the first event. */
  readonly offset: bigint;
  readonly count: number;
  /** Offset of the transaction's record in the tenant's log. */
  readonly logOffset: bigint;
}

export interface AppendRequest {
  readonly stream: StreamId;
  readonly events: readonly unknown[];
  readonly options: AppendOptions;
  readonly context: CallContext;
  readonly maxBytes: number;
}

/** @throws `stream_exists`, `invalid_argument` */
export async function makeStream(engine: TenantEngine, context: CallContext, name: unknown): Promise<number> {
  const parsed = parseStreamName(name);
  const { value } = await engine.pipeline.submit(context, (session) => {
    const holder = session.bookkeeping.streamNamed(parsed);
    if (holder !== undefined) {
      throw kimberliteError("stream_exists", "a stream or table of that name exists already", {
        detail: { stream: holder.id },
      });
    }
    return session.createStream(parsed);
  });
  return value;
}

/** The stream of that id. @throws `stream_not_found`, also for a stream of another tenant; `invalid_argument` */
export async function findStream(engine: TenantEngine, stream: StreamId): Promise<StreamRow> {
  const local = localOf(engine, stream);
  const row = (await engine.settledReader()).bookkeeping.stream(local);
  if (row === undefined || row.dropped) throw notFound(engine, stream);
  return row;
}

/** @throws `offset_conflict`, `idempotency_conflict`, `stream_not_found`, `invalid_argument`, `value_too_large` */
export async function appendEvents(engine: TenantEngine, request: AppendRequest): Promise<AppendResult> {
  const { events, options, context } = request;
  const stream = localOf(engine, request.stream);
  if (!Array.isArray(events) || events.length < 1 || events.length > MAX_EVENTS_PER_APPEND) {
    throw kimberliteError("invalid_argument", `append() takes 1 to ${MAX_EVENTS_PER_APPEND} events`);
  }
  const encoded = events.map((event) => encodeEvent(event, request.maxBytes));
  const idempotencyKey = parseKey(options.idempotencyKey);
  const expected =
    options.expectedOffset === undefined ? undefined : parseOffset(options.expectedOffset, "expectedOffset");
  const work = (session: WriteSession): { earlier: IdempotencyRow | undefined; first: bigint } => {
    const before = idempotencyKey === undefined ? undefined : session.bookkeeping.idempotency(idempotencyKey);
    if (before !== undefined) return { earlier: before, first: checkRepeated(before, stream, encoded) };
    return { earlier: undefined, first: appendNow(session, { engine, stream, encoded, expected }) };
  };
  const bytes = encoded.reduce((sum, { length }) => sum + length, 0);
  const { value, offset } = await engine.pipeline
    .submit({ ...context, idempotencyKey }, work, bytes)
    .finally(() => {
      for (const bytes of encoded) bytes.fill(0);
    });
  const { earlier, first } = value;
  if (earlier !== undefined) return { offset: first, count: earlier.count, logOffset: earlier.logOffset };
  return { offset: first, count: encoded.length, logOffset: offset as bigint };
}

function appendNow(
  session: WriteSession,
  request: { engine: TenantEngine; stream: number; encoded: readonly Buffer[]; expected: bigint | undefined },
): bigint {
  const { engine, stream, encoded, expected } = request;
  if (stream < FIRST_USER_STREAM) {
    throw kimberliteError("not_authorized", "that stream is written by the system alone", {
      detail: { tenant: engine.tenant, stream },
    });
  }
  const row = session.bookkeeping.stream(stream);
  if (row === undefined || row.dropped) {
    throw kimberliteError("stream_not_found", "there is no such stream", {
      detail: { tenant: engine.tenant, stream },
    });
  }
  if (row.kind !== "events") throw kimberliteError("invalid_argument", "a table's stream is written by SQL");
  if (expected !== undefined && expected !== row.nextOffset) {
    throw kimberliteError("offset_conflict", "the stream is not at the expected offset", {
      detail: { expected, actual: row.nextOffset },
    });
  }
  return session.appendEvents(stream, encoded);
}

function checkRepeated(before: IdempotencyRow, stream: number, encoded: readonly Buffer[]): bigint {
  if (before.stream !== stream || !before.request.equals(appendFingerprint(stream, encoded))) {
    throw kimberliteError("idempotency_conflict", "the idempotency key was used for another append");
  }
  return before.firstOffset;
}

function parseKey(key: unknown): string | undefined {
  if (key === undefined) return undefined;
  if (typeof key !== "string" || key.length < 1 || key.length > 255 || !key.isWellFormed()) {
    throw kimberliteError("invalid_argument", "an idempotency key is 1 to 255 characters");
  }
  return key;
}

function localOf(engine: TenantEngine, stream: unknown): number {
  if (!isStreamId(stream)) throw kimberliteError("invalid_argument", "a stream is named by a StreamId");
  if (stream.tenant !== engine.tenant) throw notFound(engine, stream);
  return stream.local;
}

function notFound(engine: TenantEngine, stream: StreamId): Error {
  return kimberliteError("stream_not_found", "there is no such stream in this tenant", {
    detail: { tenant: engine.tenant, stream: stream.local },
  });
}
