/**
 * Wrapping one key under another: AES-256-GCM with a random 96-bit nonce (SP 800-38D §8.2.2) and associated data that
 * binds the wrapped key to its place. The form is nonce ‖ ciphertext ‖ tag, always `WRAPPED_BYTES` long.
 *
 * A wrapping key wraps a handful of keys in its life, far from the 2³² messages at which random nonces wear out.
 */
import { createCipheriv, createDecipheriv, type KeyObject } from "node:crypto";
import { assert } from "../errors.ts";
import type { Randomness } from "../host/randomness.ts";
import { KEY_BYTES } from "./master-key.ts";

const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** Length of a wrapped key. */
export const WRAPPED_BYTES: number = NONCE_BYTES + KEY_BYTES + TAG_BYTES;

const GCM = { authTagLength: TAG_BYTES } as const;

/** A new random key in memory of its own; nothing of it stays in the source's pool. */
export function freshKey(randomness: Randomness): Buffer {
  const drawn = randomness.bytes(KEY_BYTES);
  const key = Buffer.allocUnsafeSlow(KEY_BYTES);
  drawn.copy(key);
  drawn.fill(0);
  return key;
}

/** Wraps `key` under `wrappingKey`, bound to `binding`. */
export function wrapKey(options: {
  readonly key: Buffer;
  readonly wrappingKey: Buffer | KeyObject;
  readonly binding: Uint8Array;
  readonly randomness: Randomness;
}): Buffer {
  assert(options.key.length === KEY_BYTES, "a key is 32 bytes");
  const nonce = options.randomness.bytes(NONCE_BYTES);
  const cipher = createCipheriv("aes-256-gcm", options.wrappingKey, nonce, GCM).setAAD(options.binding);
  return Buffer.concat([nonce, cipher.update(options.key), cipher.final(), cipher.getAuthTag()]);
}

/** The key that was wrapped, in a Buffer of its own, or `undefined` if key, binding or bytes are not the ones. */
export function unwrapKey(options: {
  readonly wrapped: Uint8Array;
  readonly wrappingKey: Buffer | KeyObject;
  readonly binding: Uint8Array;
}): Buffer | undefined {
  const { wrapped } = options;
  if (wrapped.length !== WRAPPED_BYTES) return undefined;
  const nonce = wrapped.subarray(0, NONCE_BYTES);
  const decipher = createDecipheriv("aes-256-gcm", options.wrappingKey, nonce, GCM).setAAD(options.binding);
  decipher.setAuthTag(wrapped.subarray(NONCE_BYTES + KEY_BYTES));
  const key = decipher.update(wrapped.subarray(NONCE_BYTES, NONCE_BYTES + KEY_BYTES));
  try {
    decipher.final();
    return key;
  } catch {
    key.fill(0);
    return undefined;
  }
}
