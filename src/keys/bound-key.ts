/**
 * What a key service is given to encrypt: a KEK with proof of what it is for.
 *
 * A service authenticates the context that it is told, or says so. The proof inside does not rest on that: a service
 * that answers with another plaintext, by mistake or on purpose, with another tenant's or with another version's, is
 * found out. It is HMAC-SHA-256 under the key itself over the context, cut to 16 bytes, so it tells nothing of the key.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { assert, kimberliteError } from "../errors.ts";
import { encodeKeyContext, KEY_BYTES, type KeyContext } from "./master-key.ts";

const PROOF_BYTES = 16;
const FORMAT = 1;

/** The key with its proof, in a Buffer of its own that the caller zeroes. */
export function bindKey(key: Buffer, context: KeyContext): Buffer {
  assert(key.length === KEY_BYTES, "a master key wraps keys of 32 bytes");
  return Buffer.concat([key, proofOf(key, context)]);
}

/** The key, if `plaintext` is one with the proof of this context, in a Buffer of its own. @throws `master_key_wrong` */
export function openBoundKey(plaintext: Uint8Array, context: KeyContext): Buffer {
  if (plaintext.length === KEY_BYTES + PROOF_BYTES) {
    const key = Buffer.from(plaintext.subarray(0, KEY_BYTES));
    if (timingSafeEqual(plaintext.subarray(KEY_BYTES), proofOf(key, context))) return key;
    key.fill(0);
  }
  throw wrongKey(context);
}

/** A service's ciphertext as it is stored: a byte for the format first. */
export function storedForm(ciphertext: Uint8Array): Buffer {
  return Buffer.concat([Buffer.of(FORMAT), ciphertext]);
}

/** @throws `master_key_wrong` for what `storedForm` cannot have made */
export function fromStoredForm(wrapped: Uint8Array, context: KeyContext): Buffer {
  if (wrapped.length < 2 || wrapped[0] !== FORMAT) throw wrongKey(context);
  return Buffer.from(wrapped.subarray(1));
}

export function wrongKey(context: KeyContext, cause?: unknown): Error {
  return kimberliteError("master_key_wrong", "the master key did not give the tenant's key back", {
    detail: { tenant: context.tenant, kekVersion: context.version },
    ...(cause === undefined ? {} : { cause }),
  });
}

function proofOf(key: Buffer, context: KeyContext): Buffer {
  return createHmac("sha256", key).update(encodeKeyContext(context)).digest().subarray(0, PROOF_BYTES);
}
