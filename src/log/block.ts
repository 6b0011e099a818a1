/**
 * A block: all transactions of one commit, sealed once.
 *
 * A cleartext header binds everything that identifies the block (`docs/FORMAT.md`) and is, whole, the additional data
 * of the seal (AES-256-GCM, SP 800-38D). The block hash covers header and ciphertext, so the chain verifies without
 * any key, also after the key is destroyed. Leaf hashes are public; each record is hashed with a random salt that is
 * kept inside the seal, so contents cannot be guessed from them.
 *
 * Pure but for the cipher: no clock, no disk, randomness passed in. Integers are little-endian.
 */
import { createCipheriv, createDecipheriv, hash, type KeyObject } from "node:crypto";
import { assert, kimberliteError } from "../errors.ts";
import type { Randomness } from "../host/randomness.ts";
import type { TenantId } from "../tenant/tenant-id.ts";

const BLOCK_FORMAT_VERSION = 1;
/** Of a hollow block: one whose records were trimmed. */
const HOLLOW_FORMAT_VERSION = 2;
/** Of a block with records that are about subjects, which earlier readers do not know how to apply. */
const SUBJECTS_FORMAT_VERSION = 3;
/** DEK version of a block that nothing is sealed in. */
const NO_DEK = 0;
export const HASH_BYTES = 32;
/** Header bytes before the leaf hashes. */
export const BLOCK_FIXED_BYTES = 96;
/** Chain value before the first block. */
export const GENESIS_HASH: Buffer = Buffer.alloc(HASH_BYTES);

const MAGIC = 0x4b4c_424b; // "KBLK"
const SUITE_AES_256_GCM_SHA_256 = 1;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const SALT_BYTES = 16;
/** In the seal each record has a length, the leaf's domain byte and its salt before it. */
const RECORD_OVERHEAD = 4 + 1 + SALT_BYTES;
/** Above what glibc's allocator keeps for each thread. */
const ROOMY_BYTES = 2_048;
const MAX_RECORDS = 65_536;
const MAX_SEALED_BYTES = 512 * 1024 * 1024;

export interface BlockHeader {
  readonly tenant: TenantId;
  readonly firstOffset: bigint;
  readonly count: number;
  readonly dekVersion: number;
  readonly epoch: bigint;
  readonly timeUs: bigint;
  readonly previousHash: Buffer;
  readonly nonce: Buffer;
  readonly sealedBytes: number;
  /** True if records in it have rows that are sealed under subjects' keys, declarations or erasures of subjects. */
  readonly withSubjects: boolean;
}

/** A block as it lies in a segment. Buffers are views of what was read. */
export interface Block {
  readonly header: BlockHeader;
  readonly headerBytes: Buffer;
  readonly leafHashes: readonly Buffer[];
  readonly sealed: Buffer;
  /** The stored hash; `isWhole` says whether it is right. */
  readonly storedHash: Buffer;
  readonly totalBytes: number;
}

export interface SealRequest extends Omit<BlockHeader, "count" | "nonce" | "sealedBytes" | "withSubjects"> {
  readonly withSubjects?: boolean | undefined;
  readonly records: readonly Uint8Array[];
  readonly key: KeyObject;
  readonly randomness: Randomness;
  /** Salts of the records, for records that had leaves before; fresh ones unless given. */
  readonly salts?: readonly Uint8Array[] | undefined;
}

/** Bytes on disk of a block with records of these sizes in total. Exact. */
export function blockBytes(count: number, recordBytes: number): number {
  return BLOCK_FIXED_BYTES + count * (HASH_BYTES + RECORD_OVERHEAD) + recordBytes + TAG_BYTES + HASH_BYTES;
}

/** What one more record of this size adds to a block. Exact. */
export function recordCostBytes(recordBytes: number): number {
  return HASH_BYTES + RECORD_OVERHEAD + recordBytes;
}

