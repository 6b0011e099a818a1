/**
 * Reading a stream: its items in order, from an offset of the stream, once or as a live tail.
 *
 * Every table is a stream of its row changes, and a tenant makes event streams beside. Offsets are the stream's own,
 * dense, from 0: a reader learns nothing of the tenant's other activity. Items come from the log, in bounded memory;
 * an event stream begins where it is asked to (an index in the projection knows where), a table's stream is counted
 * from the log's start.
 */
import { kimberliteError } from "../errors.ts";
import type { Change, LogRecord } from "../log/record.ts";
import { openBlocks } from "../pipeline/log-records.ts";
import type { TenantEngine } from "../pipeline/tenant-engine.ts";
import type { StreamRow } from "../projection/bookkeeping.ts";
import { decodeImage } from "../projection/image.ts";
import type { SqlValue } from "../projection/values.ts";
import { decodeEvent, type EventValue } from "./event.ts";

/** One event, or one change of a row. */
export type StreamItem = StreamEvent | RowChangeItem | ErasedRowItem;

interface ItemBase {
  /** Place in the stream: dense, from 0. */
  readonly offset: bigint;
  /** Place of its transaction in the tenant's log. */
  readonly logOffset: bigint;
  /** Commit time, microseconds since 1970-01-01T00:00:00Z. */
  readonly timeUs: bigint;
  readonly actor: string;
}

export interface StreamEvent extends ItemBase {
  readonly kind: "event";
  readonly data: EventValue;
}

export interface RowChangeItem extends ItemBase {
  readonly kind: "insert" | "update" | "delete";
  /** Column values in the order of the table's stored columns at that time; null where there was no row. */
  readonly before: readonly SqlValue[] | null;
  readonly after: readonly SqlValue[] | null;
}

/** A change of a row whose subject was erased: what it was is gone, its place stays. */
export interface ErasedRowItem extends ItemBase {
  readonly kind: "erased";
  /** Random name of the subject, as in its certificate, hex. */
  readonly subject: string;
}

export interface ReadRange {
  /** First offset of the stream that is wanted; 0 unless given. */
  readonly from?: bigint | number;
  /** Most items; all unless given. */
  readonly limit?: number;
}

/** Where reading goes on, without looking anything up again. */
interface Place {
  logOffset: bigint;
  nextItem: bigint;
}

const TURN_MS = 10;

/** Parses an offset given by a caller. @throws `invalid_argument` */
export function parseOffset(offset: unknown, what: string): bigint {
  const parsed = typeof offset === "number" && Number.isSafeInteger(offset) ? BigInt(offset) : offset;
  if (typeof parsed !== "bigint" || parsed < 0n || parsed >= 2n ** 63n) {
    throw kimberliteError("invalid_argument", `${what} is an integer from 0`);
  }
  return parsed;
}

/** Reads what is there now, in order. Give the loop its turn between items; stop it at any time. */
export async function* readItems(
  engine: TenantEngine,
  stream: StreamRow,
  range: { readonly from: bigint; readonly limit: number },
): AsyncGenerator<StreamItem, void> {
  const place = await findPlace(engine, stream, range.from);
  yield* readOn(engine, stream, { place, ...range });
}

/** As `readItems`, and then waits for what is committed later, until the signal ends it. */
export async function* tailItems(
  engine: TenantEngine,
  stream: StreamRow,
  options: {
    readonly from: bigint;
    readonly signal: AbortSignal;
    readonly check: (engine: TenantEngine) => void;
  },
): AsyncGenerator<StreamItem, void> {
  const place = await findPlace(engine, stream, options.from);
  let wake: () => void = () => undefined;
  const unwatch = engine.watch(() => wake());
  const onAbort = (): void => wake();
  options.signal.addEventListener("abort", onAbort);
  try {
    while (!options.signal.aborted) {
      options.check(engine);
      const committed = new Promise<void>((resolve) => {
        wake = resolve;
      });
      for await (const item of readOn(engine, stream, {
        place,
        from: options.from,
        limit: Number.POSITIVE_INFINITY,
      })) {
        if (options.signal.aborted) return;
        yield item;
      }
      if (options.signal.aborted) return;
      if (place.logOffset >= engine.log.nextOffset) await committed;
    }
  } finally {
    options.signal.removeEventListener("abort", onAbort);
    unwatch();
  }
}

