/**
 * A second reader of the data directory, written from `docs/FORMAT.md` alone: it imports nothing of `src`. What it
 * reads wrongly, that page says wrongly.
 *
 * It checks every checksum, link, leaf hash and seal on the way, and throws at the first that is not right.
 */
import { createDecipheriv, createHash, createHmac, createPublicKey, hkdfSync, verify } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type Cbor, readCbor } from "./cbor.ts";

/** A record, with the block that it came in. */
export interface GoldenRecord {
  readonly block: bigint;
  readonly dekVersion: number;
  readonly record: Map<string, Cbor>;
}

/** A tenant's log as the disk has it, the journal applied. */
export interface GoldenLog {
  readonly leaves: readonly Buffer[];
  readonly records: readonly GoldenRecord[];
}

type Segments = Map<bigint, Buffer>;

const ZERO_HASH = Buffer.alloc(32);

function sha256(...parts: readonly Uint8Array[]): Buffer {
  const digest = createHash("sha256");
  for (const part of parts) digest.update(part);
  return digest.digest();
}

function requireThat(condition: boolean, what: string): void {
  if (!condition) throw new Error(what);
}

function label(purpose: string, tenant: bigint, version: number): Buffer {
  const fixed = Buffer.alloc(12);
  fixed.writeBigUInt64LE(tenant, 0);
  fixed.writeUInt32LE(version, 8);
  return Buffer.concat([Buffer.from(`kimberlite/v1/${purpose}`, "ascii"), fixed]);
}

interface Sealed {
  readonly key: Uint8Array;
  readonly nonce: Buffer;
  readonly aad: Buffer;
  readonly body: Buffer;
}

function openSeal({ key, nonce, aad, body }: Sealed): Buffer {
  const decipher = createDecipheriv("aes-256-gcm", key, nonce, { authTagLength: 16 });
  decipher.setAAD(aad);
  decipher.setAuthTag(body.subarray(body.length - 16));
  return Buffer.concat([decipher.update(body.subarray(0, -16)), decipher.final()]);
}

function unwrap(wrapped: Buffer, key: Buffer, aad: Buffer): Buffer {
  return openSeal({ key, nonce: wrapped.subarray(0, 12), aad, body: wrapped.subarray(12) });
}

export function readMasterKey(path: string): { readonly id: string; readonly key: Buffer } {
  const [head, id, key] = readFileSync(path, "ascii").split("\n");
  requireThat(head === "kimberlite-master-key-v1", "a master key file begins with its format");
  const bytes = Buffer.from((key ?? "").slice("key: ".length), "base64");
  const mac = createHmac("sha256", bytes).update("kimberlite/v1/master-key-id").digest("hex").slice(0, 32);
  requireThat(id === `id: ${mac}`, "the master key has its id");
  return { id: mac, key: bytes };
}

interface KeyEntry {
  readonly tenant: string;
  readonly kek: { readonly version: number; readonly masterKeyId: string; readonly wrapped: string };
  readonly deks: readonly { readonly version: number; readonly wrapped: string }[];
  readonly projectionDek: number;
}

/** The log subkeys of a tenant by DEK version, from the master key down. */
export function readLogKeys(root: string, master: string, tenant: bigint): Map<number, Uint8Array> {
  const bytes = readFileSync(join(root, "keys", `${tenant}.keys`));
  const body = bytes.subarray(bytes.indexOf("\n") + 1);
  const head = `kimberlite-keys 1 ${sha256(body).toString("hex")}\n`;
  requireThat(bytes.toString("ascii", 0, head.length) === head, "a key store entry has its checksum");
  const entry = JSON.parse(body.toString()) as KeyEntry;
  const { id, key } = readMasterKey(master);
  requireThat(entry.tenant === `${tenant}` && entry.kek.masterKeyId === id, "the entry is the tenant's");
  const wrapped = Buffer.from(entry.kek.wrapped, "base64");
  requireThat(wrapped[0] === 1, "a wrapped KEK has format 1");
  const kek = unwrap(wrapped.subarray(1), key, label("kek", tenant, entry.kek.version));
  return new Map(
    entry.deks.map(({ version, wrapped: under }) => {
      const dek = unwrap(Buffer.from(under, "base64"), kek, label("dek", tenant, version));
      const subkey = hkdfSync("sha256", dek, Buffer.alloc(0), label("log", tenant, version), 32);
      return [version, new Uint8Array(subkey)];
    }),
  );
}

interface Frame {
  readonly generation: bigint;
  readonly sequence: bigint;
  readonly end: number;
  readonly payload: Buffer;
  readonly count: number;
}

