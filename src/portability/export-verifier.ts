#!/usr/bin/env node
/**
 * The verifier of exports: one file, with no dependency beyond Node.js, so that it can be read in an hour, kept beside an
 * export for years, and run where nothing of Kimberlite is installed. `docs/portability.md` describes what it checks.
 *
 *     node export-verifier.js DIR [--key VERIFIER-KEY]
 *
 * It decodes CBOR (RFC 8949), hashes Merkle trees (RFC 9162) and opens signed notes (C2SP) with code of its own, because a
 * verifier that shared the exporter's would share its mistakes. The exporter takes only the rendering of a line from here.
 *
 * Over 500 lines because it is one file that needs no other.
 */
import { createHash, createPublicKey, hash, verify as verifySignature } from "node:crypto";
import { createReadStream, existsSync, readFileSync, realpathSync, statSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";

export interface ExportedFile {
  readonly name: string;
  readonly bytes: number;
  /** SHA-256, hex. */
  readonly sha256: string;
}

export interface ExportedEvents extends ExportedFile {
  readonly firstOffset: string;
  readonly count: number;
}

export interface ExportedTable extends ExportedFile {
  readonly table: string;
  readonly rows: number;
  /** How each column's values are written in the Parquet file; absent for a CSV file. */
  readonly columns?: Readonly<Record<string, string>>;
}

/** What binds the data wherever they go. Times are microseconds since 1970-01-01T00:00:00Z. */
export interface ExportedGovernance {
  readonly region: string;
  readonly createdAtUs: string;
  readonly retentionMs: number;
  readonly retentionMode: string;
  readonly legalHolds: readonly {
    readonly name: string;
    readonly reason: string;
    readonly actor: string;
    readonly placedAtUs: string;
  }[];
}

/** `manifest.json`, in this order of fields; `manifest.sig` is a signed note over its hash. */
export interface ExportManifest {
  readonly format: "kimberlite-export/v1";
  readonly installation: string;
  readonly tenant: string;
  readonly name: string;
  readonly governance: ExportedGovernance;
  readonly size: string;
  /** Merkle root over the records, base64. */
  readonly root: string;
  readonly verifierKey: string;
  readonly events: readonly ExportedEvents[];
  readonly tables: readonly ExportedTable[];
  readonly files: readonly ExportedFile[];
}

/** What is wrong, and where it is first. */
export class ExportDamage extends Error {
  readonly file: string;
  readonly why: string;
  readonly line: number | undefined;

  constructor(file: string, why: string, line?: number) {
    super(`${file}${line === undefined ? "" : `:${line}`}: ${why}`);
    this.file = file;
    this.why = why;
    this.line = line;
  }
}

export interface VerifiedExport {
  readonly tenant: string;
  readonly size: bigint;
  readonly root: string;
  /** True if the key was given by whoever asks, and not taken from the export itself. */
  readonly trusted: boolean;
}

export interface VerifyExportOptions {
  /** C2SP verifier key of the installation that exported; without it the export is only consistent with itself. */
  readonly key?: string;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
  readonly signal?: AbortSignal;
}

const LEAF_FIELD = ',"leaf":"';
const SALT_FIELD = '","salt":"';
const RECORD_FIELD = '","record":"';
const LEAF_DIGITS = 64;
const SALT_CHARACTERS = 24;
/** A record that was trimmed: its leaf is what is left of it, and is in the signed tree. */
const TRIMMED_LINE = /^\{"offset":"([0-9]+)","trimmed":true,"leaf":"([0-9a-f]{64})"\}$/;
/** A leaf is SHA-256(0x00 ‖ salt ‖ record). */
const LEAF_HEAD_BYTES = 17;

/** Checks an export: signatures, every file, every line, the tree. @throws ExportDamage at the first wrong place */
export async function verifyExport(dir: string, options: VerifyExportOptions = {}): Promise<VerifiedExport> {
  const manifest = readManifest(dir, options.key);
  const all = [...manifest.files, ...manifest.tables, ...manifest.events];
  const totalBytes = all.reduce((sum, file) => sum + file.bytes, 0);
  let doneBytes = 0;
  const note = (bytes: number): void => {
    doneBytes += bytes;
    options.signal?.throwIfAborted();
    options.onProgress?.(doneBytes, totalBytes);
  };
  const tree = new Tree();
  for await (const leaves of verifyAllEvents(dir, manifest.events, note)) {
    for (let at = 0; at < leaves.length; at += 32) tree.append(leaves.toString("hex", at, at + 32));
  }
  if (tree.size.toString() !== manifest.size || tree.root().toString("base64") !== manifest.root) {
    throw new ExportDamage("manifest.json", "the records are not those of the Merkle root");
  }
  for (const file of [...manifest.files, ...manifest.tables]) await verifyFile(dir, file, note);
  verifyCheckpoint(dir, manifest);
  return {
    tenant: manifest.tenant,
    size: tree.size,
    root: manifest.root,
    trusted: options.key !== undefined,
  };
}

/** @throws ExportDamage for a manifest that is not one, or that the key did not sign */
export function readManifest(dir: string, key?: string): ExportManifest {
  const bytes = readWhole(dir, "manifest.json");
  const manifest = parseJson(bytes.toString("utf8"), "manifest.json") as ExportManifest;
  const sane =
    manifest.format === "kimberlite-export/v1" &&
    [manifest.installation, manifest.tenant, manifest.size, manifest.root, manifest.verifierKey].every(
      (field) => typeof field === "string",
    ) &&
    [manifest.events, manifest.tables, manifest.files].every(
      (list) => Array.isArray(list) && list.every(isFileEntry),
    ) &&
    manifest.events.every(({ firstOffset, count }) => typeof firstOffset === "string" && isCount(count));
  if (!sane) throw new ExportDamage("manifest.json", "it is not the manifest of an export");
  const text = openNote(dir, "manifest.sig", key ?? manifest.verifierKey);
  if (text !== manifestText(bytes)) throw new ExportDamage("manifest.json", "it is not what was signed");
  return manifest;
}

/** What is signed of a manifest. */
export function manifestText(manifest: Buffer): string {
  return `kimberlite-export/v1\n${createHash("sha256").update(manifest).digest("base64")}\n`;
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isFileEntry(entry: Partial<ExportedFile> | null): boolean {
  return (
    typeof entry?.name === "string" &&
    /^[A-Za-z0-9_][A-Za-z0-9_.-]*(?:\/[A-Za-z0-9_][A-Za-z0-9_.-]*)?$/.test(entry.name) &&
    isCount(entry.bytes) &&
    typeof entry.sha256 === "string"
  );
}

async function verifyFile(dir: string, file: ExportedFile, note: (bytes: number) => void): Promise<void> {
  const digest = createHash("sha256");
  for await (const chunk of streamOf(dir, file)) {
    digest.update(chunk);
    note(chunk.length);
  }
  if (digest.digest("hex") !== file.sha256)
    throw new ExportDamage(file.name, "its bytes are not what was exported");
}

async function* streamOf(dir: string, file: ExportedFile): AsyncGenerator<Buffer> {
  const path = join(dir, file.name);
  const size = statSync(path, { throwIfNoEntry: false })?.size;
  if (size === undefined) throw new ExportDamage(file.name, "it is missing");
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 })) yield chunk as Buffer;
}

