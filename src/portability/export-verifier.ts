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

const LINE_TAIL =
  /^,"leaf":"([0-9a-f]{64})","salt":"([A-Za-z0-9+/]{22}==)","record":"([A-Za-z0-9+/]*={0,2})"\}$/;
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
  const tailAt = text.lastIndexOf(',"leaf":"');
  const [, leaf = "", salt = "", record = ""] = LINE_TAIL.exec(tailAt < 0 ? "" : text.slice(tailAt)) ?? [];
  if (leaf === "") throw damage("it is no line of an export");
  const room = LEAF_HEAD_BYTES + record.length;
  if (scratch.length < room) scratch = Buffer.alloc(2 * room);
  scratch[0] = 0;
  scratch.write(salt, 1, "base64");
  const end = LEAF_HEAD_BYTES + scratch.write(record, LEAF_HEAD_BYTES, "base64");
  if (hash("sha256", scratch.subarray(0, end), "hex") !== leaf)
    throw damage("its leaf hash is not that of its record");
  let rendered: string;
  try {
    rendered = render(scratch.subarray(LEAF_HEAD_BYTES, end), { leaf, salt, record });
  } catch {
    throw damage("its record is no record");
  }
  if (rendered !== text) throw damage("what it says is not what its record says");
  if (!text.startsWith(`{"offset":"${at.offset}",`))
    throw damage(`it is not the record at offset ${at.offset}`);
  return leaf;
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
  return render(parts.record, {
    leaf: parts.leaf.toString("hex"),
    salt: parts.salt.toString("base64"),
    record: parts.record.toString("base64"),
  });
}

function render(
  bytes: Buffer,
  tail: { readonly leaf: string; readonly salt: string; readonly record: string },
): string {
  const record = new Cbor(bytes).whole() as Record<string, unknown>;
  const timeUs = record["t"] as number | bigint;
  const head: Record<string, unknown> = {
    offset: String(record["o"]),
    time: new Date(Math.floor(Number(timeUs) / 1000)).toISOString(),
    timeUs: String(timeUs),
    actor: record["a"],
  };
  if (record["i"] !== undefined) head["idempotencyKey"] = record["i"];
  if (record["r"] !== undefined) head["correlationId"] = record["r"];
  head["changes"] = (record["c"] as unknown[][]).map(renderChange);
  const { leaf, salt, record: base64 } = tail;
  return `${JSON.stringify(head).slice(0, -1)},"leaf":"${leaf}","salt":"${salt}","record":"${base64}"}`;
}

function renderChange(change: unknown[]): Record<string, unknown> {
  const [kind, a, b, c, d] = change;
  switch (kind) {
    case "r":
      return {
        kind: c === null ? "insert" : d === null ? "delete" : "update",
        stream: a,
        key: Buffer.isBuffer(b) ? renderImage(b) : String(b),
        before: renderImage(c as Buffer | null),
        after: renderImage(d as Buffer | null),
      };
    case "d":
      return { kind: "ddl", sql: a, streams: b };
    case "q":
      return { kind: "sequence", table: a, value: b === null ? null : String(b as bigint) };
    case "s":
      return { kind: "create-stream", stream: a, name: b };
    case "e":
      return {
        kind: "events",
        stream: a,
        firstOffset: String(b),
        events: (c as Buffer[]).map((event) => renderValue(new Cbor(event).whole())),
      };
    default:
      throw new Error("an unknown kind of change");
  }
}

function renderImage(image: Buffer | null): unknown {
  return image === null ? null : (new Cbor(image, true).whole() as unknown[]).map(renderValue);
}

/** A REAL of a row image, which JSON would not tell from an INTEGER. */
class Real {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }
}

function renderValue(value: unknown): unknown {
  if (value instanceof Real)
    return Number.isInteger(value.value) || !Number.isFinite(value.value)
      ? { real: String(value.value) }
      : value.value;
  if (typeof value === "bigint") return { integer: value.toString() };
  if (value instanceof Uint8Array) return { base64: Buffer.from(value).toString("base64") };
  if (value instanceof BadText) return { text: Buffer.from(value.bytes).toString("base64") };
  if (Array.isArray(value)) return value.map(renderValue);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, renderValue(item)]));
}