function readFrame(bytes: Buffer, at: number): Frame | undefined {
  if (at + 64 > bytes.length || bytes.toString("latin1", at, at + 4) !== "KJNL") return undefined;
  requireThat(bytes.readUInt32LE(at + 4) === 1, "a frame has format 1");
  const end = at + 64 + bytes.readUInt32LE(at + 24);
  const payload = bytes.subarray(at + 64, end);
  const isWhole = sha256(bytes.subarray(at, at + 32), payload).equals(bytes.subarray(at + 32, at + 64));
  if (end > bytes.length || !isWhole) return undefined;
  return {
    generation: bytes.readBigUInt64LE(at + 8),
    sequence: bytes.readBigUInt64LE(at + 16),
    end: Math.ceil(end / 512) * 512,
    payload,
    count: bytes.readUInt32LE(at + 28),
  };
}

/** The frames of one journal file that count. */
function readFrames(path: string): Frame[] {
  const bytes = readFileSync(path);
  const frames: Frame[] = [];
  for (let at = 0; ; ) {
    const frame = readFrame(bytes, at);
    const follows = frame?.sequence === BigInt(frames.length);
    if (frame === undefined || !follows || frame.generation !== (frames[0] ?? frame).generation)
      return frames;
    frames.push(frame);
    at = frame.end;
  }
}

function readJournal(root: string): Frame[] {
  const files = ["0.jnl", "1.jnl"].map((name) => readFrames(join(root, "journal", name)));
  const generation = (frames: Frame[]): bigint => frames[0]?.generation ?? 0n;
  return files.sort((a, b) => (generation(a) < generation(b) ? -1 : 1)).flat();
}

function putAt(bytes: Buffer, position: number, more: Buffer): Buffer {
  const whole = Buffer.alloc(Math.max(bytes.length, position + more.length));
  bytes.copy(whole);
  more.copy(whole, position);
  return whole;
}

function applyJournal(root: string, tenant: bigint, segments: Segments): void {
  for (const { payload, count } of readJournal(root)) {
    for (let left = count, at = 0; left > 0; left -= 1) {
      const segment = payload.readBigUInt64LE(at + 8);
      const position = Number(payload.readBigUInt64LE(at + 16));
      const length = payload.readUInt32LE(at + 24);
      const present = segments.get(segment) ?? (position === 0 ? Buffer.alloc(0) : undefined);
      if (payload.readBigUInt64LE(at) === tenant && present !== undefined) {
        segments.set(segment, putAt(present, position, payload.subarray(at + 32, at + 32 + length)));
      }
      at += 32 + length;
    }
  }
}

function readSegments(root: string, tenant: bigint): Segments {
  const folder = join(root, "tenants", `${tenant}`, "log");
  const names = readdirSync(folder).filter((name) => /^\d{20}\.seg$/.test(name));
  return new Map(names.sort().map((name) => [BigInt(name.slice(0, 20)), readFileSync(join(folder, name))]));
}

/** Reads a tenant's log and checks all of it. */
export function readLog(root: string, tenant: bigint, keys: ReadonlyMap<number, Uint8Array>): GoldenLog {
  const segments = readSegments(root, tenant);
  applyJournal(root, tenant, segments);
  const state: LogState = { tenant, keys, hash: ZERO_HASH, timeUs: 0n, leaves: [], records: [] };
  for (const [firstOffset, bytes] of segments) {
    requireThat(firstOffset === BigInt(state.leaves.length), "segments follow each other");
    for (let at = readSegmentHeader(bytes, state); at < bytes.length; ) at = readBlock(bytes, at, state);
  }
  return state;
}

interface LogState {
  readonly tenant: bigint;
  readonly keys: ReadonlyMap<number, Uint8Array>;
  hash: Buffer;
  timeUs: bigint;
  readonly leaves: Buffer[];
  readonly records: GoldenRecord[];
}

function readSegmentHeader(bytes: Buffer, state: LogState): number {
  requireThat(
    bytes.toString("latin1", 0, 4) === "KSEG" && bytes.readUInt16LE(4) === 1,
    "a segment of format 1",
  );
  requireThat(bytes.readBigUInt64LE(8) === state.tenant, "a segment is its tenant's");
  requireThat(bytes.readBigUInt64LE(16) === BigInt(state.leaves.length), "a segment begins where it says");
  requireThat(bytes.subarray(24, 56).equals(state.hash), "a segment continues the chain");
  const end = 60 + 32 * bytes.readUInt32LE(56);
  requireThat(
    bytes.subarray(60, end).equals(Buffer.concat(frontierOf(state.leaves))),
    "a segment has the frontier",
  );
  requireThat(
    sha256(bytes.subarray(0, end)).equals(bytes.subarray(end, end + 32)),
    "a segment header has its hash",
  );
  return end + 32;
}