/** Leaf hashes of each file in order; as many files at once as the machine has cores, each in a thread of its own. */
async function* verifyAllEvents(
  dir: string,
  files: readonly ExportedEvents[],
  note: (bytes: number) => void,
): AsyncGenerator<Buffer> {
  let first = 0n;
  for (const { name, firstOffset, count } of files) {
    if (firstOffset !== first.toString()) throw new ExportDamage(name, "records before it are missing");
    first += BigInt(count);
  }
  const threads = startThreads(dir, files, note);
  try {
    for (const leaves of threads.leaves) yield await leaves;
  } finally {
    await threads.stop();
  }
}

interface ThreadTask {
  readonly dir: string;
  /** Of all files of events every so many-th, from this one on. */
  readonly files: readonly ExportedEvents[];
  readonly from: number;
  readonly every: number;
}

type ThreadMessage =
  | { readonly bytes: number }
  | { readonly index: number; readonly leaves: Uint8Array }
  | { readonly index: number; readonly why: string; readonly line: number | undefined };

function startThreads(
  dir: string,
  files: readonly ExportedEvents[],
  note: (bytes: number) => void,
): { readonly leaves: readonly Promise<Buffer>[]; stop(): Promise<unknown> } {
  const every = Math.min(availableParallelism(), 4, files.length);
  const ends = files.map(() => Promise.withResolvers<Buffer>());
  // One that is not waited for any more, because an earlier one is damaged, may fail too.
  for (const { promise } of ends) promise.catch(() => undefined);
  const failAll = (error: unknown): void => {
    for (const { reject } of ends) reject(error);
  };
  const take = (message: ThreadMessage): void => {
    if (!("index" in message)) return note(message.bytes);
    const { resolve, reject } = ends[message.index] as (typeof ends)[number];
    if ("leaves" in message) resolve(Buffer.from(message.leaves.buffer));
    else reject(new ExportDamage(files[message.index]?.name ?? "", message.why, message.line));
  };
  const workers = Array.from({ length: every }, (_, from) => {
    const task: ThreadTask = { dir, files, from, every };
    const worker = new Worker(new URL(import.meta.url), { workerData: { kimberliteExport: task } });
    worker.on("error", failAll);
    worker.on("message", (message: ThreadMessage) => {
      try {
        take(message);
      } catch (error) {
        failAll(error);
      }
    });
    return worker;
  });
  return {
    leaves: ends.map(({ promise }) => promise),
    stop: () => Promise.all(workers.map((worker) => worker.terminate())),
  };
}

