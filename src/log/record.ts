/**
 * A record: one committed transaction, as deterministic bytes (CBOR, RFC 8949).
 *
 * A record is a map of text keys: `o` offset, `t` commit time (µs), `a` actor, `i` idempotency key, `r` correlation
 * id, `c` changes. A change is an array whose first item names its kind; `docs/FORMAT.md` gives every layout. Row
 * images are byte strings that hold a CBOR array of column values with their exact SQLite storage classes; they are
 * made and taken apart inside SQLite, and pass through here unread.
 */
import { Encoder } from "cbor-x";
import { assert, kimberliteError } from "../errors.ts";

/** Identifies a row: its rowid, or for a WITHOUT ROWID table the image of its primary key. */
export type RowKey = bigint | Uint8Array;

/** What became of the table or stream of that id: its present name, or null when it was dropped. */
export interface StreamBinding {
  readonly stream: number;
  readonly name: string | null;
}

export type Change =
  | { readonly kind: "ddl"; readonly sql: string; readonly bindings: readonly StreamBinding[] }
  | {
      readonly kind: "row";
      readonly stream: number;
      readonly key: RowKey;
      readonly before: Uint8Array | null;
      readonly after: Uint8Array | null;
      /** The person whose row it is, as `subjectOf` says it. Between threads alone: a record has it sealed. */
      readonly subject?: Uint8Array;
    }
  /** A row change under the key of the subject whose row it is. */
  | {
      readonly kind: "sealed-row";
      readonly stream: number;
      /** Random name of the subject, 16 bytes. */
      readonly subject: Uint8Array;
      readonly sealed: Uint8Array;
    }
  /** What a sealed row is to a reader once its subject's key is destroyed. In no record. */
  | { readonly kind: "erased-row"; readonly stream: number; readonly subject: Uint8Array }
  /** From here on the rows of that table are sealed under the subject that the column names. */
  | { readonly kind: "declare-subject"; readonly stream: number; readonly column: string }
  /** The subject is erased; with its certificate once nothing of it is left. */
  | {
      readonly kind: "erase-subject";
      readonly subject: Uint8Array;
      readonly facts: string;
      readonly certificate: string | null;
    }
  | { readonly kind: "sequence"; readonly table: string; readonly value: bigint | null }
  | { readonly kind: "create-stream"; readonly stream: number; readonly name: string }
  | {
      readonly kind: "events";
      readonly stream: number;
      /** Offset in the stream of the first of these events. */
      readonly firstOffset: bigint;
      readonly events: readonly Uint8Array[];
    };

export interface LogRecord {
  readonly offset: bigint;
  readonly timeUs: bigint;
  readonly actor: string;
  readonly idempotencyKey?: string | undefined;
  readonly correlationId?: string | undefined;
  readonly changes: readonly Change[];
}

/** The text key `c`: one byte of head, one of text. */
const CHANGES_KEY: Buffer = Buffer.from([0x61, 0x63]);

const codec = new Encoder({
  useRecords: false,
  tagUint8Array: false,
  variableMapSize: true,
  mapsAsObjects: true,
});

/** Encodes a value of the record format or an event: maps, arrays, text, bytes, integers, floats, null, booleans. */
export function encodeCbor(value: unknown): Buffer {
  const made = codec.encode(value);
  const bytes = Buffer.from(made);
  // What the encoder writes into is kept by it.
  made.fill(0);
  return bytes;
}

/** @throws `log_damaged` for bytes that are not one CBOR item. */
export function decodeCbor(bytes: Uint8Array): unknown {
  try {
    return codec.decode(bytes);
  } catch (cause) {
    throw kimberliteError("log_damaged", "a record is not valid CBOR", { cause });
  }
}

/** Bytes of a record. Integers of 64 bits are encoded as CBOR integers, never as floats. */
export function encodeRecord(record: LogRecord): Buffer {
  const map = headOf(record);
  assert(!record.changes.some(isUnsealed), "rows of a subject are sealed before they are in a record");
  map["c"] = record.changes.map(changeToArray);
  return encodeCbor(map);
}

function isUnsealed(change: Change): boolean {
  return change.kind === "row" && change.subject !== undefined;
}

function headOf(record: Omit<LogRecord, "changes">): Record<string, unknown> {
  const map: Record<string, unknown> = { o: record.offset, t: record.timeUs, a: record.actor };
  if (record.idempotencyKey !== undefined) map["i"] = record.idempotencyKey;
  if (record.correlationId !== undefined) map["r"] = record.correlationId;
  return map;
}

/** Bytes of the changes of a record alone, for `joinRecord`: made where the changes are, which may be another thread. */
export function encodeChanges(changes: readonly Change[]): Buffer {
  return encodeCbor(changes.map(changeToArray));
}

/** @throws `log_damaged` for anything that `encodeChanges` cannot have made. */
export function decodeChanges(bytes: Uint8Array): Change[] {
  return toArray(decodeCbor(bytes)).map(arrayToChange);
}

