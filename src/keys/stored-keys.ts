/**
 * One tenant's entry in the key store, and its form on the disk:
 *
 *     kimberlite-keys <format version> <SHA-256 of the body, hex>\n
 *     <body: JSON>
 *
 * Wrapped keys only. The checksum finds damage; it is the wrapping, bound to tenant and version, that refuses a
 * forged or transplanted key. The format version stands before anything that it could change.
 */
import { createHash } from "node:crypto";
import { assert, type ErrorCode, kimberliteError } from "../errors.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import { isKeyVersion } from "./master-key.ts";
import { WRAPPED_BYTES } from "./wrapping.ts";

/** The tenant's KEK under the master key. */
export interface StoredKek {
  readonly version: number;
  /** As the master key's provider gave it. */
  readonly wrapped: Uint8Array;
  /** `keyId` of the provider that wrapped it. */
  readonly masterKeyId: string;
  /** Microseconds since 1970-01-01T00:00:00Z. */
  readonly createdAtUs: bigint;
}

/** One DEK version under the tenant's KEK. */
export interface StoredDek {
  readonly version: number;
  readonly wrapped: Uint8Array;
  /** Microseconds since 1970-01-01T00:00:00Z. */
  readonly createdAtUs: bigint;
}

/** The installation's Ed25519 seed under the system tenant's KEK. */
export interface StoredSigningKey {
  readonly wrapped: Uint8Array;
  /** Microseconds since 1970-01-01T00:00:00Z. */
  readonly createdAtUs: bigint;
}

/** The tenant's subject root under its KEK: what the keys of its subjects are wrapped under. */
export type StoredSubjectRoot = StoredSigningKey;

/** All of one tenant's wrapped keys. */
export interface StoredKeys {
  readonly kek: StoredKek;
  /** Ascending by version; the last is the one that new blocks are sealed under. Never empty. */
  readonly deks: readonly StoredDek[];
  /** The DEK version that the projection is encrypted under; one of `deks`. */
  readonly projectionDek: number;
  readonly signingKey?: StoredSigningKey;
  /** Present once the tenant has declared subjects. */
  readonly subjectRoot?: StoredSubjectRoot;
}

const FORMAT_VERSION = 1;
/** Of an entry with a subject root, which a reader that does not know it would lose. */
const SUBJECTS_FORMAT_VERSION = 2;
const HEADER_PATTERN = /^kimberlite-keys ([1-9][0-9]{0,8})(?: ([0-9a-f]{64}))?/;
/** An envelope of a KMS or an HSM is longer than the key in it, but not without a limit. */
const MAX_WRAPPED_KEK_BYTES = 16_384;
const MAX_MASTER_KEY_ID_LENGTH = 2_048;

/** The bytes of an entry. */
export function encodeStoredKeys(tenant: TenantId, stored: StoredKeys): Buffer {
  assert(isWhole(stored), "an entry of the key store is whole");
  const { kek, deks, projectionDek, signingKey, subjectRoot } = stored;
  const body = JSON.stringify({
    tenant: tenant.toString(),
    kek: { version: kek.version, masterKeyId: kek.masterKeyId, ...encodeWrapped(kek) },
    deks: deks.map((dek) => ({ version: dek.version, ...encodeWrapped(dek) })),
    projectionDek,
    ...(signingKey === undefined ? {} : { signingKey: encodeWrapped(signingKey) }),
    ...(subjectRoot === undefined ? {} : { subjectRoot: encodeWrapped(subjectRoot) }),
  });
  const version = subjectRoot === undefined ? FORMAT_VERSION : SUBJECTS_FORMAT_VERSION;
  return Buffer.from(`kimberlite-keys ${version} ${checksum(Buffer.from(body))}\n${body}`);
}

/**
 * Parses the bytes of `tenant`'s entry.
 *
 * @throws `keys_damaged` for bytes that are not exactly an entry of this tenant, `format_too_new`.
 */
export function parseStoredKeys(tenant: TenantId, bytes: Buffer): StoredKeys {
  const body = parseEnvelope(tenant, bytes);
  const fields = parseJson(body);
  if (fields?.tenant !== tenant.toString()) {
    throw refused("keys_damaged", tenant, "the tenant's entry in the key store belongs to another tenant");
  }
  const stored = parseFields(fields);
  const version = stored?.subjectRoot === undefined ? FORMAT_VERSION : SUBJECTS_FORMAT_VERSION;
  if (!bytes.toString("latin1", 0, 20).startsWith(`kimberlite-keys ${version} `)) {
    throw refused(
      "keys_damaged",
      tenant,
      "the tenant's entry in the key store is of another format than it says",
    );
  }
  if (stored === undefined || !isWhole(stored)) {
    throw refused("keys_damaged", tenant, "the tenant's entry in the key store is incomplete");
  }
  return stored;
}