async function verifyEvents(
  dir: string,
  events: ExportedEvents,
  note: (bytes: number) => void,
): Promise<Uint8Array<ArrayBuffer>> {
  const digest = createHash("sha256");
  const leaves = Buffer.alloc(32 * Math.min(events.count, events.bytes));
  const first = BigInt(events.firstOffset);
  let line = 0;
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of streamOf(dir, events)) {
    digest.update(chunk);
    note(chunk.length);
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    let start = 0;
    for (let end = bytes.indexOf(10, start); end >= 0; end = bytes.indexOf(10, start)) {
      line += 1;
      const offset = first + BigInt(line - 1);
      const leaf = verifyLine(bytes.toString("utf8", start, end), { offset, file: events.name, line });
      leaves.write(leaf, 32 * (line - 1), "hex");
      start = end + 1;
    }
    rest = bytes.subarray(start);
  }
  if (rest.length > 0) throw new ExportDamage(events.name, "its last line has no end", line + 1);
  if (line !== events.count)
    throw new ExportDamage(events.name, "lines are missing, or there are too many", line);
  if (digest.digest("hex") !== events.sha256)
    throw new ExportDamage(events.name, "its bytes are not what was exported");
  return leaves as Uint8Array<ArrayBuffer>;
}

/** Where one line's record is taken apart, so that nothing is allocated for it. */
let scratch: Buffer = Buffer.alloc(64 * 1024);

/** Checks one line: that it says what its record says, at its place. @returns the leaf hash, hex */
function verifyLine(
  text: string,
  at: { readonly offset: bigint; readonly file: string; readonly line: number },
): string {
  const damage = (why: string): ExportDamage => new ExportDamage(at.file, why, at.line);
  const withheld = TRIMMED_LINE.exec(text);
  if (withheld?.[2] !== undefined) {
    if (withheld[1] !== at.offset.toString()) throw damage(`it is not the record at offset ${at.offset}`);
    return withheld[2];
  }
  const tail = tailOf(text);
  if (tail === undefined) throw damage("it is no line of an export");
  const room = LEAF_HEAD_BYTES + tail.record.length;
  if (scratch.length < room) scratch = Buffer.alloc(2 * room);
  scratch[0] = 0;
  scratch.write(tail.salt, 1, "base64");
  const end = LEAF_HEAD_BYTES + scratch.write(tail.record, LEAF_HEAD_BYTES, "base64");
  const leaf = hash("sha256", scratch.subarray(0, end), "hex");
  if (leaf !== tail.leaf) throw damage("its leaf hash is not that of its record");
  let rendered: string;
  try {
    rendered = render(scratch, { salt: 1, record: LEAF_HEAD_BYTES, end }, leaf);
  } catch {
    throw damage("its record is no record");
  }
  if (rendered !== text) throw damage("what it says is not what its record says");
  if (!text.startsWith(`{"offset":"${at.offset}",`))
    throw damage(`it is not the record at offset ${at.offset}`);
  return leaf;
}

