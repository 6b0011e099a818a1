import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { KimberliteError } from "../errors.ts";
import {
  type Change,
  decodeRecord,
  encodeChanges,
  encodeRecord,
  joinRecord,
  type LogRecord,
} from "./record.ts";

const bytes = fc.uint8Array({ maxLength: 40 }).map((array) => Buffer.from(array));
const int64 = fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n);
const offset = fc.bigInt(0n, 2n ** 63n - 1n);
const stream = fc.nat();
const text = fc.string({ unit: "grapheme", maxLength: 30 });

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
    sql: text,
    bindings: fc.array(fc.record({ stream, name: fc.option(text) }), { maxLength: 3 }),
  }),
  fc.record({ kind: fc.constant("sequence" as const), table: text, value: fc.option(int64) }),
  fc.record({ kind: fc.constant("create-stream" as const), stream, name: text }),
  fc.record({
    kind: fc.constant("events" as const),
    stream,
    firstOffset: offset,
    events: fc.array(bytes, { maxLength: 4 }),
  }),
);

const record: fc.Arbitrary<LogRecord> = fc.record({
  offset,
  timeUs: int64,
  actor: text,
  idempotencyKey: fc.option(text, { nil: undefined }),
  correlationId: fc.option(text, { nil: undefined }),
  changes: fc.array(change, { maxLength: 6 }),
});

describe("a record", () => {
  it("is decoded as it was encoded, with every integer of 64 bits exact", () => {
    fc.assert(
      fc.property(record, (original) => {
        expect(decodeRecord(encodeRecord(original))).toEqual(original);
      }),
    );
  });

  it("has one encoding, also when its changes are encoded apart", () => {
    fc.assert(
      fc.property(record, ({ changes, ...head }) => {
        const whole = encodeRecord({ ...head, changes });
        expect(joinRecord(head, encodeChanges(changes)).equals(whole)).toBe(true);
        expect(encodeRecord(decodeRecord(whole)).equals(whole)).toBe(true);
      }),
    );
  });

  it("is refused as damaged, and nothing worse, whatever bytes are given for it", () => {
    const attempt = (given: Uint8Array): void => {
      try {
        decodeRecord(given);
      } catch (error) {
        expect(error).toBeInstanceOf(KimberliteError);
        expect(error).toMatchObject({ code: "log_damaged" });
      }
    };
    fc.assert(fc.property(fc.uint8Array({ maxLength: 60 }), attempt), { numRuns: 500 });
    fc.assert(
      fc.property(record, fc.nat(), fc.nat(255), (original, at, value) => {
        const changed = encodeRecord(original);
        changed[at % changed.length] = value;
        attempt(changed);
        attempt(changed.subarray(0, at % changed.length));
      }),
      { numRuns: 500 },
    );
  });
});
