/**
 * The unwrapped keys of one tenant in memory: Buffers that are zeroed, and the subkeys derived from them.
 *
 * Log keys are kept as KeyObjects (a cipher made from one costs a sixth of one made from a Buffer), which the
 * runtime clears when nothing refers to them any more.
 */
import { createPublicKey, createSecretKey, type KeyObject } from "node:crypto";
import type { TenantId } from "../tenant/tenant-id.ts";
import { deriveSubkey } from "./derive.ts";
import { unwrapDek, unwrapSigningSeed, unwrapSubjectRoot } from "./hierarchy.ts";
import { signingKeyOfSeed } from "./signing-key.ts";
import type { StoredKeys } from "./stored-keys.ts";

/** The pair that signs and verifies checkpoints. */
export interface SigningPair {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
}

/** Keys in the clear; `zero` ends them. */
export class OpenKeys {
  readonly #tenant: TenantId;
  readonly #deks = new Map<number, Buffer>();
  readonly #logKeys = new Map<number, KeyObject>();
  readonly #projectionKeys = new Map<number, Buffer>();
  #kek: Buffer;
  #signing: SigningPair | undefined;
  #subjectRoot: Buffer | undefined;

  private constructor(tenant: TenantId, kek: Buffer) {
    this.#tenant = tenant;
    this.#kek = kek;
  }

  /**
   * Opens everything that `stored` wraps under `kek`, which becomes this object's, also when it throws.
   *
   * @throws `keys_damaged`.
   */
  static unwrap(tenant: TenantId, kek: Buffer, stored: StoredKeys): OpenKeys {
    const keys = new OpenKeys(tenant, kek);
    try {
      for (const dek of stored.deks) keys.addDek(dek.version, unwrapDek(tenant, kek, dek));
      if (stored.signingKey !== undefined)
        keys.#openSigning(unwrapSigningSeed(tenant, kek, stored.signingKey));
      if (stored.subjectRoot !== undefined)
        keys.setSubjectRoot(unwrapSubjectRoot(tenant, kek, stored.subjectRoot));
    } catch (error) {
      keys.zero();
      throw error;
    }
    return keys;
  }

  get kek(): Buffer {
    return this.#kek;
  }

  get signing(): SigningPair | undefined {
    return this.#signing;
  }

  /** What the keys of subjects are wrapped under; undefined for a tenant without declared subjects. */
  get subjectRoot(): Buffer | undefined {
    return this.#subjectRoot;
  }

  /** Takes over a subject root. */
  setSubjectRoot(root: Buffer): void {
    this.#subjectRoot = root;
  }

  /** Takes over a DEK. */
  addDek(version: number, dek: Buffer): void {
    this.#deks.set(version, dek);
  }

  /** Takes over a KEK and zeroes the former one. */
  replaceKek(kek: Buffer): void {
    this.#kek.fill(0);
    this.#kek = kek;
  }

  /** Zeroes a DEK and what was derived from it. */
  dropDek(version: number): void {
    this.#deks.get(version)?.fill(0);
    this.#projectionKeys.get(version)?.fill(0);
    this.#deks.delete(version);
    this.#projectionKeys.delete(version);
    this.#logKeys.delete(version);
  }

  hasDek(version: number): boolean {
    return this.#deks.has(version);
  }

  /** The log subkey of a DEK version, derived once; `undefined` if there is no such version. */
  logKey(version: number): KeyObject | undefined {
    const known = this.#logKeys.get(version);
    const dek = this.#deks.get(version);
    if (known !== undefined || dek === undefined) return known;
    const subkey = deriveSubkey(dek, "log", this.#tenant, version);
    const key = createSecretKey(subkey);
    subkey.fill(0);
    this.#logKeys.set(version, key);
    return key;
  }

  /** The projection subkey of a DEK version, derived once and zeroed with the rest; `undefined` as for `logKey`. */
  projectionKey(version: number): Buffer | undefined {
    const known = this.#projectionKeys.get(version);
    const dek = this.#deks.get(version);
    if (known !== undefined || dek === undefined) return known;
    const key = deriveSubkey(dek, "projection", this.#tenant, version);
    this.#projectionKeys.set(version, key);
    return key;
  }

  /** Zeroes every Buffer and drops every KeyObject. */
  zero(): void {
    this.#kek.fill(0);
    this.#subjectRoot?.fill(0);
    this.#subjectRoot = undefined;
    for (const key of this.#deks.values()) key.fill(0);
    for (const key of this.#projectionKeys.values()) key.fill(0);
    this.#deks.clear();
    this.#projectionKeys.clear();
    this.#logKeys.clear();
    this.#signing = undefined;
  }

  #openSigning(seed: Buffer): void {
    try {
      const privateKey = signingKeyOfSeed(seed);
      this.#signing = { privateKey, publicKey: createPublicKey(privateKey) };
    } finally {
      seed.fill(0);
    }
  }
}