/** The last three fields of a line. That they are written as they must be shows when the line is rendered again. */
function tailOf(
  text: string,
): { readonly leaf: string; readonly salt: string; readonly record: string } | undefined {
  const leafAt = text.lastIndexOf(LEAF_FIELD) + LEAF_FIELD.length;
  const saltAt = leafAt + LEAF_DIGITS + SALT_FIELD.length;
  const recordAt = saltAt + SALT_CHARACTERS + RECORD_FIELD.length;
  if (leafAt < LEAF_FIELD.length || recordAt > text.length || !text.endsWith('"}')) return undefined;
  return {
    leaf: text.slice(leafAt, leafAt + LEAF_DIGITS),
    salt: text.slice(saltAt, saltAt + SALT_CHARACTERS),
    record: text.slice(recordAt, -2),
  };
}

function verifyCheckpoint(dir: string, manifest: ExportManifest): void {
  const text = openNote(dir, "checkpoint.txt", manifest.verifierKey);
  const wanted = `kimberlite/${manifest.installation}/tenant/${manifest.tenant}\n${manifest.size}\n${manifest.root}\n`;
  if (text !== wanted) throw new ExportDamage("checkpoint.txt", "it is not of these records");
}

/** The line of a record that was trimmed, without its end. */
export function renderTrimmed(offset: bigint, leaf: Buffer): string {
  return `{"offset":"${offset}","trimmed":true,"leaf":"${leaf.toString("hex")}"}`;
}

/** The line of a record, without its end: the readable part follows from the record alone. */
export function renderLine(parts: {
  readonly record: Buffer;
  readonly salt: Buffer;
  readonly leaf: Buffer;
}): string {
  const bytes = Buffer.concat([parts.salt, parts.record]);
  const places = { salt: 0, record: parts.salt.length, end: bytes.length };
  return render(bytes, places, parts.leaf.toString("hex"));
}

/** The bytes hold a salt and then its record, from and to these places. */
function render(
  bytes: Buffer,
  at: { readonly salt: number; readonly record: number; readonly end: number },
  leaf: string,
): string {
  const head = new RecordText(bytes, at.record, at.end).head();
  const salt = bytes.toString("base64", at.salt, at.record);
  const record = bytes.toString("base64", at.record, at.end);
  return `${head},"leaf":"${leaf}","salt":"${salt}","record":"${record}"}`;
}

/** Consecutive records are often of one commit time. */
const lastTime = { ms: Number.NaN, text: "" };

function timeText(timeUs: number | bigint): string {
  const ms = Math.floor(Number(timeUs) / 1000);
  if (ms !== lastTime.ms) {
    lastTime.text = new Date(ms).toISOString();
    lastTime.ms = ms;
  }
  return lastTime.text;
}

/** Items of a change, with its kind. */
const CHANGE_ITEMS: Readonly<Record<string, number>> = { r: 5, d: 3, q: 3, s: 3, e: 4, x: 4, p: 3, y: 4 };

const NULL = 0xf6;
const BYTES = 2;

/**
 * Writes a record's CBOR of definite lengths (RFC 8949 §3) as JSON while it reads it, without values between. What JSON
 * cannot say is an object of one field: `integer` past 2⁵³, `real` that looks like an integer, `base64`, `text` that is
 * not UTF-8.
 */
class RecordText {
  readonly #bytes: Buffer;
  #at: number;
  #end: number;
  /** In a row image a REAL is told from an INTEGER. */
  #reals = false;

  constructor(bytes: Buffer, at: number, end: number) {
    this.#bytes = bytes;
    this.#at = at;
    this.#end = end;
  }

