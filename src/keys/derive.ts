/** Subkeys: one DEK never encrypts anything itself; each use has a key of its own (HKDF-SHA-256, RFC 5869). */
import { hkdfSync } from "node:crypto";
import { assert } from "../errors.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import { encodeKeyLabel, KEY_BYTES } from "./master-key.ts";

/** What a subkey is for. */
export type SubkeyPurpose = "log" | "projection" | "export";

/**
 * The subkey of `dek` for one purpose: HKDF-SHA-256 with no salt (the DEK is uniform) and
 * info = `kimberlite/v1/<purpose>` ‖ tenant (u64 LE) ‖ version (u32 LE).
 *
 * The Buffer is the caller's, who zeroes it.
 */
export function deriveSubkey(dek: Buffer, purpose: SubkeyPurpose, tenant: TenantId, version: number): Buffer {
  assert(dek.length === KEY_BYTES, "a DEK is 32 bytes");
  const info = encodeKeyLabel(purpose, tenant, version);
  return Buffer.from(hkdfSync("sha256", dek, Buffer.alloc(0), info, KEY_BYTES));
}
