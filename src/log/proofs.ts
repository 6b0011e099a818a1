/**
 * Merkle proofs (RFC 9162 §2.1.3 and §2.1.4): which subtree roots make one, computing them from a stream of leaf
 * hashes, and checking them without the log.
 *
 * Invariants: a proof of a log of any length is made in one pass over its leaf hashes, in order, with O(log n)
 * memory; making and checking follow the two independent algorithms of the RFC and share only the node hash; every
 * malformed, truncated, padded or reordered proof is refused with `proof_invalid`, whatever is wrong with it.
 */
import { assert, kimberliteError } from "../errors.ts";
import { HASH_BYTES, type LeafRange, nodeHash, RangeRoots } from "./merkle.ts";

/**
 * Shows that the leaf at `offset` is in the tree of `size` leaves that has `root`.
 *
 * It proves nothing by itself: the checker takes `size` and `root` from a checkpoint that it trusts, and computes
 * `leafHash` from the record that it holds.
 */
export interface InclusionProof {
  /** The leaf's index, which is the record's offset: 0 ≤ offset < size. */
  readonly offset: bigint;
  /** Leaves in the tree. */
  readonly size: bigint;
  /** 32 bytes. */
  readonly leafHash: Uint8Array;
  /** Sibling hashes from the leaf up to the root, 32 bytes each: the RFC's `inclusion_path`. */
  readonly path: readonly Uint8Array[];
  /** 32 bytes. */
  readonly root: Uint8Array;
}

/**
 * Shows that the tree of `fromSize` leaves is a prefix of the tree of `toSize` leaves: nothing was changed, removed
 * or reordered between the two.
 *
 * It proves nothing by itself: the checker takes sizes and roots from two checkpoints.
 */
export interface ConsistencyProof {
  /** 1 ≤ fromSize ≤ toSize: every tree extends the empty one, so from there is nothing to prove. */
  readonly fromSize: bigint;
  readonly toSize: bigint;
  /** 32 bytes. */
  readonly fromRoot: Uint8Array;
  /** 32 bytes. */
  readonly toRoot: Uint8Array;
  /** 32 bytes each: the RFC's `consistency_path`; empty between equal sizes. */
  readonly path: readonly Uint8Array[];
}

/** Takes every leaf hash of a tree in order, then gives its proof. */
export interface Prover<Proof> {
  /** The next leaf, from offset 0 on; the bytes are copied. */
  push(leafHash: Uint8Array): void;
  /** Called once, after all leaves of the (larger) tree were pushed. */
  finish(): Proof;
}

const MAX_TREE_SIZE = 2n ** 64n - 1n;
const MAX_TREE_LEVELS = 64n;

/**
 * The subtrees whose roots are the inclusion path of leaf `offset` in a tree of `size` leaves, in the path's order:
 * `PATH(m, D_n)` of RFC 9162 §2.1.3.1. They and the leaf itself cover the tree without overlap.
 *
 * @throws `offset_out_of_range` unless 0 ≤ offset < size < 2⁶⁴.
 */
export function inclusionRanges({ offset, size }: { offset: bigint; size: bigint }): LeafRange[] {
  if (size > MAX_TREE_SIZE || offset < 0n || offset >= size) {
    throw outOfRange("the tree has no leaf at this offset", { offset, size });
  }
  const ranges: LeafRange[] = [];
  let begin = 0n;
  let end = size;
  while (end - begin > 1n) {
    const middle = begin + largestPowerBelow(end - begin);
    if (offset < middle) {
      ranges.push({ begin: middle, end });
      end = middle;
    } else {
      ranges.push({ begin, end: middle });
      begin = middle;
    }
  }
  return ranges.reverse();
}

/**
 * The subtrees whose roots are the consistency path between two sizes of a tree, in the path's order:
 * `PROOF(m, D_n)` of RFC 9162 §2.1.4.1. They do not overlap; none is needed between equal sizes.
 *
 * @throws `offset_out_of_range` unless 1 ≤ fromSize ≤ toSize < 2⁶⁴.
 */