  /** The whole record, but for the closing brace. */
  head(): string {
    const fields: Record<string, string> = {};
    for (let left = this.#countOf(5); left > 0; left -= 1) {
      const key = this.#text();
      fields[key] = this.#field(key);
    }
    if (this.#at !== this.#end) throw new Error("bytes follow the record");
    const { o, t, a, i, r, c } = fields;
    if (o === undefined || t === undefined || a === undefined || c === undefined)
      throw new Error("a field is missing");
    const optional = `${i === undefined ? "" : `,"idempotencyKey":${i}`}${r === undefined ? "" : `,"correlationId":${r}`}`;
    return `{"offset":${o},"time":${t},"actor":${a}${optional},"changes":${c}`;
  }

  #field(key: string): string {
    if (key === "o") return `"${this.#integer()}"`;
    if (key === "a" || key === "i" || key === "r") return JSON.stringify(this.#text());
    if (key === "c") return this.#list(() => this.#change());
    if (key !== "t") throw new Error("an unknown field");
    const timeUs = this.#integer();
    return `"${timeText(timeUs)}","timeUs":"${timeUs}"`;
  }

  #change(): string {
    const items = this.#countOf(4);
    const kind = this.#text();
    if (CHANGE_ITEMS[kind] !== items) throw new Error("an unknown kind of change");
    switch (kind) {
      case "r":
        return this.#rowChange();
      case "d":
        return `{"kind":"ddl","sql":${this.#value(0)},"streams":${this.#value(0)}}`;
      case "q":
        return `{"kind":"sequence","table":${this.#value(0)},"value":${this.#isNull() ? "null" : `"${this.#integer()}"`}}`;
      case "x":
        return this.#sealedRow();
      case "p":
        return `{"kind":"declare-subject","stream":${this.#value(0)},"column":${this.#value(0)}}`;
      case "y":
        return `{"kind":"erase-subject","subject":"${this.#hex()}","facts":${this.#value(0)},"certificate":${this.#value(0)}}`;
      case "s":
        return `{"kind":"create-stream","stream":${this.#value(0)},"name":${this.#value(0)}}`;
      default:
        return this.#events();
    }
  }

  #rowChange(): string {
    const stream = this.#value(0);
    const key = this.#majorAhead() === BYTES ? this.#within(true) : `"${this.#integer()}"`;
    const before = this.#isNull() ? "null" : this.#within(true);
    const after = this.#isNull() ? "null" : this.#within(true);
    const kind = before === "null" ? "insert" : after === "null" ? "delete" : "update";
    return `{"kind":"${kind}","stream":${stream},"key":${key},"before":${before},"after":${after}}`;
  }

  /** A row of a subject, sealed under a key that no export has: the same for those that were erased. */
  #sealedRow(): string {
    const stream = this.#value(0);
    const subject = this.#hex();
    const sealed = this.#bytesOf(this.#headOf(BYTES), "base64");
    return `{"kind":"sealed","stream":${stream},"subject":"${subject}","sealed":"${sealed}"}`;
  }

  #hex(): string {
    return this.#bytesOf(this.#headOf(BYTES), "hex");
  }

  #events(): string {
    const stream = this.#value(0);
    const firstOffset = this.#integer();
    const events = this.#list(() => this.#within(false));
    return `{"kind":"events","stream":${stream},"firstOffset":"${firstOffset}","events":${events}}`;
  }

  /** The item that a byte string holds. */
  #within(reals: boolean): string {
    const [length, outer] = [this.#countOf(BYTES), this.#end];
    this.#end = this.#at + length;
    this.#reals = reals;
    const json = this.#value(0);
    if (this.#at !== this.#end) throw new Error("bytes follow the item");
    this.#end = outer;
    this.#reals = false;
    return json;
  }

  #value(depth: number): string {
    if (depth > 200) throw new Error("nested too deep");
    const first = this.#byte();
    const info = first & 0x1f;
    switch (first >> 5) {
      case 0:
        return integerJson(this.#argument(info));
      case 1:
        return integerJson(negative(this.#argument(info)));
      case BYTES:
        return `{"base64":"${this.#bytesOf(info, "base64")}"}`;
      case 3:
        return JSON.stringify(this.#bytesOf(info, "utf8"));
      case 4:
        return this.#items(this.#count(info), () => this.#value(depth + 1));
      case 5:
        return this.#map(this.#count(info), depth);
      case 6:
        return this.#tagged(Number(this.#argument(info)));
      default:
        return this.#simple(info);
    }
  }

  #list(item: () => string): string {
    return this.#items(this.#countOf(4), item);
  }

  #items(count: number, item: () => string): string {
    if (count === 0) return "[]";
    let json = `[${item()}`;
    for (let left = count; left > 1; left -= 1) json += `,${item()}`;
    return `${json}]`;
  }

  #map(count: number, depth: number): string {
    let json = "{";
    for (let left = count; left > 0; left -= 1) {
      json += `${JSON.stringify(this.#text())}:${this.#value(depth + 1)}${left > 1 ? "," : ""}`;
    }
    return `${json}}`;
  }

  #tagged(tag: number): string {
    if (tag === 40_000) return `{"text":"${this.#bytesOf(this.#headOf(BYTES), "base64")}"}`;
    if (tag !== 2 && tag !== 3) throw new Error("an unknown tag");
    const size = BigInt(`0x${this.#bytesOf(this.#headOf(BYTES), "hex") || "0"}`);
    return integerJson(tag === 2 ? size : -1n - size);
  }

  #simple(info: number): string {
    if (info === 20) return "false";
    if (info === 21) return "true";
    if (info === 22) return "null";
    if (info !== 26 && info !== 27) throw new Error("an unknown simple value");
    const at = this.#skip(info === 26 ? 4 : 8);
    const value = info === 26 ? this.#bytes.readFloatBE(at) : this.#bytes.readDoubleBE(at);
    const alike = this.#reals && (Number.isInteger(value) || !Number.isFinite(value));
    return alike ? `{"real":"${value}"}` : JSON.stringify(value);
  }

  #isNull(): boolean {
    if (this.#at >= this.#end || this.#bytes[this.#at] !== NULL) return false;
    this.#at += 1;
    return true;
  }

  #majorAhead(): number {
    return this.#at < this.#end ? (this.#bytes[this.#at] as number) >> 5 : -1;
  }

  #integer(): number | bigint {
    const first = this.#byte();
    if (first >> 5 > 1) throw new Error("it is no integer");
    const argument = this.#argument(first & 0x1f);
    return first >> 5 === 0 ? argument : negative(argument);
  }

  #text(): string {
    return this.#bytesOf(this.#headOf(3), "utf8");
  }

  /** The low bits of a head that must be of this major type. */
  #headOf(major: number): number {
    const first = this.#byte();
    if (first >> 5 !== major) throw new Error("an item of another kind was expected");
    return first & 0x1f;
  }

  #countOf(major: number): number {
    return this.#count(this.#headOf(major));
  }

  /** Of items or bytes: there are no more than bytes left. */
  #count(info: number): number {
    const count = Number(this.#argument(info));
    if (count > this.#end - this.#at) throw new Error("more items than bytes");
    return count;
  }

  #bytesOf(info: number, encoding: "utf8" | "base64" | "hex"): string {
    const at = this.#skip(this.#count(info));
    return this.#bytes.toString(encoding, at, this.#at);
  }

  #argument(info: number): number | bigint {
    if (info < 24) return info;
    if (info > 27) throw new Error("an indefinite length");
    if (info === 24) return this.#byte();
    const at = this.#skip(2 ** (info - 24));
    if (info === 25) return this.#bytes.readUInt16BE(at);
    if (info === 26) return this.#bytes.readUInt32BE(at);
    const wide = this.#bytes.readBigUInt64BE(at);
    return wide <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(wide) : wide;
  }

  #byte(): number {
    return this.#bytes[this.#skip(1)] as number;
  }

  /** @returns where the skipped bytes begin */
  #skip(length: number): number {
    const at = this.#at;
    if (at + length > this.#end) throw new Error("cut off");
    this.#at = at + length;
    return at;
  }
}