function parseEnvelope(tenant: TenantId, bytes: Buffer): Buffer {
  const end = bytes.indexOf(0x0a);
  const header = HEADER_PATTERN.exec(bytes.toString("latin1", 0, Math.max(end, 0)));
  if (header !== null && Number(header[1]) > SUBJECTS_FORMAT_VERSION) {
    throw refused("format_too_new", tenant, `the tenant's keys are stored in format ${header[1]}`);
  }
  const body = bytes.subarray(end + 1);
  // The header has one spelling: what it does not say itself is covered by comparing all of it.
  const expected = `kimberlite-keys ${header?.[1]} ${checksum(body)}`;
  if (header === null || bytes.toString("latin1", 0, end) !== expected) {
    throw refused("keys_damaged", tenant, "the tenant's entry in the key store is damaged");
  }
  return body;
}

type Fields = Readonly<Record<string, unknown>>;

function parseFields(fields: Fields): StoredKeys | undefined {
  const kek = parseKek(fields.kek);
  const deks = Array.isArray(fields.deks) ? fields.deks.map(parseDek) : [];
  const signingKey = fields.signingKey === undefined ? undefined : parseWrapped(fields.signingKey);
  if (kek === undefined || !isKeyVersion(fields.projectionDek)) return undefined;
  if (!deks.every((dek) => dek !== undefined)) return undefined;
  if (fields.signingKey !== undefined && signingKey === undefined) return undefined;
  const subjectRoot = fields.subjectRoot === undefined ? undefined : parseWrapped(fields.subjectRoot);
  if (fields.subjectRoot !== undefined && subjectRoot === undefined) return undefined;
  return {
    kek,
    deks,
    projectionDek: fields.projectionDek,
    ...(signingKey === undefined ? {} : { signingKey }),
    ...(subjectRoot === undefined ? {} : { subjectRoot }),
  };
}

function parseKek(value: unknown): StoredKek | undefined {
  const wrapped = parseWrapped(value);
  const { version, masterKeyId } = (value ?? {}) as Fields;
  if (wrapped === undefined || !isKeyVersion(version) || typeof masterKeyId !== "string") return undefined;
  return { version, masterKeyId, ...wrapped };
}

function parseDek(value: unknown): StoredDek | undefined {
  const wrapped = parseWrapped(value);
  const { version } = (value ?? {}) as Fields;
  return wrapped === undefined || !isKeyVersion(version) ? undefined : { version, ...wrapped };
}

function parseWrapped(value: unknown): StoredSigningKey | undefined {
  const { wrapped, createdAtUs } = (value ?? {}) as Fields;
  if (typeof wrapped !== "string" || typeof createdAtUs !== "string") return undefined;
  if (!/^-?[0-9]{1,20}$/.test(createdAtUs)) return undefined;
  return { wrapped: Buffer.from(wrapped, "base64"), createdAtUs: BigInt(createdAtUs) };
}

function encodeWrapped(key: StoredSigningKey): { wrapped: string; createdAtUs: string } {
  return {
    wrapped: Buffer.from(key.wrapped).toString("base64"),
    createdAtUs: key.createdAtUs.toString(),
  };
}

function isWhole({ kek, deks, projectionDek, signingKey, subjectRoot }: StoredKeys): boolean {
  return (
    isKeyVersion(kek.version) &&
    within(kek.wrapped.length, MAX_WRAPPED_KEK_BYTES) &&
    within(kek.masterKeyId.length, MAX_MASTER_KEY_ID_LENGTH) &&
    deks.every((dek, index) => isKeyVersion(dek.version) && dek.version > (deks[index - 1]?.version ?? 0)) &&
    deks.every((dek) => dek.wrapped.length === WRAPPED_BYTES) &&
    deks.some((dek) => dek.version === projectionDek) &&
    (signingKey === undefined || signingKey.wrapped.length === WRAPPED_BYTES) &&
    (subjectRoot === undefined || subjectRoot.wrapped.length === WRAPPED_BYTES)
  );
}

function within(length: number, limit: number): boolean {
  return length > 0 && length <= limit;
}

function parseJson(body: Buffer): Fields | undefined {
  try {
    const value: unknown = JSON.parse(body.toString("utf8"));
    return typeof value === "object" && value !== null ? (value as Fields) : undefined;
  } catch {
    return undefined;
  }
}

function checksum(body: Buffer): string {
  return createHash("sha256").update(body).digest("hex");
}

function refused(code: ErrorCode, tenant: TenantId, message: string): Error {
  return kimberliteError(code, message, { detail: { tenant } });
}
