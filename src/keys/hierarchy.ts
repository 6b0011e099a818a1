/**
 * The steps of the hierarchy: KEK under master key, DEKs and signing seed under KEK.
 *
 * What comes back unwrapped is a Buffer of its own that the caller zeroes. A wrapped KEK is unwrapped again before it
 * is trusted: a master key that encrypts but may not decrypt would lock the tenant out at its next start.
 */
import { timingSafeEqual } from "node:crypto";
import { assert, kimberliteError } from "../errors.ts";
import type { Randomness } from "../host/randomness.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import {
  encodeKeyLabel,
  isKeyVersion,
  KEY_BYTES,
  type KeyContext,
  type MasterKeyProvider,
} from "./master-key.ts";
import type { StoredDek, StoredKek, StoredKeys, StoredSigningKey, StoredSubjectRoot } from "./stored-keys.ts";
import { unwrapKey, wrapKey } from "./wrapping.ts";

/** There is one signing key, and it is not versioned: its public half is known outside. */
const SIGNING_KEY_VERSION = 1;
/** Nor is the subject root: what is under it is destroyed one by one. */
const SUBJECT_ROOT_VERSION = 1;

/** A key in the clear, with what is recorded beside it. */
export interface PlainKey {
  readonly key: Buffer;
  readonly version: number;
  /** Microseconds since 1970-01-01T00:00:00Z. */
  readonly createdAtUs: bigint;
}

/**
 * Wraps a KEK under `master` and makes sure that `master` gives it back.
 *
 * @throws what the provider throws; `master_key_wrong` if it does not give the same key back.
 */
export async function wrapKek(
  tenant: TenantId,
  kek: PlainKey,
  master: MasterKeyProvider,
): Promise<StoredKek> {
  const { version, createdAtUs } = kek;
  const context: KeyContext = { tenant, purpose: "kek", version };
  const wrapped = await master.wrap(kek.key, context);
  const back = await master.unwrap(wrapped, context);
  try {
    if (back.length !== KEY_BYTES || !timingSafeEqual(back, kek.key)) throw wrongMaster(tenant, version);
  } finally {
    back.fill(0);
  }
  return { version, wrapped, masterKeyId: master.keyId, createdAtUs };
}

/** @throws `master_key_wrong`, and what else the provider throws. */
export async function unwrapKek(
  tenant: TenantId,
  kek: StoredKek,
  master: MasterKeyProvider,
): Promise<Buffer> {
  const key = await master.unwrap(kek.wrapped, { tenant, purpose: "kek", version: kek.version });
  if (key.length === KEY_BYTES) return key;
  key.fill(0);
  throw wrongMaster(tenant, kek.version);
}

/** What wrapping under a tenant's KEK needs. */
export interface KekUse {
  readonly tenant: TenantId;
  readonly kek: Buffer;
  readonly randomness: Randomness;
}

/** Wraps a DEK under the KEK, bound to its tenant and version. */
export function wrapDek({ tenant, kek, randomness }: KekUse, dek: PlainKey): StoredDek {
  const binding = encodeKeyLabel("dek", tenant, dek.version);
  const wrapped = wrapKey({ key: dek.key, wrappingKey: kek, binding, randomness });
  return { version: dek.version, wrapped, createdAtUs: dek.createdAtUs };
}

/** @throws `keys_damaged` for a DEK that another KEK, tenant or version wrapped. */
export function unwrapDek(tenant: TenantId, kek: Buffer, dek: StoredDek): Buffer {
  const binding = encodeKeyLabel("dek", tenant, dek.version);
  const key = unwrapKey({ wrapped: dek.wrapped, wrappingKey: kek, binding });
  if (key !== undefined) return key;
  throw kimberliteError("keys_damaged", "a wrapped DEK of the tenant does not open under its KEK", {
    detail: { tenant, dekVersion: dek.version },
  });
}

/** Wraps the signing key's seed under the KEK. */
export function wrapSigningSeed(use: KekUse, seed: Buffer, createdAtUs: bigint): StoredSigningKey {
  const binding = encodeKeyLabel("signing-key", use.tenant, SIGNING_KEY_VERSION);
  const wrapped = wrapKey({ key: seed, wrappingKey: use.kek, binding, randomness: use.randomness });
  return { wrapped, createdAtUs };
}

/** @throws `keys_damaged`. */
export function unwrapSigningSeed(tenant: TenantId, kek: Buffer, stored: StoredSigningKey): Buffer {
  const binding = encodeKeyLabel("signing-key", tenant, SIGNING_KEY_VERSION);
  const seed = unwrapKey({ wrapped: stored.wrapped, wrappingKey: kek, binding });
  if (seed !== undefined) return seed;
  throw kimberliteError("keys_damaged", "the wrapped signing key does not open under its KEK", {
    detail: { tenant },
  });
}

/** Wraps the root of the keys of subjects under the KEK. */
export function wrapSubjectRoot(use: KekUse, root: Buffer, createdAtUs: bigint): StoredSubjectRoot {
  const binding = encodeKeyLabel("subject-root", use.tenant, SUBJECT_ROOT_VERSION);
  const wrapped = wrapKey({ key: root, wrappingKey: use.kek, binding, randomness: use.randomness });
  return { wrapped, createdAtUs };
}

/** @throws `keys_damaged`. */
export function unwrapSubjectRoot(tenant: TenantId, kek: Buffer, stored: StoredSubjectRoot): Buffer {
  const binding = encodeKeyLabel("subject-root", tenant, SUBJECT_ROOT_VERSION);
  const root = unwrapKey({ wrapped: stored.wrapped, wrappingKey: kek, binding });
  if (root !== undefined) return root;
  throw kimberliteError("keys_damaged", "the wrapped subject root does not open under the tenant's KEK", {
    detail: { tenant },
  });
}

/**
 * The entry with everything below the KEK moved from one KEK to another; each unwrapped key is zeroed at once.
 *
 * @throws `keys_damaged` if anything does not open under `from`.
 */
export function moveToKek(stored: StoredKeys, from: Buffer, to: KekUse, kek: StoredKek): StoredKeys {
  const { tenant } = to;
  const deks = stored.deks.map((dek) =>
    using(unwrapDek(tenant, from, dek), (key) => wrapDek(to, { ...dek, key })),
  );
  const { signingKey, subjectRoot } = stored;
  return {
    kek,
    deks,
    projectionDek: stored.projectionDek,
    ...(signingKey === undefined
      ? {}
      : {
          signingKey: using(unwrapSigningSeed(tenant, from, signingKey), (seed) =>
            wrapSigningSeed(to, seed, signingKey.createdAtUs),
          ),
        }),
    ...(subjectRoot === undefined
      ? {}
      : {
          subjectRoot: using(unwrapSubjectRoot(tenant, from, subjectRoot), (root) =>
            wrapSubjectRoot(to, root, subjectRoot.createdAtUs),
          ),
        }),
  };
}

/** The version after `version`; versions are not used twice. */
export function nextVersion(version: number): number {
  assert(isKeyVersion(version + 1), "there is a next key version");
  return version + 1;
}

function using<T>(key: Buffer, work: (key: Buffer) => T): T {
  try {
    return work(key);
  } finally {
    key.fill(0);
  }
}

function wrongMaster(tenant: TenantId, kekVersion: number): Error {
  return kimberliteError("master_key_wrong", "the master key did not give the tenant's key back", {
    detail: { tenant, kekVersion },
  });
}