function negative(argument: number | bigint): number | bigint {
  return typeof argument === "number" && argument < Number.MAX_SAFE_INTEGER
    ? -1 - argument
    : -1n - BigInt(argument);
}

function integerJson(value: number | bigint): string {
  return typeof value === "bigint" ? `{"integer":"${value}"}` : String(value);
}

/** A Merkle tree that grows (RFC 9162 §2.1.1): roots of its complete subtrees, hex, the largest first. */
class Tree {
  size = 0n;
  readonly #roots: string[] = [];

  append(leaf: string): void {
    let node = leaf;
    for (let complete = this.size; (complete & 1n) === 1n; complete >>= 1n)
      node = nodeOf(this.#roots.pop() as string, node);
    this.#roots.push(node);
    this.size += 1n;
  }

  root(): Buffer {
    const [first, ...others] = this.#roots.toReversed();
    if (first === undefined) return hash("sha256", Buffer.alloc(0), "buffer");
    return Buffer.from(
      others.reduce((right, left) => nodeOf(left, right), first),
      "hex",
    );
  }
}

const preimage: Buffer = Buffer.alloc(65, 1);

function nodeOf(left: string, right: string): string {
  preimage.write(left, 1, "hex");
  preimage.write(right, 33, "hex");
  return hash("sha256", preimage, "hex");
}

const SPKI_OF_ED25519 = Buffer.from("302a300506032b6570032100", "hex");

/** The text of a note that the key signed (C2SP signed-note). */
function openNote(dir: string, name: string, vkey: string): string {
  const [, keyName = "", id = "", encoded = ""] =
    /^([^+\s]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)$/.exec(vkey.trim()) ?? [];
  const raw = Buffer.from(encoded, "base64");
  const expected = createHash("sha256").update(`${keyName}\n`).update(raw).digest("hex").slice(0, 8);
  if (raw.length !== 33 || raw[0] !== 1 || id !== expected)
    throw new ExportDamage(name, "the verifier key is not one");
  const note = readWhole(dir, name).toString("utf8");
  const end = note.lastIndexOf("\n\n");
  const text = note.slice(0, end + 1);
  const key = createPublicKey({
    key: Buffer.concat([SPKI_OF_ED25519, raw.subarray(1)]),
    format: "der",
    type: "spki",
  });
  const signed = note
    .slice(end + 2)
    .split("\n")
    .some((line) => {
      const [, by, base64 = ""] = /^— (\S+) ([A-Za-z0-9+/=]+)$/.exec(line) ?? [];
      const bytes = Buffer.from(base64, "base64");
      if (by !== keyName || bytes.toString("hex", 0, 4) !== id) return false;
      return verifySignature(null, Buffer.from(text), key, bytes.subarray(4));
    });
  if (end < 0 || !signed) throw new ExportDamage(name, "the key did not sign it");
  return text;
}

function readWhole(dir: string, name: string): Buffer {
  const path = join(dir, name);
  if (!existsSync(path)) throw new ExportDamage(name, "it is missing");
  return readFileSync(path);
}

function parseJson(text: string, name: string): unknown {
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === "object" && parsed !== null) return parsed;
  } catch {
    // Said below.
  }
  throw new ExportDamage(name, "it is not a JSON object");
}

