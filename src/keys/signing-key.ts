/** Ed25519 keys (RFC 8032) from their 32-byte seeds, so that a seed is wrapped like any other key. */
import { createPrivateKey, type KeyObject } from "node:crypto";
import { assert } from "../errors.ts";
import { KEY_BYTES } from "./master-key.ts";

/** PKCS #8 of an Ed25519 private key up to its seed (RFC 8410 §7). */
const PKCS8_PREFIX = Buffer.from("302e020100300506032b657004220420", "hex");

/** The private key of a seed. The seed stays the caller's; no other copy of it is left in a Buffer. */
export function signingKeyOfSeed(seed: Buffer): KeyObject {
  assert(seed.length === KEY_BYTES, "an Ed25519 seed is 32 bytes");
  const pkcs8 = Buffer.concat([PKCS8_PREFIX, seed]);
  try {
    return createPrivateKey({ key: pkcs8, format: "der", type: "pkcs8" });
  } finally {
    pkcs8.fill(0);
  }
}