function readBlock(bytes: Buffer, at: number, state: LogState): number {
  const head = bytes.subarray(at, at + 96);
  requireThat(head.toString("latin1", 0, 4) === "KBLK" && head.readUInt32LE(4) === 0x0001_0001, "a block");
  requireThat(head.readBigUInt64LE(8) === state.tenant, "a block is its tenant's");
  const first = head.readBigUInt64LE(16);
  requireThat(first === BigInt(state.leaves.length), "offsets are dense");
  requireThat(head.readBigUInt64LE(40) >= state.timeUs, "commit times do not go back");
  requireThat(head.subarray(48, 80).equals(state.hash), "a block continues the chain");
  const sealedAt = at + 96 + 32 * head.readUInt32LE(24);
  const hashAt = sealedAt + head.readUInt32LE(92);
  const hash = sha256(bytes.subarray(at, hashAt));
  requireThat(hash.equals(bytes.subarray(hashAt, hashAt + 32)), "a block has its hash");
  const dekVersion = head.readUInt32LE(28);
  const plain = openSeal({
    key: state.keys.get(dekVersion) ?? ZERO_HASH,
    nonce: head.subarray(80, 92),
    aad: bytes.subarray(at, sealedAt),
    body: bytes.subarray(sealedAt, hashAt),
  });
  const leaves = bytes.subarray(at + 96, sealedAt);
  readRecords(plain, leaves, { state, block: first, dekVersion, timeUs: head.readBigUInt64LE(40) });
  state.hash = hash;
  state.timeUs = head.readBigUInt64LE(40);
  return hashAt + 32;
}

interface BlockPlace {
  readonly state: LogState;
  readonly block: bigint;
  readonly dekVersion: number;
  readonly timeUs: bigint;
}

function readRecords(plain: Buffer, leaves: Buffer, place: BlockPlace): void {
  const { state, block, dekVersion } = place;
  let at = 0;
  for (let leafAt = 0; leafAt < leaves.length; leafAt += 32) {
    const end = at + 21 + plain.readUInt32LE(at);
    const leaf = leaves.subarray(leafAt, leafAt + 32);
    requireThat(plain[at + 4] === 0, "a record's leaf begins with zero");
    requireThat(sha256(plain.subarray(at + 4, end)).equals(leaf), "a leaf hash is its record's");
    const record = readCbor(plain.subarray(at + 21, end)) as Map<string, Cbor>;
    requireThat(record.get("o") === BigInt(state.leaves.length), "a record knows its offset");
    requireThat(record.get("t") === place.timeUs, "a record has the time of its block");
    state.leaves.push(Buffer.from(leaf));
    state.records.push({ block, dekVersion, record });
    at = end;
  }
  requireThat(at === plain.length, "records fill their block");
}

/** RFC 9162 §2.1.1, by its own words: the largest power of two below the count goes left. */
export function merkleRoot(leaves: readonly Buffer[]): Buffer {
  const [only] = leaves;
  if (only === undefined) return sha256();
  if (leaves.length === 1) return only;
  let left = 1;
  while (left * 2 < leaves.length) left *= 2;
  return sha256(Buffer.of(1), merkleRoot(leaves.slice(0, left)), merkleRoot(leaves.slice(left)));
}

function frontierOf(leaves: readonly Buffer[]): Buffer[] {
  const roots: Buffer[] = [];
  let at = 0;
  for (let bit = 2 ** 30; bit >= 1; bit /= 2) {
    if ((leaves.length & bit) === 0) continue;
    roots.push(merkleRoot(leaves.slice(at, at + bit)));
    at += bit;
  }
  return roots;
}

/** Checks a checkpoint's signature and gives what it commits to. */
export function openCheckpointNote(
  note: string,
  verifierKey: string,
): { origin: string; size: bigint; root: string } {
  const [name, keyId, encodedKey] = splitKey(verifierKey);
  const publicKey = Buffer.from(encodedKey, "base64");
  requireThat(publicKey[0] === 1 && publicKey.length === 33, "a verifier key is an Ed25519 key");
  const id = sha256(Buffer.from(`${name}\n`), publicKey).subarray(0, 4);
  requireThat(id.toString("hex") === keyId, "a verifier key has its id");
  const end = note.indexOf("\n\n");
  const text = note.slice(0, end + 1);
  const line = note.slice(end + 2);
  requireThat(line.startsWith(`\u2014 ${name} `), "the note is signed by the key");
  const signature = Buffer.from(line.slice(name.length + 3), "base64");
  requireThat(signature.subarray(0, 4).equals(id), "the signature names the key");
  const spki = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), publicKey.subarray(1)]);
  const key = createPublicKey({ key: spki, format: "der", type: "spki" });
  requireThat(verify(null, Buffer.from(text), key, signature.subarray(4)), "the signature verifies");
  const [origin = "", size = "", root = ""] = text.split("\n");
  return { origin, size: BigInt(size), root };
}

/** `name+id+key`, of which the key's base64 may hold plus signs. */
function splitKey(text: string): [string, string, string] {
  const first = text.indexOf("+");
  return [text.slice(0, first), text.slice(first + 1, first + 9), text.slice(first + 10)];
}
