/**
 * Checkpoints (C2SP `tlog-checkpoint`): a log's size and Merkle root, published as a signed note.
 *
 * Invariants: a checkpoint has one text only, so parsing and formatting are inverses; nothing is parsed before its
 * signature has verified, unless `parseCheckpoint` is called directly.
 */
import type { KeyObject } from "node:crypto";
import { kimberliteError } from "../errors.ts";
import { HASH_BYTES } from "./merkle.ts";
import { openNote, signNote, type VerifierKey } from "./signed-note.ts";

/** The head of a log. */
export interface Checkpoint {
  /** Identifies the log, by advice as a URL without a scheme; not empty, one line. */
  readonly origin: string;
  /** Leaves in the tree, which is also the next offset; 0 … 2⁶⁴−1. */
  readonly size: bigint;
  /** The Merkle tree hash (RFC 9162 §2.1.1) of these leaves, 32 bytes. */
  readonly root: Uint8Array;
  /** Further lines, each not empty; the specification advises against them. */
  readonly extensions?: readonly string[];
}

/** Who signs a checkpoint. */
export interface CheckpointSigner {
  /** The name in the signature line; by advice the checkpoint's origin. */
  readonly keyName: string;
  /** Ed25519. */
  readonly privateKey: KeyObject;
}

const MAX_SIZE = 2n ** 64n - 1n;

/**
 * The text of a checkpoint, as it is signed.
 *
 * @throws `invalid_argument` for a field that the text cannot carry.
 */
export function formatCheckpoint({ origin, size, root, extensions = [] }: Checkpoint): string {
  if (size < 0n || size > MAX_SIZE) throw invalid("its size is out of range");
  if (root.length !== HASH_BYTES) throw invalid("its root is not 32 bytes");
  for (const line of [origin, ...extensions]) requireLine(line);
  const lines = [origin, size.toString(), Buffer.from(root).toString("base64"), ...extensions];
  return `${lines.join("\n")}\n`;
}

/**
 * Parses the text of a checkpoint. `extensions` is always there in what it returns.
 *
 * @throws `invalid_argument` unless the text is exactly what `formatCheckpoint` writes: no leading zeros, canonical
 * base64 of 32 bytes, no empty lines, a final newline.
 */
export function parseCheckpoint(text: string): Required<Checkpoint> {
  if (!text.endsWith("\n")) throw invalid("it does not end in a newline");
  const [origin, size, root, ...extensions] = text.slice(0, -1).split("\n");
  if (origin === undefined || size === undefined || root === undefined)
    throw invalid("it has less than three lines");
  for (const line of [origin, ...extensions]) requireLine(line);
  return { origin, size: parseSize(size), root: parseRoot(root), extensions };
}

/**
 * Signs a checkpoint and gives the note. A log that signs must never have signed another root for the same size.
 *
 * @throws `invalid_argument` for a field that the text cannot carry, a key's name with spaces or `+`, or another
 * kind of key than a private Ed25519 key.
 */
export function signCheckpoint(checkpoint: Checkpoint, signer: CheckpointSigner): string {
  return signNote(formatCheckpoint(checkpoint), [signer]);
}

/**
 * Opens a signed checkpoint with the keys that the caller trusts. If one key signs for several logs, `origin` is
 * what tells them apart: give it, or compare it.
 *
 * @throws `signature_invalid` if the note is malformed, none of the keys signed it, a signature of one of them does
 * not verify, or it is of another origin; `invalid_argument` if what they signed is not a checkpoint.
 */
export function openCheckpoint(
  note: string | Uint8Array,
  keys: VerifierKey | readonly VerifierKey[],
  expected: { readonly origin?: string } = {},
): Required<Checkpoint> {
  const { text } = openNote(note, "keyId" in keys ? [keys] : keys);
  const checkpoint = parseCheckpoint(text);
  if (expected.origin !== undefined && checkpoint.origin !== expected.origin) {
    throw kimberliteError("signature_invalid", "the checkpoint is signed for another origin");
  }
  return checkpoint;
}

function parseSize(text: string): bigint {
  if (!/^(0|[1-9][0-9]{0,19})$/.test(text)) throw invalid("its size is not a decimal number");
  const size = BigInt(text);
  if (size > MAX_SIZE) throw invalid("its size is out of range");
  return size;
}

function parseRoot(text: string): Buffer {
  const root = Buffer.from(text, "base64");
  if (root.length !== HASH_BYTES || root.toString("base64") !== text)
    throw invalid("its root is not 32 bytes");
  return root;
}

function requireLine(line: string): void {
  if (line === "" || /[^ -\u{10ffff}]/u.test(line) || !line.isWellFormed()) {
    throw invalid("a line of it is empty or has control characters");
  }
}

function invalid(reason: string): Error {
  return kimberliteError("invalid_argument", `not a checkpoint: ${reason}`);
}