export function consistencyRanges(sizes: { fromSize: bigint; toSize: bigint }): LeafRange[] {
  const { fromSize, toSize } = sizes;
  if (toSize > MAX_TREE_SIZE || fromSize < 1n || fromSize > toSize) {
    throw outOfRange("a consistency proof leads from a tree with leaves to a later one", {
      fromSize,
      toSize,
    });
  }
  const ranges: LeafRange[] = [];
  let begin = 0n;
  let end = toSize;
  while (end !== fromSize) {
    const middle = begin + largestPowerBelow(end - begin);
    if (fromSize <= middle) {
      ranges.push({ begin: middle, end });
      end = middle;
    } else {
      ranges.push({ begin, end: middle });
      begin = middle;
    }
  }
  // The subtree that ends at fromSize is the whole smaller tree, known to the checker, unless it starts later.
  if (begin !== 0n) ranges.push({ begin, end });
  return ranges.reverse();
}

/**
 * Makes the proof that the leaf at `offset` is in the tree of `size` leaves. Cost: one node hash a leaf pushed.
 *
 * @throws `offset_out_of_range` unless 0 ≤ offset < size.
 */
export function proveInclusion(of: { offset: bigint; size: bigint }): Prover<InclusionProof> {
  const { offset, size } = of;
  const roots = new RangeRoots([{ begin: offset, end: offset + 1n }, ...inclusionRanges(of)]);
  return {
    push: (leafHash) => roots.push(leafHash),
    finish: () => {
      const [leafHash, ...path] = roots.finish();
      assert(leafHash !== undefined, "the leaf's own range comes first");
      return { offset, size, leafHash, path, root: rootOfInclusion({ offset, size, leafHash, path }) };
    },
  };
}

/**
 * Makes the proof that the tree of `fromSize` leaves is a prefix of the tree of `toSize` leaves. Cost: one node hash
 * a leaf pushed.
 *
 * @throws `offset_out_of_range` unless 1 ≤ fromSize ≤ toSize.
 */
export function proveConsistency(sizes: { fromSize: bigint; toSize: bigint }): Prover<ConsistencyProof> {
  const { fromSize, toSize } = sizes;
  const ranges = consistencyRanges(sizes);
  const pathHasStart = ranges.some(({ begin }) => begin === 0n);
  const roots = new RangeRoots(pathHasStart ? ranges : [...ranges, { begin: 0n, end: fromSize }]);
  return {
    push: (leafHash) => roots.push(leafHash),
    finish: () => {
      const all = roots.finish();
      const path = all.slice(0, ranges.length);
      const start = all.at(ranges.length);
      return { fromSize, toSize, ...rootsOfConsistency({ fromSize, toSize, start, path }), path };
    },
  };
}

/**
 * Checks an inclusion proof (RFC 9162 §2.1.3.2). `size` and `root` are to come from a trusted checkpoint and
 * `leafHash` from the record at hand, for instance `verifyInclusion({ ...proof, leafHash, size, root })`.
 *
 * @throws `proof_invalid` unless the path leads from the leaf to the root and has exactly the right length.
 */
export function verifyInclusion(proof: InclusionProof): void {
  const { offset, size, leafHash, path, root } = proof;
  if (size > MAX_TREE_SIZE || offset < 0n || offset >= size)
    throw invalidProof("the offset is not in the tree");
  requireHashes([leafHash, root, ...path]);
  if (!rootOfInclusion({ offset, size, leafHash, path }).equals(root)) {
    throw invalidProof("the path does not lead to the root");
  }
}

/**
 * Checks a consistency proof (RFC 9162 §2.1.4.2). Sizes and roots are to come from two checkpoints of one log. Between
 * equal sizes the roots must be equal and the path empty. From size 0 there is no proof, and none is accepted.
 *
 * @throws `proof_invalid` unless the path leads to both roots and has exactly the right length.
 */
