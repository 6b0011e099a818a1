import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { EMPTY_ROOT, leafHash, MerkleFrontier, nodeHash, RangeRoots } from "./merkle.ts";
import {
  type ConsistencyProof,
  consistencyRanges,
  type InclusionProof,
  inclusionRanges,
  type Prover,
  proveConsistency,
  proveInclusion,
  verifyConsistency,
  verifyInclusion,
} from "./proofs.ts";

const MAX_SIZE = 300;
const LEAVES = Array.from({ length: MAX_SIZE }, (_, index) => leafHash(Buffer.from(`leaf ${index}`)));

function split(count: number): number {
  let middle = 1;
  while (middle * 2 < count) middle *= 2;
  return middle;
}

/** RFC 9162 §2.1.1, word for word. */
function treeHash(leaves: readonly Buffer[]): Buffer {
  const [only] = leaves;
  if (only === undefined) return EMPTY_ROOT;
  if (leaves.length === 1) return only;
  const middle = split(leaves.length);
  return nodeHash(treeHash(leaves.slice(0, middle)), treeHash(leaves.slice(middle)));
}

/** RFC 9162 §2.1.3.1, word for word. */
function path(index: number, leaves: readonly Buffer[]): Buffer[] {
  if (leaves.length === 1) return [];
  const middle = split(leaves.length);
  const [left, right] = [leaves.slice(0, middle), leaves.slice(middle)];
  return index < middle
    ? [...path(index, left), treeHash(right)]
    : [...path(index - middle, right), treeHash(left)];
}

/** RFC 9162 §2.1.4.1, word for word. */
function subproof(size: number, leaves: readonly Buffer[], whole: boolean): Buffer[] {
  if (size === leaves.length) return whole ? [] : [treeHash(leaves)];
  const middle = split(leaves.length);
  const [left, right] = [leaves.slice(0, middle), leaves.slice(middle)];
  return size <= middle
    ? [...subproof(size, left, whole), treeHash(right)]
    : [...subproof(size - middle, right, false), treeHash(left)];
}

function prove<Proof>(prover: Prover<Proof>, size: number): Proof {
  for (const leaf of LEAVES.slice(0, size)) prover.push(leaf);
  return prover.finish();
}

const inclusionOf = (offset: number, size: number): InclusionProof =>
  prove(proveInclusion({ offset: BigInt(offset), size: BigInt(size) }), size);
const consistencyOf = (fromSize: number, toSize: number): ConsistencyProof =>
  prove(proveConsistency({ fromSize: BigInt(fromSize), toSize: BigInt(toSize) }), toSize);

const proofInvalid: unknown = expect.objectContaining({ code: "proof_invalid" });
const outOfRange: unknown = expect.objectContaining({ code: "offset_out_of_range" });

/** An index and a size that it is in; every pair up to the limit can come. */
const leafInTree = fc
  .integer({ min: 1, max: MAX_SIZE })
  .chain((size) => fc.tuple(fc.integer({ min: 0, max: size - 1 }), fc.constant(size)));

interface InclusionVector {
  readonly name: string;
  readonly leafIdx: number;
  readonly treeSize: number;
  readonly root: string;
  readonly leafHash: string;
  readonly proof: readonly string[] | null;
  readonly wantErr: boolean;
}

interface ConsistencyVector {
  readonly name: string;
  readonly size1: number;
  readonly size2: number;
  readonly root1: string;
  readonly root2: string;
  readonly proof: readonly string[] | null;
  readonly wantErr: boolean;
}

function vectors<Vector>(file: string): Vector[] {
  const text = readFileSync(new URL(`../../test/vectors/${file}`, import.meta.url), "utf8");
  return JSON.parse(text) as Vector[];
}

const bytes = (base64: string): Buffer => Buffer.from(base64, "base64");

