/**
 * Rows of subjects in records: sealed one by one under the key of the subject whose they are, and opened for whoever
 * reads the log.
 *
 * sealed = nonce ‖ AES-256-GCM(key of the subject, CBOR [key, before, after]) ‖ tag, bound to the record's offset, the
 * place of the change in it, the stream and the subject. So a sealed row cannot be moved, and once the key is destroyed
 * nobody opens it; leaves, proofs and chain are over the sealed bytes and stay as they are.
 */
import { createCipheriv, createDecipheriv, type KeyObject } from "node:crypto";
import { kimberliteError } from "../errors.ts";
import type { Randomness } from "../host/randomness.ts";
import type { SubjectKeys } from "../keys/subject-keys.ts";
import type { TenantKeys } from "../keys/tenant-keys.ts";
import { type Change, decodeCbor, encodeCbor, type LogRecord, type RowKey } from "../log/record.ts";

type SealedRow = Extract<Change, { kind: "sealed-row" }>;
type RowChange = Extract<Change, { kind: "row" }>;

const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const GCM = { authTagLength: TAG_BYTES } as const;

/** What sealing needs beside the changes. */
export interface SealPlace {
  readonly subjects: SubjectKeys;
  readonly randomness: Randomness;
  /** Of the record that the changes will be in. */
  readonly offset: bigint;
  /** The subject whose erasure makes them, if one does. */
  readonly erasing?: Uint8Array | undefined;
}

/** The changes as a record holds them. @throws `overloaded` for rows of a subject that is being erased */
export function sealRows(changes: readonly Change[], place: SealPlace): Change[] {
  return changes.map((change, index) =>
    change.kind === "row" && change.subject !== undefined
      ? sealRow(change, change.subject, index, place)
      : change,
  );
}

function sealRow(change: RowChange, value: Uint8Array, index: number, place: SealPlace): SealedRow {
  const { subjects, randomness, offset, erasing } = place;
  const { stream } = change;
  const { subject, key } = subjects.keyFor(value, erasing);
  const plain = encodeCbor([change.key, change.before, change.after]);
  const nonce = randomness.bytes(NONCE_BYTES);
  const cipher = createCipheriv("aes-256-gcm", key, nonce, GCM).setAAD(
    bindingOf({ offset, index, stream, subject }),
  );
  const sealed = Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
  plain.fill(0);
  return { kind: "sealed-row", stream, subject, sealed };
}

/**
 * The record with its sealed rows opened; those of erased subjects are `erased-row`. Records without any cost a look.
 *
 * @param isErased is asked of a subject that there is no key of: was it erased, or are keys missing?
 * @throws `keys_missing`, `log_damaged`
 */
export function openRows(
  record: LogRecord,
  keys: TenantKeys,
  isErased: (subject: Uint8Array) => boolean,
): LogRecord {
  if (!record.changes.some(({ kind }) => kind === "sealed-row")) return record;
  const changes = record.changes.map((change, index) => {
    if (change.kind !== "sealed-row") return change;
    const { stream, subject } = change;
    const key = keys.subjects.keyOf(subject);
    if (key !== null && key !== undefined) return openRow(change, key, { offset: record.offset, index });
    if (key === null || isErased(subject)) return { kind: "erased-row", stream, subject } as const;
    throw kimberliteError("keys_missing", "the key of a subject is not in the key store", {
      detail: { offset: record.offset },
    });
  });
  return { ...record, changes };
}

function openRow(
  { stream, subject, sealed }: SealedRow,
  key: KeyObject,
  at: { readonly offset: bigint; readonly index: number },
): RowChange {
  const bytes = Buffer.from(sealed.buffer, sealed.byteOffset, sealed.byteLength);
  const end = bytes.length - TAG_BYTES;
  try {
    const decipher = createDecipheriv("aes-256-gcm", key, bytes.subarray(0, NONCE_BYTES), GCM);
    decipher.setAAD(bindingOf({ ...at, stream, subject })).setAuthTag(bytes.subarray(end));
    const plain = Buffer.concat([decipher.update(bytes.subarray(NONCE_BYTES, end)), decipher.final()]);
    const [rowKey, before, after] = decodeCbor(plain) as [
      number | bigint | Uint8Array,
      Uint8Array | null,
      Uint8Array | null,
    ];
    return { kind: "row", stream, key: toRowKey(rowKey), before, after };
  } catch (cause) {
    throw kimberliteError("log_damaged", `a sealed row of the record at offset ${at.offset} does not open`, {
      detail: { offset: at.offset },
      cause,
    });
  }
}

function toRowKey(key: number | bigint | Uint8Array): RowKey {
  return typeof key === "number" ? BigInt(key) : key;
}

/** `kimberlite/v1/subject-row` ‖ offset (u64) ‖ place (u32) ‖ stream (u32) ‖ subject. */
function bindingOf(at: {
  readonly offset: bigint;
  readonly index: number;
  readonly stream: number;
  readonly subject: Uint8Array;
}): Buffer {
  const numbers = Buffer.alloc(16);
  numbers.writeBigUInt64LE(at.offset, 0);
  numbers.writeUInt32LE(at.index, 8);
  numbers.writeUInt32LE(at.stream, 12);
  return Buffer.concat([Buffer.from("kimberlite/v1/subject-row"), numbers, at.subject]);
}