/** True for a change that only a reader who knows of subjects can apply: its block says so. */
export function isAboutSubjects(change: Change): boolean {
  return change.kind === "row" ? change.subject !== undefined : SUBJECT_KINDS.has(change.kind);
}

const SUBJECT_KINDS: ReadonlySet<string> = new Set(["sealed-row", "declare-subject", "erase-subject"]);

/** The same bytes as `encodeRecord` gives, from changes that are encoded already. */
export function joinRecord(record: Omit<LogRecord, "changes">, changes: Uint8Array): Buffer {
  const head = encodeCbor(headOf(record));
  head[0] = (head[0] as number) + 1;
  return Buffer.concat([head, CHANGES_KEY, changes]);
}

/** @throws `log_damaged` for anything that `encodeRecord` cannot have made. */
export function decodeRecord(bytes: Uint8Array): LogRecord {
  const map = decodeCbor(bytes) as Record<string, unknown>;
  if (typeof map !== "object" || map === null || !Array.isArray(map["c"])) throw malformed();
  return {
    offset: toBigInt(map["o"]),
    timeUs: toBigInt(map["t"]),
    actor: String(map["a"]),
    idempotencyKey: optionalText(map["i"]),
    correlationId: optionalText(map["r"]),
    changes: map["c"].map(arrayToChange),
  };
}

function changeToArray(change: Change): unknown[] {
  switch (change.kind) {
    case "row":
      return change.subject === undefined
        ? ["r", change.stream, change.key, change.before, change.after]
        : ["r", change.stream, change.key, change.before, change.after, change.subject];
    case "sealed-row":
      return ["x", change.stream, change.subject, change.sealed];
    case "declare-subject":
      return ["p", change.stream, change.column];
    case "erase-subject":
      return ["y", change.subject, change.facts, change.certificate];
    case "erased-row":
      throw new Error("an erased row is in no record");
    case "ddl":
      return ["d", change.sql, change.bindings.map((binding) => [binding.stream, binding.name])];
    case "sequence":
      return ["q", change.table, change.value];
    case "create-stream":
      return ["s", change.stream, change.name];
    case "events":
      return ["e", change.stream, change.firstOffset, change.events];
  }
}

function arrayToChange(item: unknown): Change {
  if (!Array.isArray(item)) throw malformed();
  const [kind, first, second, third, fourth, fifth] = item as unknown[];
  switch (kind) {
    case "r":
      return {
        kind: "row",
        stream: toNumber(first),
        key: second instanceof Uint8Array ? second : toBigInt(second),
        before: optionalBytes(third),
        after: optionalBytes(fourth),
        ...(fifth === undefined ? {} : { subject: toBytes(fifth) }),
      };
    case "x":
      return {
        kind: "sealed-row",
        stream: toNumber(first),
        subject: toBytes(second),
        sealed: toBytes(third),
      };
    case "p":
      return { kind: "declare-subject", stream: toNumber(first), column: toText(second) };
    case "y":
      return {
        kind: "erase-subject",
        subject: toBytes(first),
        facts: toText(second),
        certificate: third === null ? null : toText(third),
      };
    case "d":
      return { kind: "ddl", sql: toText(first), bindings: toArray(second).map(toBinding) };
    case "q":
      return { kind: "sequence", table: toText(first), value: second === null ? null : toBigInt(second) };
    case "s":
      return { kind: "create-stream", stream: toNumber(first), name: toText(second) };
    case "e":
      return {
        kind: "events",
        stream: toNumber(first),
        firstOffset: toBigInt(second),
        events: toArray(third).map(toBytes),
      };
    default:
      throw malformed();
  }
}

function toBinding(item: unknown): StreamBinding {
  const [stream, name] = toArray(item);
  return { stream: toNumber(stream), name: name === null ? null : toText(name) };
}

function toBigInt(value: unknown): bigint {
  if (typeof value === "bigint") return value;
  if (typeof value === "number" && Number.isSafeInteger(value)) return BigInt(value);
  throw malformed();
}

function toNumber(value: unknown): number {
  if (typeof value === "number" && Number.isSafeInteger(value)) return value;
  throw malformed();
}

function toText(value: unknown): string {
  if (typeof value === "string") return value;
  throw malformed();
}

function optionalText(value: unknown): string | undefined {
  return value === undefined ? undefined : toText(value);
}

function toBytes(value: unknown): Uint8Array {
  if (value instanceof Uint8Array) return value;
  throw malformed();
}

function optionalBytes(value: unknown): Uint8Array | null {
  return value === null ? null : toBytes(value);
}

function toArray(value: unknown): unknown[] {
  if (Array.isArray(value)) return value as unknown[];
  throw malformed();
}

function malformed(): Error {
  return kimberliteError("log_damaged", "a record does not have the record format");
}
