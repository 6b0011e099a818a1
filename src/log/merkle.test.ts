import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { EMPTY_ROOT, leafHash, MerkleFrontier, nodeHash } from "./merkle.ts";

const SIZES = 301;

function sha256(...parts: readonly Uint8Array[]): Buffer {
  return createHash("sha256").update(Buffer.concat(parts)).digest();
}

/** RFC 9162 §2.1.1, word for word, on another hash interface than the code under test. */
function treeHash(leaves: readonly Buffer[]): Buffer {
  const [only] = leaves;
  if (only === undefined) return sha256();
  if (leaves.length === 1) return only;
  let middle = 1;
  while (middle * 2 < leaves.length) middle *= 2;
  return sha256(Buffer.of(1), treeHash(leaves.slice(0, middle)), treeHash(leaves.slice(middle)));
}

function leaves(count: number): Buffer[] {
  return Array.from({ length: count }, (_, index) => sha256(Buffer.of(0), Buffer.from(`leaf ${index}`)));
}

function grown(count: number): MerkleFrontier {
  const frontier = MerkleFrontier.empty();
  for (const leaf of leaves(count)) frontier.append(leaf);
  return frontier;
}

describe("leafHash", () => {
  it("prefixes 0x00 at every length, also beyond its scratch memory, and in parts", () => {
    for (const length of [0, 1, 55, 256, 65_535, 65_536, 200_000]) {
      const entry = Buffer.alloc(length, 0xa5);
      const expected = sha256(Buffer.of(0), entry).toString("hex");
      expect(leafHash(entry).toString("hex")).toBe(expected);
      expect(leafHash(entry.subarray(0, 40), entry.subarray(40)).toString("hex")).toBe(expected);
    }
  });

  it("gives buffers of their own", () => {
    const first = leafHash(Buffer.from("a"));
    const copy = Buffer.from(first);
    leafHash(Buffer.from("b"));
    expect(first).toEqual(copy);
  });
});

describe("nodeHash", () => {
  it("prefixes 0x01 and keeps left and right apart", () => {
    const [left, right] = leaves(2) as [Buffer, Buffer];
    expect(nodeHash(left, right)).toEqual(sha256(Buffer.of(1), left, right));
    expect(nodeHash(right, left)).not.toEqual(nodeHash(left, right));
    expect(() => nodeHash(left, right.subarray(1))).toThrow("assertion failed");
  });
});

describe("MerkleFrontier", () => {
  it("has the root of the RFC's recursive definition at every size", () => {
    const all = leaves(SIZES);
    const frontier = MerkleFrontier.empty();
    expect(frontier.root()).toEqual(EMPTY_ROOT);
    for (const [index, leaf] of all.entries()) {
      frontier.append(leaf);
      expect(frontier.size).toBe(BigInt(index + 1));
      expect(frontier.root()).toEqual(treeHash(all.slice(0, index + 1)));
    }
  });

  it("continues from a snapshot of any size as if it had never stopped", () => {
    const count = fc.integer({ min: 0, max: 200 });
    fc.assert(
      fc.property(count, count, (before, after) => {
        const resumed = MerkleFrontier.restore(grown(before).snapshot());
        for (const leaf of leaves(before + after).slice(before)) resumed.append(leaf);
        expect(resumed.root()).toEqual(grown(before + after).root());
        expect(resumed.snapshot()).toEqual(grown(before + after).snapshot());
      }),
    );
  });

  it("is not changed by asking for its root or by what its callers do with their buffers", () => {
    const frontier = MerkleFrontier.empty();
    for (const leaf of leaves(77)) {
      frontier.append(leaf);
      leaf.fill(0);
      frontier.root().fill(0);
      for (const hash of frontier.snapshot().hashes) hash.fill(0);
    }
    expect(frontier.root()).toEqual(treeHash(leaves(77)));
  });

  it("continues a tree of more than 2^32 leaves", () => {
    const size = 2n ** 40n + 2n ** 33n + 1n;
    const [a, b, c, d] = leaves(4) as [Buffer, Buffer, Buffer, Buffer];
    const frontier = MerkleFrontier.restore({ size, hashes: [a, b, c] });
    expect(frontier.root()).toEqual(nodeHash(a, nodeHash(b, c)));
    frontier.append(d);
    expect(frontier.size).toBe(size + 1n);
    expect(frontier.snapshot().hashes).toEqual([a, b, nodeHash(c, d)]);
  });

  it("refuses a snapshot that no tree has", () => {
    const [hash] = leaves(1) as [Buffer];
    const refused: readonly [bigint | number, Buffer[]][] = [
      [0, [hash]],
      [1, []],
      [3n, [hash]],
      [4n, [hash, hash]],
      [-1n, [hash]],
      [1.5, [hash]],
      [2n ** 53n, [hash]],
      [1n, [hash.subarray(1)]],
    ];
    for (const [size, hashes] of refused) {
      expect(() => MerkleFrontier.restore({ size, hashes })).toThrow(
        expect.objectContaining({ code: "log_damaged" }),
      );
    }
  });
});
