import { createSecretKey, hash } from "node:crypto";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { systemRandomness } from "../host/randomness.ts";
import { TenantId } from "../tenant/tenant-id.ts";
import {
  blockBytes,
  GENESIS_HASH,
  isHollow,
  openBlock,
  parseBlock,
  parseHeader,
  recordCostBytes,
  type SealRequest,
  sealBlock,
  sealHollow,
  totalBytesOf,
} from "./block.ts";

const KEY = createSecretKey(Buffer.alloc(32, 7));

function request(records: readonly Uint8Array[], change: Partial<SealRequest> = {}): SealRequest {
  return {
    tenant: TenantId(5),
    firstOffset: 41n,
    dekVersion: 3,
    epoch: 0n,
    timeUs: 1_700_000_000_000_000n,
    previousHash: GENESIS_HASH,
    records,
    key: KEY,
    randomness: systemRandomness(),
    ...change,
  };
}

function parsed(bytes: Buffer): ReturnType<typeof parseBlock> {
  const header = parseHeader(bytes);
  if (header === undefined) throw new Error("no header");
  return parseBlock(bytes, header);
}

const RECORDS = fc.array(fc.uint8Array({ maxLength: 300 }), { minLength: 1, maxLength: 20 });

describe("a block", () => {
  it("gives back the records that it was sealed with, and is exactly as long as it was said to be", () => {
    fc.assert(
      fc.property(RECORDS, (records) => {
        const { bytes, hash: sealedHash } = sealBlock(request(records));
        const size = records.reduce((sum, record) => sum + record.length, 0);
        const block = parsed(bytes);
        expect(bytes.length).toBe(blockBytes(records.length, size));
        expect(
          bytes.length - blockBytes(records.length, size - (records[0]?.length ?? 0)) + recordCostBytes(0),
        ).toBe(recordCostBytes(records[0]?.length ?? 0));
        expect(totalBytesOf(block.header)).toBe(bytes.length);
        expect(hash("sha256", bytes.subarray(0, -32), "buffer")).toEqual(sealedHash);
        expect(block.storedHash).toEqual(sealedHash);
        expect(openBlock(block, KEY).map((record) => Buffer.from(record))).toEqual(
          records.map((record) => Buffer.from(record)),
        );
      }),
    );
  });

  it("does not open with any bit of its header or body changed", () => {
    const { bytes } = sealBlock(request([Buffer.from("first record"), Buffer.from("second")]));
    fc.assert(
      fc.property(fc.nat(bytes.length - 33), fc.nat(7), (at, bit) => {
        const changed = Buffer.from(bytes);
        changed.writeUInt8(changed.readUInt8(at) ^ (1 << bit), at);
        expect(() => {
          const header = parseHeader(changed);
          if (header === undefined || totalBytesOf(header) !== bytes.length)
            throw new Error("is no such block");
          openBlock(parseBlock(changed, header), KEY);
        }).toThrow();
      }),
      { numRuns: 400 },
    );
  });

  it("does not open under another key", () => {
    const { bytes } = sealBlock(request([Buffer.from("record")]));
    expect(() => openBlock(parsed(bytes), createSecretKey(Buffer.alloc(32, 8)))).toThrow(
      expect.objectContaining({ code: "log_damaged", detail: { tenant: TenantId(5), offset: 41n } }),
    );
  });

  it("shows neither content nor equality of contents: nonce and salts are fresh", () => {
    const seal = () => parsed(sealBlock(request([Buffer.from("the same"), Buffer.from("the same")])).bytes);
    const [a, b] = [seal(), seal()];
    const leaves = [...a.leafHashes, ...b.leafHashes].map((leaf) => leaf.toString("hex"));
    expect(new Set(leaves).size).toBe(4);
    expect(a.header.nonce.equals(b.header.nonce)).toBe(false);
    expect(leaves).not.toContain(hash("sha256", Buffer.concat([Buffer.of(0), Buffer.from("the same")])));
    expect(a.sealed.includes("the same")).toBe(false);
  });

  it("of a later version is refused, and what is no block is none", () => {
    const { bytes } = sealBlock(request([Buffer.from("record")]));
    const later = Buffer.from(bytes);
    later.writeUInt16LE(4, 4);
    expect(() => parseHeader(later)).toThrow(expect.objectContaining({ code: "format_too_new" }));
    for (const none of [Buffer.alloc(200), bytes.subarray(0, 40), Buffer.concat([Buffer.of(0), bytes])]) {
      expect(parseHeader(none)).toBeUndefined();
    }
    for (const [at, value] of [
      [24, 0],
      [24, 70_000],
      [92, 0],
      [92, 0xffff_ffff],
    ] as const) {
      const absurd = Buffer.from(bytes);
      absurd.writeUInt32LE(value, at);
      expect(parseHeader(absurd)).toBeUndefined();
    }
  });

  it("without its records keeps their leaves, and is told from one that has them", () => {
    const full = parsed(sealBlock(request([Buffer.from("one"), Buffer.from("two")])).bytes);
    const { key: _, records: _records, dekVersion: _dek, ...place } = request([]);
    const { bytes, hash: hollowHash } = sealHollow({ ...place, leafHashes: full.leafHashes });
    const hollow = parsed(bytes);
    expect(isHollow(hollow.header)).toBe(true);
    expect(isHollow(full.header)).toBe(false);
    expect(hollow.leafHashes).toEqual(full.leafHashes);
    expect(hollow.header.sealedBytes).toBe(0);
    expect(hollow.storedHash).toEqual(hollowHash);
    expect(() => openBlock(hollow, KEY)).toThrow(expect.objectContaining({ code: "offset_trimmed" }));
    for (const [at, value] of [
      [4, 1],
      [28, 3],
      [92, 40],
    ] as const) {
      const mixed = Buffer.from(bytes);
      mixed.writeUInt16LE(value, at);
      expect(parseHeader(mixed)).toBeUndefined();
    }
  });
});