/** Seals records into a block. Costs one cipher, one hash a record and one over the block. */
export function sealBlock(request: SealRequest): { readonly bytes: Buffer; readonly hash: Buffer } {
  const count = request.records.length;
  assert(count > 0 && count <= MAX_RECORDS, "a block has 1 to 65,536 records");
  const plainBytes = request.records.reduce((sum, record) => sum + RECORD_OVERHEAD + record.length, 0);
  const headerBytes = BLOCK_FIXED_BYTES + count * HASH_BYTES;
  const bytes = Buffer.allocUnsafe(headerBytes + plainBytes + TAG_BYTES + HASH_BYTES);
  const plain = Buffer.allocUnsafe(plainBytes);
  layOutRecords(request, plain, bytes);
  const nonce = request.randomness.bytes(NONCE_BYTES);
  const version = request.withSubjects === true ? SUBJECTS_FORMAT_VERSION : BLOCK_FORMAT_VERSION;
  writeHeader(bytes, request, { count, nonce, version, sealedBytes: plainBytes + TAG_BYTES });
  const cipher = createCipheriv("aes-256-gcm", request.key, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(bytes.subarray(0, headerBytes));
  cipher.update(plain).copy(bytes, headerBytes);
  cipher.final();
  cipher.getAuthTag().copy(bytes, headerBytes + plainBytes);
  plain.fill(0);
  const end = bytes.length - HASH_BYTES;
  bytes.write(sha256(bytes.subarray(0, end)), end, HASH_BYTES, "latin1");
  return { bytes, hash: Buffer.from(bytes.subarray(end)) };
}

function layOutRecords(request: SealRequest, plain: Buffer, bytes: Buffer): void {
  const salts =
    request.salts === undefined
      ? request.randomness.bytes(SALT_BYTES * request.records.length)
      : Buffer.concat(request.salts);
  assert(salts.length === SALT_BYTES * request.records.length, "each record has a salt of 16 bytes");
  let at = 0;
  for (const [index, record] of request.records.entries()) {
    plain.writeUInt32LE(record.length, at);
    plain[at + 4] = 0;
    salts.copy(plain, at + 5, index * SALT_BYTES, (index + 1) * SALT_BYTES);
    plain.set(record, at + RECORD_OVERHEAD);
    const end = at + RECORD_OVERHEAD + record.length;
    const leaf = sha256(plain.subarray(at + 4, end));
    bytes.write(leaf, BLOCK_FIXED_BYTES + index * HASH_BYTES, HASH_BYTES, "latin1");
    at = end;
  }
}

/** A block without its records, which were trimmed: the leaves stay, so that every proof does. */
export function sealHollow(
  request: Omit<BlockHeader, "count" | "nonce" | "sealedBytes" | "dekVersion" | "withSubjects"> & {
    readonly leafHashes: readonly Buffer[];
  },
): { readonly bytes: Buffer; readonly hash: Buffer } {
  const { leafHashes } = request;
  const headerBytes = BLOCK_FIXED_BYTES + leafHashes.length * HASH_BYTES;
  const bytes = Buffer.alloc(headerBytes + HASH_BYTES);
  const rest = { count: leafHashes.length, nonce: Buffer.alloc(NONCE_BYTES), sealedBytes: 0 };
  writeHeader(bytes, { ...request, dekVersion: NO_DEK }, { ...rest, version: HOLLOW_FORMAT_VERSION });
  for (const [index, leaf] of leafHashes.entries()) leaf.copy(bytes, BLOCK_FIXED_BYTES + index * HASH_BYTES);
  bytes.write(sha256(bytes.subarray(0, headerBytes)), headerBytes, HASH_BYTES, "latin1");
  return { bytes, hash: Buffer.from(bytes.subarray(headerBytes)) };
}

/** True for a block whose records were trimmed. */
export function isHollow(header: Pick<BlockHeader, "dekVersion">): boolean {
  return header.dekVersion === NO_DEK;
}

function writeHeader(
  bytes: Buffer,
  request: Omit<BlockHeader, "count" | "nonce" | "sealedBytes" | "withSubjects">,
  rest: {
    readonly count: number;
    readonly nonce: Buffer;
    readonly sealedBytes: number;
    readonly version: number;
  },
): void {
  bytes.writeUInt32LE(MAGIC, 0);
  bytes.writeUInt16LE(rest.version, 4);
  bytes.writeUInt16LE(SUITE_AES_256_GCM_SHA_256, 6);
  bytes.writeBigUInt64LE(request.tenant, 8);
  bytes.writeBigUInt64LE(request.firstOffset, 16);
  bytes.writeUInt32LE(rest.count, 24);
  bytes.writeUInt32LE(request.dekVersion, 28);
  bytes.writeBigUInt64LE(request.epoch, 32);
  bytes.writeBigUInt64LE(request.timeUs, 40);
  request.previousHash.copy(bytes, 48);
  rest.nonce.copy(bytes, 80);
  bytes.writeUInt32LE(rest.sealedBytes, 92);
}

/**
 * Parses the fixed part of a header.
 *
 * @returns undefined where there is no block of ours (torn, zeros, damaged): the caller knows which it is.
 * @throws `format_too_new` for a block of a later version.
 */
export function parseHeader(bytes: Buffer): BlockHeader | undefined {
  if (bytes.length < BLOCK_FIXED_BYTES || bytes.readUInt32LE(0) !== MAGIC) return undefined;
  const version = bytes.readUInt16LE(4);
  if (version > SUBJECTS_FORMAT_VERSION) {
    throw kimberliteError("format_too_new", `the log has blocks of format ${version}`, {
      detail: { version },
    });
  }
  const count = bytes.readUInt32LE(24);
  const sealedBytes = bytes.readUInt32LE(92);
  const hollow = version === HOLLOW_FORMAT_VERSION;
  const filled = hollow ? sealedBytes === 0 : sealedBytes > TAG_BYTES && sealedBytes <= MAX_SEALED_BYTES;
  const sane = count >= 1 && count <= MAX_RECORDS && filled && hollow === (bytes.readUInt32LE(28) === NO_DEK);
  if (version === 0 || bytes.readUInt16LE(6) !== SUITE_AES_256_GCM_SHA_256 || !sane) return undefined;
  return {
    tenant: bytes.readBigUInt64LE(8) as TenantId,
    firstOffset: bytes.readBigUInt64LE(16),
    count,
    dekVersion: bytes.readUInt32LE(28),
    epoch: bytes.readBigUInt64LE(32),
    timeUs: bytes.readBigUInt64LE(40),
    previousHash: bytes.subarray(48, 80),
    nonce: bytes.subarray(80, 92),
    sealedBytes,
    withSubjects: version === SUBJECTS_FORMAT_VERSION,
  };
}

/** Length on disk of the block with this header. */
export function totalBytesOf(header: BlockHeader): number {
  return BLOCK_FIXED_BYTES + header.count * HASH_BYTES + header.sealedBytes + HASH_BYTES;
}

/** Splits bytes, of which at least `totalBytesOf(header)` are there, into a block. */
export function parseBlock(bytes: Buffer, header: BlockHeader): Block {
  const headerEnd = BLOCK_FIXED_BYTES + header.count * HASH_BYTES;
  const sealedEnd = headerEnd + header.sealedBytes;
  const leafHashes: Buffer[] = [];
  for (let at = BLOCK_FIXED_BYTES; at < headerEnd; at += HASH_BYTES)
    leafHashes.push(bytes.subarray(at, at + HASH_BYTES));
  return {
    header,
    headerBytes: bytes.subarray(0, headerEnd),
    leafHashes,
    sealed: bytes.subarray(headerEnd, sealedEnd),
    storedHash: bytes.subarray(sealedEnd, sealedEnd + HASH_BYTES),
    totalBytes: sealedEnd + HASH_BYTES,
  };
}

/** True if the bytes of a whole block end with their own hash, which the chain continues with. */
export function isWhole(bytes: Buffer, totalBytes: number): boolean {
  const end = totalBytes - HASH_BYTES;
  return sha256(bytes.subarray(0, end)) === bytes.toString("latin1", end, totalBytes);
}

/** Digests of small inputs cross from OpenSSL as latin1 strings: 0.5 µs, where a `Buffer` result takes 1.2 µs. */
function sha256(bytes: Buffer): string {
  return hash("sha256", bytes, "binary");
}

/**
 * Opens the seal and gives the records' bytes.
 *
 * @throws `log_damaged` if the seal does not authenticate or a leaf hash is not its record's; `offset_trimmed`
 */
export function openBlock(block: Block, key: KeyObject): Buffer[] {
  const plain = unseal(block, key);
  const records: Buffer[] = [];
  readRecords(block, plain, (at, end) => records.push(plain.subarray(at + RECORD_OVERHEAD, end)));
  return records;
}

/** A record with the salt that its leaf is hashed with. */
export interface SaltedRecord {
  readonly record: Buffer;
  readonly salt: Buffer;
  readonly leaf: Buffer;
}

/** As `openBlock`, with what is needed to make the same leaves elsewhere. */
export function openSaltedRecords(block: Block, key: KeyObject): SaltedRecord[] {
  const plain = unseal(block, key);
  const records: SaltedRecord[] = [];
  readRecords(block, plain, (at, end) => {
    const salt = plain.subarray(at + 5, at + RECORD_OVERHEAD);
    const leaf = block.leafHashes[records.length] as Buffer;
    records.push({ record: plain.subarray(at + RECORD_OVERHEAD, end), salt, leaf });
  });
  return records;
}

function readRecords(block: Block, plain: Buffer, found: (at: number, end: number) => void): void {
  let at = 0;
  for (const leaf of block.leafHashes) {
    if (at + RECORD_OVERHEAD > plain.length) throw damaged(block, "its records do not fill it");
    const end = at + RECORD_OVERHEAD + plain.readUInt32LE(at);
    if (end > plain.length || plain[at + 4] !== 0) throw damaged(block, "its records do not fill it");
    if (sha256(plain.subarray(at + 4, end)) !== leaf.toString("latin1")) {
      throw damaged(block, "a leaf hash is not its record's");
    }
    found(at, end);
    at = end;
  }
  if (at !== plain.length) throw damaged(block, "its records do not fill it");
}

function unseal(block: Block, key: KeyObject): Buffer {
  if (isHollow(block.header)) throw trimmed(block.header);
  const bodyEnd = block.sealed.length - TAG_BYTES;
  try {
    const decipher = createDecipheriv("aes-256-gcm", key, block.header.nonce, { authTagLength: TAG_BYTES });
    decipher.setAAD(block.headerBytes);
    decipher.setAuthTag(block.sealed.subarray(bodyEnd));
    const plain = decipher.update(block.sealed.subarray(0, bodyEnd));
    decipher.final();
    return plain.length < ROOMY_BYTES ? inRoomyMemory(plain) : plain;
  } catch (cause) {
    throw damaged(block, "its seal does not open", cause);
  }
}

/**
 * The same bytes in a larger piece of memory. Small pieces are kept by the thread that frees them, as they are, for its
 * own next use; larger ones are overwritten when they are freed.
 */
function inRoomyMemory(plain: Buffer): Buffer {
  const roomy = Buffer.allocUnsafeSlow(ROOMY_BYTES);
  plain.copy(roomy);
  plain.fill(0);
  return roomy.subarray(0, plain.length);
}

/** What there is to say of records that were trimmed. */
export function trimmed(header: Pick<BlockHeader, "tenant" | "firstOffset" | "count">): Error {
  const { tenant, firstOffset, count } = header;
  return kimberliteError("offset_trimmed", "the records there were trimmed; their proofs remain", {
    detail: { tenant, offset: firstOffset, firstOffset: firstOffset + BigInt(count) },
  });
}

function damaged(block: Block, why: string, cause?: unknown): Error {
  const { tenant, firstOffset } = block.header;
  return kimberliteError("log_damaged", `the block at offset ${firstOffset} is damaged: ${why}`, {
    detail: { tenant, offset: firstOffset },
    ...(cause === undefined ? {} : { cause }),
  });
}
