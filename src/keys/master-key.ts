/**
 * The master key as a port: the one key that stays outside the data directory (a key file, a KMS, a vault, an HSM).
 *
 * It wraps one KEK a tenant and nothing else, so it never sees data and is asked once when a tenant opens. What it
 * wraps is bound to a context (tenant, purpose, version): a wrapped KEK that was moved to another tenant, or that
 * an older version replaced, does not unwrap. A provider authenticates the context; it need not keep it secret.
 */
import { assert } from "../errors.ts";
import type { TenantId } from "../tenant/tenant-id.ts";

/** Bytes of every symmetric key of the hierarchy. */
export const KEY_BYTES = 32;

/** What a wrapped KEK is bound to. */
export interface KeyContext {
  readonly tenant: TenantId;
  readonly purpose: "kek";
  /** The KEK's version, 1 … 2³²−1. */
  readonly version: number;
}

/**
 * Wraps and unwraps KEKs under one master key.
 *
 * Every implementation passes `test/conformance/master-key.ts`.
 */
export interface MasterKeyProvider {
  /** Where the key is, such as `file:/etc/kimberlite/master.key`; holds no secret. */
  readonly uri: string;
  /**
   * Public, stable identifier of the key, stored beside what it wrapped. Two providers over one key have the same,
   * two keys never. A provider may have to read its source to know it, and then throws as `wrap` does.
   */
  readonly keyId: string;
  /**
   * Encrypts and authenticates `key` (`KEY_BYTES` long, or an assertion fails) together with `context`. Two calls
   * give different bytes. The caller keeps `key` and zeroes it; the provider keeps no copy.
   *
   * @throws `master_key_missing`, `master_key_invalid`.
   */
  wrap(key: Buffer, context: KeyContext): Promise<Uint8Array>;
  /**
   * Gives back what `wrap` took, in a Buffer of its own that the caller zeroes.
   *
   * @throws `master_key_wrong` when this key, with this context, did not produce exactly these bytes;
   * `master_key_missing`, `master_key_invalid`.
   */
  unwrap(wrapped: Uint8Array, context: KeyContext): Promise<Buffer>;
  /** Forgets the key. Safe to call twice; any other use afterwards is an assertion failure. */
  close(): Promise<void>;
}

/** A context in its one binary form: `kimberlite/v1/<purpose>` ‖ tenant (u64 LE) ‖ version (u32 LE). */
export function encodeKeyContext(context: KeyContext): Buffer {
  return encodeKeyLabel(context.purpose, context.tenant, context.version);
}

/**
 * The label that binds a key to its use: `kimberlite/v1/<purpose>` ‖ tenant (u64 LE) ‖ version (u32 LE). The last
 * two fields have fixed lengths, so two different triples never share a label.
 */
export function encodeKeyLabel(purpose: string, tenant: TenantId, version: number): Buffer {
  assert(/^[a-z-]+$/.test(purpose), "a key's purpose is lower-case words");
  assert(isKeyVersion(version), "a key's version is an integer from 1 to 2^32-1");
  const binding = Buffer.alloc(12);
  binding.writeBigUInt64LE(tenant, 0);
  binding.writeUInt32LE(version, 8);
  return Buffer.concat([Buffer.from(`kimberlite/v1/${purpose}`, "ascii"), binding]);
}

/** True for an integer in 1 … 2³²−1. */
export function isKeyVersion(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 1 && value < 2 ** 32;
}
