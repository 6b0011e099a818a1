import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Change, decodeRecord, encodeRecord, type LogRecord } from "./record.ts";
import { isRecordAt } from "./record-scan.ts";

const int64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
const bytes = fc.uint8Array({ maxLength: 300 });
const stream = fc.integer({ min: 1, max: 2 ** 31 });
const change: fc.Arbitrary<Change> = fc.oneof(
  fc.record({
    kind: fc.constant("row" as const),
    stream,
    key: fc.oneof(int64, bytes),
    before: fc.option(bytes),
    after: fc.option(bytes),
  }),
  fc.record({
    kind: fc.constant("ddl" as const),
    sql: fc.string({ unit: "binary" }),
    bindings: fc.array(fc.record({ stream, name: fc.option(fc.string()) }), { maxLength: 3 }),
  }),
  fc.record({ kind: fc.constant("sequence" as const), table: fc.string(), value: fc.option(int64) }),
  fc.record({ kind: fc.constant("create-stream" as const), stream, name: fc.string() }),
  fc.record({
    kind: fc.constant("events" as const),
    stream,
    firstOffset: fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }),
    events: fc.array(bytes, { maxLength: 5 }),
  }),
);
const record: fc.Arbitrary<LogRecord> = fc.record(
  {
    offset: fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }),
    timeUs: fc.bigInt({ min: 0n, max: 2n ** 62n }),
    actor: fc.string({ minLength: 1, maxLength: 255, unit: "binary" }),
    idempotencyKey: fc.string({ minLength: 1 }),
    correlationId: fc.string({ minLength: 1 }),
    changes: fc.array(change, { maxLength: 6 }),
  },
  { requiredKeys: ["offset", "timeUs", "actor", "changes"] },
);

describe("isRecordAt", () => {
  it("knows every record that is encoded, at its offset and no other", () => {
    fc.assert(
      fc.property(record, (made) => {
        const encoded = encodeRecord(made);
        expect(isRecordAt(encoded, made.offset)).toBe(true);
        expect(isRecordAt(encoded, made.offset + 1n)).toBe(false);
      }),
    );
  });

  it("refuses a record that is cut short or goes on", () => {
    fc.assert(
      fc.property(record, fc.nat(), (made, cut) => {
        const encoded = encodeRecord(made);
        expect(isRecordAt(encoded.subarray(0, cut % encoded.length), made.offset)).toBe(false);
        expect(isRecordAt(Buffer.concat([encoded, Buffer.of(0)]), made.offset)).toBe(false);
      }),
    );
  });

  it("says yes to no altered bytes whose offset the decoder reads otherwise", () => {
    fc.assert(
      fc.property(record, fc.nat(), fc.integer({ min: 1, max: 255 }), (made, place, flip) => {
        const altered = encodeRecord(made);
        const at = (place % 24) % altered.length;
        altered[at] = (altered[at] as number) ^ flip;
        if (!isRecordAt(altered, made.offset)) return;
        expect(offsetOf(altered) ?? made.offset).toBe(made.offset);
      }),
    );
  });

  it("says no to arbitrary bytes without reading past them", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (garbage) => {
        if (isRecordAt(garbage, 0n)) expect(decodeRecord(garbage).offset).toBe(0n);
      }),
    );
  });
});

/** Undefined where the shape of another field is what was altered. */
function offsetOf(altered: Uint8Array): bigint | undefined {
  try {
    return decodeRecord(altered).offset;
  } catch {
    return undefined;
  }
}