describe("inclusion", () => {
  const all = vectors<InclusionVector>("merkle-inclusion.json");

  it("has vectors of both kinds", () => {
    expect(all.filter(({ wantErr }) => wantErr).length).toBeGreaterThan(80);
    expect(all.filter(({ wantErr }) => !wantErr).length).toBeGreaterThan(5);
  });

  it.each(all)("vector $name", (vector) => {
    const check = (): void =>
      verifyInclusion({
        offset: BigInt(vector.leafIdx),
        size: BigInt(vector.treeSize),
        leafHash: bytes(vector.leafHash),
        path: (vector.proof ?? []).map(bytes),
        root: bytes(vector.root),
      });
    if (vector.wantErr) expect(check).toThrow(proofInvalid);
    else check();
  });

  it("gives the RFC's path, leaf and root, which verify", () => {
    for (let size = 1; size <= 70; size += 1) {
      for (let offset = 0; offset < size; offset += 1) expectInclusion(offset, size);
    }
    fc.assert(fc.property(leafInTree, ([offset, size]) => expectInclusion(offset, size)));
  });

  function expectInclusion(offset: number, size: number): void {
    const proof = inclusionOf(offset, size);
    expect(proof.path).toEqual(path(offset, LEAVES.slice(0, size)));
    expect(proof.leafHash).toEqual(LEAVES[offset]);
    expect(proof.root).toEqual(treeHash(LEAVES.slice(0, size)));
    verifyInclusion(proof);
  }

  it("holds for no other leaf, offset, root, or path", () => {
    fc.assert(
      fc.property(leafInTree, fc.nat(), fc.nat(), ([offset, size], place, bit) => {
        const proof = inclusionOf(offset, size);
        const hashes = [proof.leafHash, proof.root, ...proof.path].map((hash) => Buffer.from(hash));
        flip(hashes, place, bit);
        const [otherLeaf, otherRoot, ...otherPath] = hashes as [Buffer, Buffer, ...Buffer[]];
        const wrong: InclusionProof[] = [
          { ...proof, leafHash: otherLeaf, root: otherRoot, path: otherPath },
          { ...proof, path: [...proof.path, LEAVES[0] as Buffer] },
          { ...proof, path: [LEAVES[0] as Buffer, ...proof.path] },
          { ...proof, offset: proof.offset + 1n },
          { ...proof, offset: proof.offset - 1n },
        ];
        if (size > 1)
          wrong.push({ ...proof, path: proof.path.slice(1) }, { ...proof, path: proof.path.slice(0, -1) });
        for (const changed of wrong) {
          expect(() => verifyInclusion(changed)).toThrow(proofInvalid);
        }
      }),
    );
  });

  it("refuses offsets outside of the tree, and sizes beyond 64 bits", () => {
    for (const [offset, size] of [
      [0n, 0n],
      [5n, 5n],
      [-1n, 5n],
      [0n, 2n ** 64n],
    ] as const) {
      expect(() => inclusionRanges({ offset, size })).toThrow(outOfRange);
      const proof = { offset, size, leafHash: EMPTY_ROOT, path: [], root: EMPTY_ROOT };
      expect(() => verifyInclusion(proof)).toThrow(proofInvalid);
    }
  });
});