export function verifyConsistency(proof: ConsistencyProof): void {
  const { fromSize, toSize, fromRoot, toRoot, path } = proof;
  if (toSize > MAX_TREE_SIZE || fromSize < 1n || fromSize > toSize) {
    throw invalidProof("it does not lead from a tree with leaves to a later one");
  }
  if (fromSize === toSize) {
    if (path.length > 0) throw invalidProof("its path is too long");
    if (Buffer.compare(fromRoot, toRoot) !== 0) throw invalidProof("the roots differ");
    return;
  }
  requireHashes([fromRoot, toRoot, ...path]);
  const start = isPowerOfTwo(fromSize) ? fromRoot : undefined;
  const roots = rootsOfConsistency({ fromSize, toSize, start, path });
  if (!roots.fromRoot.equals(fromRoot))
    throw invalidProof("the path does not lead to the smaller tree's root");
  if (!roots.toRoot.equals(toRoot)) throw invalidProof("the path does not lead to the larger tree's root");
}

/** RFC 9162 §2.1.3.2, steps 2 to 4: the root that a path leads to. Needs 0 ≤ offset < size. */
function rootOfInclusion(proof: Omit<InclusionProof, "root">): Buffer {
  let index = proof.offset;
  let last = proof.size - 1n;
  let root: Buffer = Buffer.from(proof.leafHash);
  for (const sibling of proof.path) {
    if (last === 0n) throw invalidProof("its path is too long");
    const isRight = isOdd(index) || index === last;
    root = isRight ? nodeHash(sibling, root) : nodeHash(root, sibling);
    const levels = isRight ? levelsToSibling(index) : 1n;
    index >>= levels;
    last >>= levels;
  }
  if (last !== 0n) throw invalidProof("its path is too short");
  return root;
}

/**
 * RFC 9162 §2.1.4.2, steps 2 to 6: both roots that a path leads to, for 1 ≤ fromSize ≤ toSize. `start` is the root
 * of the smaller tree where the path does not begin with a subtree of it.
 */
function rootsOfConsistency(
  proof: Pick<ConsistencyProof, "fromSize" | "toSize" | "path"> & { start: Uint8Array | undefined },
): { fromRoot: Buffer; toRoot: Buffer } {
  const [start, ...rest] = proof.start === undefined ? proof.path : [proof.start, ...proof.path];
  if (start === undefined) throw invalidProof("its path is too short");
  const skipped = proof.fromSize === proof.toSize ? MAX_TREE_LEVELS : trailingOnes(proof.fromSize - 1n);
  let index = (proof.fromSize - 1n) >> skipped;
  let last = (proof.toSize - 1n) >> skipped;
  let fromRoot: Buffer = Buffer.from(start);
  let toRoot = fromRoot;
  for (const sibling of rest) {
    if (last === 0n) throw invalidProof("its path is too long");
    const isRight = isOdd(index) || index === last;
    if (isRight) fromRoot = nodeHash(sibling, fromRoot);
    toRoot = isRight ? nodeHash(sibling, toRoot) : nodeHash(toRoot, sibling);
    const levels = isRight ? levelsToSibling(index) : 1n;
    index >>= levels;
    last >>= levels;
  }
  if (last !== 0n) throw invalidProof("its path is too short");
  return { fromRoot, toRoot };
}

/** Levels from a node that has its sibling on the left to the parent of both, which may skip levels at the edge. */
function levelsToSibling(index: bigint): bigint {
  let levels = 0n;
  for (let rest = index; rest !== 0n && !isOdd(rest); rest >>= 1n) levels += 1n;
  return levels + 1n;
}

function trailingOnes(value: bigint): bigint {
  let count = 0n;
  for (let rest = value; isOdd(rest); rest >>= 1n) count += 1n;
  return count;
}

function isOdd(value: bigint): boolean {
  return (value & 1n) === 1n;
}

function isPowerOfTwo(value: bigint): boolean {
  return (value & (value - 1n)) === 0n;
}

/** The largest power of two smaller than `count`, which is at least 2: the leaves of a tree's left child. */
function largestPowerBelow(count: bigint): bigint {
  return 1n << BigInt((count - 1n).toString(2).length - 1);
}

function requireHashes(hashes: readonly Uint8Array[]): void {
  if (hashes.some((hash) => hash.length !== HASH_BYTES)) throw invalidProof("a hash of it is not 32 bytes");
}

function invalidProof(reason: string): Error {
  return kimberliteError("proof_invalid", `the Merkle proof does not verify: ${reason}`);
}

function outOfRange(message: string, detail: Record<string, bigint>): Error {
  return kimberliteError("offset_out_of_range", message, { detail });
}
