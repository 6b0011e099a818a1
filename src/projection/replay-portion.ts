/** Records on their way into a projection, in a form that goes from one thread to another at little cost. */
import { kimberliteError } from "../errors.ts";
import { decodeRecord, type LogRecord } from "../log/record.ts";

/** Records of one log, one after the other. */
export type ReplayPortion =
  | {
      readonly kind: "bytes";
      readonly firstOffset: bigint;
      readonly records: readonly Uint8Array[];
    }
  /** Rows of subjects are opened where their keys are. */
  | { readonly kind: "decoded"; readonly records: readonly LogRecord[] };

/** @throws `log_damaged` for a record that is not at its place */
export function* recordsOf(portion: ReplayPortion): Generator<LogRecord> {
  if (portion.kind === "decoded") {
    yield* portion.records;
    return;
  }
  for (const [index, bytes] of portion.records.entries()) {
    const record = decodeRecord(bytes);
    const offset = portion.firstOffset + BigInt(index);
    if (record.offset !== offset) {
      throw kimberliteError("log_damaged", "a record's offset is not its place", { detail: { offset } });
    }
    yield record;
  }
}

/**
 * The same records in one piece of memory of their own, which can be handed to another thread without a copy. Parts of
 * larger pieces would take these along.
 */
export function packed(portions: readonly ReplayPortion[]): {
  readonly portions: ReplayPortion[];
  readonly memory: ArrayBuffer[];
} {
  const memory: ArrayBuffer[] = [];
  const made = portions.map((portion): ReplayPortion => {
    if (portion.kind === "decoded") return portion;
    const bytes = new Uint8Array(portion.records.reduce((sum, record) => sum + record.length, 0));
    memory.push(bytes.buffer);
    let at = 0;
    const records = portion.records.map((record) => {
      bytes.set(record, at);
      at += record.length;
      return bytes.subarray(at - record.length, at);
    });
    return { ...portion, records };
  });
  return { portions: made, memory };
}
