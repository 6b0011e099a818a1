/**
 * API keys: `kmb_<id>_<secret><checksum>`, in lower-case hexadecimal.
 *
 * The prefix lets scanners of leaked secrets find them; the checksum (CRC-32 of what precedes it) tells a typing error
 * from a wrong key without a look-up. The secret is 256 random bits, so its SHA-256 is what is stored: there is nothing
 * to guess that a slow hash would slow down. The id is public and names the key in audit records.
 */
import { hash as digest, timingSafeEqual } from "node:crypto";
import { crc32 } from "node:zlib";
import type { Randomness } from "../host/randomness.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import type { TenantRole } from "./principal.ts";

export const API_KEY_PREFIX = "kmb_";

const FORM = /^kmb_([0-9a-f]{16})_([0-9a-f]{64})([0-9a-f]{8})$/;
const ID_BYTES = 8;
const SECRET_BYTES = 32;
/** Compared with when no key has the id, so that the answer takes as long. */
const NOBODYS_HASH = Buffer.alloc(32);

/** What is known of a key, without its secret. */
export interface ApiKeyDescription {
  readonly id: string;
  /** Absent for a key of the node's operators. */
  readonly tenant?: TenantId;
  readonly role: TenantRole | "operator";
  /** For people. */
  readonly name: string;
  /** It reads what this grant shares, and nothing of its own tenant. */
  readonly grant?: string;
  /** It makes the tenant's first key, once. */
  readonly enrolment?: true;
  readonly createdAtUs: bigint;
  readonly createdBy: string;
  readonly expiresAtUs?: bigint;
  readonly revokedAtUs?: bigint;
  /** To within an hour after a restart. */
  readonly lastUsedAtUs?: bigint;
}

/** A key as it is stored. */
export interface ApiKeyRecord extends ApiKeyDescription {
  readonly hash: Buffer;
}

/** A new key: `token` is shown once and kept nowhere. */
export interface MintedKey {
  readonly id: string;
  readonly token: string;
  readonly hash: Buffer;
}

export interface PresentedKey {
  readonly id: string;
  readonly hash: Buffer;
}

export function mintApiKey(randomness: Randomness): MintedKey {
  const id = randomness.bytes(ID_BYTES).toString("hex");
  const body = `${API_KEY_PREFIX}${id}_${randomness.bytes(SECRET_BYTES).toString("hex")}`;
  const token = `${body}${checksum(body)}`;
  return { id, token, hash: digest("sha256", token, "buffer") };
}

/** The id and the hash of what was presented, or undefined if it is no API key at all. */
export function parseApiKey(token: string): PresentedKey | undefined {
  const id = FORM.exec(token)?.[1];
  if (id === undefined || checksum(token.slice(0, -8)) !== token.slice(-8)) return undefined;
  return { id, hash: digest("sha256", token, "buffer") };
}

/** True if the hash is that of `record`; takes the same time whether or not there is one. */
export function isSecretOf(record: ApiKeyRecord | undefined, hash: Buffer): record is ApiKeyRecord {
  const equal = timingSafeEqual(record?.hash ?? NOBODYS_HASH, hash);
  return record !== undefined && equal;
}

/** Why a key that is there does not count any more. */
export function endOf(
  { revokedAtUs, expiresAtUs }: ApiKeyRecord,
  nowUs: bigint,
): "revoked" | "expired" | undefined {
  if (revokedAtUs !== undefined) return "revoked";
  return expiresAtUs !== undefined && nowUs >= expiresAtUs ? "expired" : undefined;
}

/** A key without its hash, for whoever lists keys. */
export function describeApiKey({ hash: _, ...rest }: ApiKeyRecord): ApiKeyDescription {
  return rest;
}

function checksum(text: string): string {
  return crc32(text).toString(16).padStart(8, "0");
}
