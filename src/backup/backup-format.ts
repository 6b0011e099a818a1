/**
 * What a backup is made of (`docs/backup.md`):
 *
 *     installation.json                  which installation the place belongs to
 *     backups/<id>.json, <id>.sig        one backup: every tenant's index at that moment; signed
 *     tenants/<tenant>/<index>.json      one tenant's log: its pieces in order, and where it ends
 *     tenants/<tenant>/<piece>.piece     bytes of a segment, as they are on the disk
 *     erased/<tenant>.txt                the certificate of a tenant that was erased
 *
 * Objects never change. A backup names what is new by its hash, and what is not again, so it is as large as what was
 * written since the one before. Ids order backups by time.
 */
import { createHash } from "node:crypto";
import { kimberliteError } from "../errors.ts";
import { TenantId } from "../tenant/tenant-id.ts";

export const BACKUP_FORMAT = "kimberlite-backup/v1";

/** Bytes of a segment. */
export interface BackupPiece {
  readonly name: string;
  readonly segment: string;
  /** Where in the segment. */
  readonly from: number;
  readonly to: number;
  /** SHA-256, hex. */
  readonly sha256: string;
}

/** One tenant's log. */
export interface TenantIndex {
  readonly tenant: string;
  /** Records. */
  readonly size: string;
  /** Hash of the last block, hex: it commits to everything before. */
  readonly head: string;
  /** Commit time of the last block, microseconds. */
  readonly timeUs: string;
  readonly pieces: readonly BackupPiece[];
  /** Of a tenant whose log was trimmed: the base of its projections. */
  readonly base?: BackedUpBase;
}

/** A file, encrypted as it is on the disk, in pieces that follow on each other. */
export interface BackedUpBase {
  readonly file: string;
  readonly pieces: readonly Omit<BackupPiece, "segment">[];
}

export interface BackedUpTenant {
  readonly tenant: string;
  readonly size: string;
  readonly index: string;
  readonly sha256: string;
}

export interface BackupManifest {
  readonly format: typeof BACKUP_FORMAT;
  readonly installation: string;
  readonly id: string;
  /** When it began, microseconds. */
  readonly timeUs: string;
  /** True if it is of some tenants only: then it has no catalogue. */
  readonly partial: boolean;
  /** The system tenant is the first. */
  readonly tenants: readonly BackedUpTenant[];
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

export function encodeJson(value: unknown): Buffer {
  return Buffer.from(`${JSON.stringify(value)}\n`);
}

/** What is signed of a backup. */
export function backupText(manifest: Buffer): string {
  return `${BACKUP_FORMAT}\n${sha256(manifest)}\n`;
}

/** @throws `backup_invalid` */
export function parseManifest(bytes: Buffer): BackupManifest {
  const parsed = parseJson(bytes) as BackupManifest;
  const sane =
    parsed.format === BACKUP_FORMAT &&
    /^[0-9a-f]{16}$/.test(parsed.installation) &&
    isDigits(parsed.timeUs) &&
    typeof parsed.partial === "boolean" &&
    Array.isArray(parsed.tenants) &&
    parsed.tenants.every(
      (one) => isTenant(one.tenant) && isDigits(one.size) && isName(one.index) && isHash(one.sha256),
    );
  if (!sane) throw invalid("a manifest is not one");
  return parsed;
}

/** @throws `backup_invalid` */
export function parseIndex(bytes: Buffer, expected: BackedUpTenant): TenantIndex {
  if (sha256(bytes) !== expected.sha256) throw invalid(`${expected.index} is not what was backed up`);
  const parsed = parseJson(bytes) as TenantIndex;
  const sane =
    parsed.tenant === expected.tenant &&
    parsed.size === expected.size &&
    isHash(parsed.head) &&
    Array.isArray(parsed.pieces) &&
    parsed.pieces.every((piece) => isPiece(piece) && isDigits(piece.segment)) &&
    (parsed.base === undefined ||
      (/^base-[0-9]+-[0-9]+\.db$/.test(parsed.base.file) &&
        Array.isArray(parsed.base.pieces) &&
        parsed.base.pieces.every(isPiece)));
  if (!sane) throw invalid(`${expected.index} is not an index`);
  return parsed;
}

function isPiece(piece: Omit<BackupPiece, "segment">): boolean {
  const { name, from, to } = piece;
  const range = Number.isSafeInteger(from) && Number.isSafeInteger(to) && from >= 0 && to > from;
  return isName(name) && range && isHash(piece.sha256);
}

/** A tenant's id in a name; the system tenant's is 0. */
export function tenantOf(text: string): TenantId {
  return text === "0" ? (0n as TenantId) : TenantId(text);
}

export function invalid(why: string): Error {
  return kimberliteError("backup_invalid", `the backup is damaged, or is not one: ${why}`);
}

/** An object out of a file of a backup. @throws `backup_invalid` */
export function parseJson(bytes: Buffer): object {
  try {
    const parsed: unknown = JSON.parse(bytes.toString("utf8"));
    if (typeof parsed === "object" && parsed !== null) return parsed;
  } catch {
    // Said below.
  }
  throw invalid("a file is not JSON");
}

function isTenant(text: unknown): boolean {
  return isDigits(text) && BigInt(text as string) < 2n ** 63n;
}

function isDigits(text: unknown): boolean {
  return typeof text === "string" && /^(0|[1-9][0-9]{0,19})$/.test(text);
}

function isName(text: unknown): boolean {
  return typeof text === "string" && /^[A-Za-z0-9_-]+(?:[/.][A-Za-z0-9_-]+)*$/.test(text);
}

function isHash(text: unknown): boolean {
  return typeof text === "string" && /^[0-9a-f]{64}$/.test(text);
}