const USAGE = `usage: kimberlite-verify-export DIR [--key VERIFIER-KEY]
Checks an export of a tenant, offline. --key says whose signature is trusted; without it the export is only held against itself.
Exit codes: 0 whole, 2 wrong usage, 11 damage found.
`;

async function main(args: readonly string[]): Promise<number> {
  const at = args.indexOf("--key");
  const key = at < 0 ? undefined : args[at + 1];
  const [dir, ...more] = args.filter((_, index) => at < 0 || (index !== at && index !== at + 1));
  const isHelp = args.includes("--help");
  // A key that is not taken up would leave "whole" standing for what nobody signed.
  if (isHelp || dir === undefined || dir.startsWith("-") || more.length > 0 || (at >= 0 && !key)) {
    (isHelp ? process.stdout : process.stderr).write(USAGE);
    return isHelp ? 0 : 2;
  }
  try {
    const { tenant, size, root, trusted } = await verifyExport(dir, key === undefined ? {} : { key });
    const whose = trusted
      ? "signed by the key that was given"
      : "consistent with itself; give --key to know whose it is";
    process.stdout.write(`tenant ${tenant}: ${size} records, root ${root}: whole, ${whose}\n`);
    return 0;
  } catch (error) {
    if (!(error instanceof ExportDamage)) throw error;
    process.stderr.write(`${error.message}\n`);
    return 11;
  }
}

/** One thread's files of events, in order, up to the first damaged one. */
async function runThread({ dir, files, from, every }: ThreadTask): Promise<void> {
  const post = (message: ThreadMessage, moved: ArrayBuffer[] = []): void =>
    parentPort?.postMessage(message, moved);
  for (let index = from; index < files.length; index += every) {
    try {
      const leaves = await verifyEvents(dir, files[index] as ExportedEvents, (bytes) => post({ bytes }));
      post({ index, leaves }, [leaves.buffer]);
    } catch (error) {
      if (!(error instanceof ExportDamage)) throw error;
      return post({ index, why: error.why, line: error.line });
    }
  }
}

const threadTask = (workerData as { readonly kimberliteExport?: ThreadTask } | null)?.kimberliteExport;
if (!isMainThread && threadTask !== undefined) await runThread(threadTask);
else if (
  process.argv[1] !== undefined &&
  import.meta.url === pathToFileURL(realpathSync(process.argv[1])).href
) {
  process.exitCode = await main(process.argv.slice(2));
}