/** TEXT that is not UTF-8. */
class BadText {
  readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }
}

/** Reads CBOR of definite lengths (RFC 8949 §3); integers past 2⁵³ come as bigints. */
class Cbor {
  readonly #bytes: Buffer;
  readonly #reals: boolean;
  #at = 0;

  constructor(bytes: Buffer, reals = false) {
    this.#bytes = bytes;
    this.#reals = reals;
  }

  whole(): unknown {
    const value = this.#item(0);
    if (this.#at !== this.#bytes.length) throw new Error("bytes follow the item");
    return value;
  }

  #item(depth: number): unknown {
    if (depth > 200) throw new Error("nested too deep");
    const first = this.#bytes.readUInt8(this.#at);
    this.#at += 1;
    const major = first >> 5;
    const info = first & 0x1f;
    if (major === 7) return this.#simple(info);
    const argument = this.#argument(info);
    switch (major) {
      case 0:
        return argument;
      case 1:
        return typeof argument === "number" && argument < Number.MAX_SAFE_INTEGER
          ? -1 - argument
          : -1n - BigInt(argument);
      case 2:
        return this.#take(Number(argument));
      case 3: {
        const length = Number(argument);
        this.#skip(length);
        return this.#bytes.toString("utf8", this.#at - length, this.#at);
      }
      case 4:
        return Array.from({ length: this.#count(argument) }, () => this.#item(depth + 1));
      case 5:
        return this.#map(this.#count(argument), depth);
      default:
        return this.#tagged(Number(argument), depth);
    }
  }

  #tagged(tag: number, depth: number): unknown {
    const inner = this.#item(depth + 1);
    if (tag === 40_000 && inner instanceof Uint8Array) return new BadText(inner);
    if ((tag === 2 || tag === 3) && inner instanceof Uint8Array) {
      const value = BigInt(`0x${Buffer.from(inner).toString("hex") || "0"}`);
      return tag === 2 ? value : -1n - value;
    }
    throw new Error("an unknown tag");
  }

  #map(count: number, depth: number): Record<string, unknown> {
    const map: Record<string, unknown> = {};
    for (let index = 0; index < count; index += 1) {
      const key = this.#item(depth + 1);
      if (typeof key !== "string") throw new Error("a key is no text");
      map[key] = this.#item(depth + 1);
    }
    return map;
  }

  #simple(info: number): unknown {
    if (info === 20 || info === 21) return info === 21;
    if (info === 22) return null;
    const bytes = info === 25 ? 2 : info === 26 ? 4 : info === 27 ? 8 : 0;
    const at = this.#at;
    this.#skip(bytes);
    if (bytes === 4) return this.#number(this.#bytes.readFloatBE(at));
    if (bytes === 8) return this.#number(this.#bytes.readDoubleBE(at));
    throw new Error("an unknown simple value");
  }

  #number(value: number): unknown {
    return this.#reals ? new Real(value) : value;
  }

  #argument(info: number): number | bigint {
    const at = this.#at;
    if (info < 24) return info;
    if (info > 27) throw new Error("an indefinite length");
    this.#skip(2 ** (info - 24));
    if (info === 24) return this.#bytes.readUInt8(at);
    if (info === 25) return this.#bytes.readUInt16BE(at);
    if (info === 26) return this.#bytes.readUInt32BE(at);
    const wide = this.#bytes.readBigUInt64BE(at);
    return wide <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(wide) : wide;
  }

  #count(argument: number | bigint): number {
    const count = Number(argument);
    if (count > this.#bytes.length - this.#at) throw new Error("more items than bytes");
    return count;
  }

  #take(length: number): Buffer {
    this.#skip(length);
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  #skip(length: number): void {
    if (this.#at + length > this.#bytes.length) throw new Error("cut off");
    this.#at += length;
  }
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

async function main(args: readonly string[]): Promise<number> {
  const at = args.indexOf("--key");
  const key = at < 0 ? undefined : args[at + 1];
  const [dir] = args.filter((_, index) => at < 0 || (index !== at && index !== at + 1));
  if (dir === undefined) {
    process.stderr.write("usage: export-verifier DIR [--key VERIFIER-KEY]\n");
    return 2;
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