describe("consistency", () => {
  const all = vectors<ConsistencyVector>("merkle-consistency.json");

  it("has vectors of both kinds", () => {
    expect(all.filter(({ wantErr }) => wantErr).length).toBeGreaterThan(80);
    expect(all.filter(({ wantErr }) => !wantErr).length).toBeGreaterThan(3);
  });

  it.each(all)("vector $name", (vector) => {
    const check = (): void =>
      verifyConsistency({
        fromSize: BigInt(vector.size1),
        toSize: BigInt(vector.size2),
        fromRoot: bytes(vector.root1),
        toRoot: bytes(vector.root2),
        path: (vector.proof ?? []).map(bytes),
      });
    if (vector.wantErr) expect(check).toThrow(proofInvalid);
    else check();
  });

  it("gives the RFC's path and both roots, which verify", () => {
    for (let to = 1; to <= 70; to += 1) {
      for (let from = 1; from <= to; from += 1) expectConsistency(from, to);
    }
    const sizes = fc.tuple(fc.integer({ min: 1, max: MAX_SIZE }), fc.integer({ min: 1, max: MAX_SIZE }));
    fc.assert(fc.property(sizes, ([a, b]) => expectConsistency(Math.min(a, b), Math.max(a, b))));
  });

  function expectConsistency(from: number, to: number): void {
    const proof = consistencyOf(from, to);
    expect(proof.path).toEqual(subproof(from, LEAVES.slice(0, to), true));
    expect(proof.fromRoot).toEqual(treeHash(LEAVES.slice(0, from)));
    expect(proof.toRoot).toEqual(treeHash(LEAVES.slice(0, to)));
    verifyConsistency(proof);
  }

  it("holds for no other root, size or path", () => {
    fc.assert(
      fc.property(leafInTree, fc.nat(), fc.nat(), ([before, to], place, bit) => {
        const proof = consistencyOf(before + 1, to);
        const hashes = [proof.fromRoot, proof.toRoot, ...proof.path].map((hash) => Buffer.from(hash));
        flip(hashes, place, bit);
        const [fromRoot, toRoot, ...otherPath] = hashes as [Buffer, Buffer, ...Buffer[]];
        const wrong: ConsistencyProof[] = [
          { ...proof, fromRoot, toRoot, path: otherPath },
          { ...proof, path: [...proof.path, LEAVES[0] as Buffer] },
          { ...proof, path: [LEAVES[0] as Buffer, ...proof.path] },
          { ...proof, fromSize: proof.fromSize - 1n },
        ];
        if (proof.path.length > 0) wrong.push({ ...proof, path: proof.path.slice(0, -1) });
        for (const changed of wrong) expect(() => verifyConsistency(changed)).toThrow(proofInvalid);
      }),
    );
  });

  it("finds a log that was rewritten behind a checkpoint", () => {
    const honest = consistencyOf(100, 200);
    const rewritten = proveConsistency({ fromSize: 100n, toSize: 200n });
    for (const [index, leaf] of LEAVES.slice(0, 200).entries()) {
      rewritten.push(index === 42 ? leafHash(Buffer.from("forged")) : leaf);
    }
    const proof = rewritten.finish();
    verifyConsistency(proof);
    expect(() => verifyConsistency({ ...proof, fromRoot: honest.fromRoot })).toThrow(proofInvalid);
  });

  it("refuses sizes that are not in order, the empty tree, and a path where none belongs", () => {
    for (const [fromSize, toSize] of [
      [0n, 0n],
      [0n, 1n],
      [2n, 1n],
      [-1n, 1n],
      [1n, 2n ** 64n],
    ] as const) {
      expect(() => consistencyRanges({ fromSize, toSize })).toThrow(outOfRange);
      const proof = { fromSize, toSize, fromRoot: EMPTY_ROOT, toRoot: EMPTY_ROOT, path: [] };
      expect(() => verifyConsistency(proof)).toThrow(proofInvalid);
    }
    const hash = LEAVES[0] as Buffer;
    for (const changed of [{ fromRoot: hash }, { toRoot: hash }, { path: [hash] }]) {
      expect(() => verifyConsistency({ ...consistencyOf(5, 5), ...changed })).toThrow(proofInvalid);
    }
  });
});

describe("RangeRoots", () => {
  it("computes ranges in the order asked for, with gaps between them", () => {
    const roots = new RangeRoots([
      { begin: 10n, end: 17n },
      { begin: 2n, end: 3n },
    ]);
    for (const leaf of LEAVES.slice(0, 20)) roots.push(leaf);
    expect(roots.finish()).toEqual([treeHash(LEAVES.slice(10, 17)), treeHash(LEAVES.slice(2, 3))]);
  });

  it("takes an overlap, an empty range and a missing leaf for bugs", () => {
    const range = { begin: 2n, end: 5n };
    expect(() => new RangeRoots([range, { begin: 4n, end: 6n }])).toThrow("assertion failed");
    expect(() => new RangeRoots([{ begin: 2n, end: 2n }])).toThrow("assertion failed");
    expect(() => new RangeRoots([range]).finish()).toThrow("assertion failed");
  });

  it("proves a leaf of 100,000 in one pass", () => {
    const [offset, size] = [77_777n, 100_000n];
    const prover = proveInclusion({ offset, size });
    const frontier = MerkleFrontier.empty();
    for (let index = 0n; index < size; index += 1n) {
      const leaf = LEAVES[Number(index) % MAX_SIZE] as Buffer;
      prover.push(leaf);
      frontier.append(leaf);
    }
    verifyInclusion({ ...prover.finish(), root: frontier.root() });
  });
});

function flip(hashes: readonly Buffer[], place: number, bit: number): void {
  const hash = hashes[place % hashes.length] as Buffer;
  const at = (bit >> 3) % hash.length;
  hash[at] = (hash[at] ?? 0) ^ (1 << (bit % 8));
}