/** @throws `offset_trimmed` for what was trimmed: of a table's stream, whose items are counted from its start, everything */
async function findPlace(engine: TenantEngine, stream: StreamRow, from: bigint): Promise<Place> {
  const { firstOffset } = engine;
  if (stream.kind === "table") {
    if (firstOffset > 0n) throw trimmedItems(engine, undefined);
    return { logOffset: 0n, nextItem: 0n };
  }
  const { bookkeeping } = await engine.settledReader();
  const first = firstOffset === 0n ? 0n : bookkeeping.firstItemFrom(stream.id, firstOffset);
  if (from < first) throw trimmedItems(engine, first);
  const logOffset = bookkeeping.logOffsetOf(stream.id, from);
  const end = bookkeeping.stream(stream.id)?.nextOffset ?? 0n;
  if (logOffset === undefined || from >= end) return { logOffset: engine.log.nextOffset, nextItem: end };
  return { logOffset, nextItem: -1n };
}

function trimmedItems(engine: TenantEngine, firstOffset: bigint | undefined): Error {
  return kimberliteError("offset_trimmed", "the items there were trimmed; their proofs remain", {
    detail: { tenant: engine.tenant, ...(firstOffset === undefined ? {} : { firstOffset }) },
  });
}

async function* readOn(
  engine: TenantEngine,
  stream: StreamRow,
  options: { readonly place: Place; readonly from: bigint; readonly limit: number },
): AsyncGenerator<StreamItem, void> {
  const { place, from } = options;
  let left = options.limit;
  let turnStarted = performance.now();
  for (const { records } of openBlocks(engine, engine.log, place.logOffset)) {
    for (const record of records) {
      if (record.offset < place.logOffset) continue;
      for (const item of itemsOf(record, stream.id, place)) {
        if (item.offset < from) continue;
        if (left <= 0) return;
        left -= 1;
        yield item;
      }
      place.logOffset = record.offset + 1n;
    }
    if (left <= 0) return;
    if (performance.now() - turnStarted > TURN_MS) {
      await new Promise<void>((resolve) => setImmediate(resolve));
      turnStarted = performance.now();
    }
  }
}

function* itemsOf(record: LogRecord, stream: number, place: Place): Generator<StreamItem, void> {
  const base = { logOffset: record.offset, timeUs: record.timeUs, actor: record.actor };
  for (const change of record.changes) {
    if (change.kind === "events" && change.stream === stream) {
      for (const [index, event] of change.events.entries()) {
        place.nextItem = change.firstOffset + BigInt(index) + 1n;
        yield {
          ...base,
          kind: "event",
          offset: change.firstOffset + BigInt(index),
          data: decodeEvent(event),
        };
      }
    } else if (change.kind === "row" && change.stream === stream) {
      yield { ...base, ...rowItem(change), offset: place.nextItem };
      place.nextItem += 1n;
    } else if (change.kind === "erased-row" && change.stream === stream) {
      const subject = Buffer.from(change.subject).toString("hex");
      yield { ...base, kind: "erased", subject, offset: place.nextItem };
      place.nextItem += 1n;
    }
  }
}

function rowItem(change: Extract<Change, { kind: "row" }>): Pick<RowChangeItem, "kind" | "before" | "after"> {
  const before = change.before === null ? null : decodeImage(change.before);
  const after = change.after === null ? null : decodeImage(change.after);
  return { kind: before === null ? "insert" : after === null ? "delete" : "update", before, after };
}
