/**
 * The commit journal: what makes the commits of a whole node durable.
 *
 * Sealed blocks of all tenants that are ready at the same moment go into one frame, one write, one sync. Right after,
 * they are written to the tenants' own segments without a sync. Two files take turns: before one is written again,
 * every segment that it covers is synced. Recovery replays both files into the segments; replaying twice is harmless.
 *
 * Kept: a commit resolves only after its frame is on the disk; frames hold nothing but sealed blocks and the headers
 * of segments; a frame is overwritten only when the segments that it covers, and their names, are durable. Survives: a
 * kill or power loss at any instant, a short or failed write (that frame's commits fail, and its place is made void), a
 * failed sync of a segment (the kernel forgets what it could not write: it is written again from here), a full disk.
 */
import { hash } from "node:crypto";
import { dirname, join } from "node:path";
import { kimberliteError } from "../errors.ts";
import type { Disk, DiskFile } from "../host/disk.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import { logFolder, segmentPath } from "./segment.ts";

const MAGIC = 0x4c4e_4a4b; // "KJNL"
const FORMAT_VERSION = 1;
const FRAME_HEADER_BYTES = 64;
const ENTRY_HEADER_BYTES = 32;
const ALIGNMENT = 512;
/** Length of each of the two files, beyond which it is the other's turn. */
export const JOURNAL_FILE_BYTES: number = 16 * 1024 * 1024;
const MAX_FRAME_BYTES = 8 * 1024 * 1024;
const WIPE_CHUNK_BYTES = 1024 * 1024;

/** Bytes for one place in one segment. */
export interface JournalEntry {
  readonly tenant: TenantId;
  /** First offset of the segment that the bytes belong to. */
  readonly segment: bigint;
  readonly position: number;
  readonly bytes: Buffer;
}

interface Waiting {
  readonly entry: JournalEntry;
  readonly done: (error: unknown) => void;
}

interface JournalFile {
  readonly path: string;
  readonly file: DiskFile;
  generation: bigint;
  sequence: number;
  position: number;
  readonly dirtySegments: Set<string>;
  /** Folders in which a segment began. */
  readonly dirtyFolders: Set<string>;
  /** A sync failed: what the disk has of the covered segments is unknown until they are written again. */
  doubtful: boolean;
  /** A failed write may have left a whole frame behind the last one. */
  spoiled: boolean;
  /** Durable entries that could not be written into their segments yet. */
  retained: JournalEntry[];
}

export class Journal {
  readonly #disk: Disk;
  readonly #root: string;
  readonly #files: [JournalFile, JournalFile];
  readonly #fileBytes: number;
  #active: number;
  #queue: Waiting[] = [];
  #writing = false;
  #scheduled = false;
  #recycling: Promise<void> | undefined;
  #idle: (() => void)[] = [];
  /** Recycles under way: no frame is written meanwhile. */
  #holds = 0;
  /** A recycle that failed midway is finished before another frame is written. */
  #halfWiped = false;

  private constructor(
    root: string,
    disk: Disk,
    start: { readonly files: [JournalFile, JournalFile]; readonly active: number; readonly fileBytes: number },
  ) {
    this.#root = root;
    this.#disk = disk;
    this.#files = start.files;
    this.#fileBytes = start.fileBytes;
    this.#active = start.active;
  }

  /**
   * Opens the journal of a data directory, replaying into the segments what a crash left there.
   *
   * @throws `journal_damaged` if a frame is missing before a later one.
   */
  static async open(root: string, disk: Disk, fileBytes: number = JOURNAL_FILE_BYTES): Promise<Journal> {
    const folder = join(root, "journal");
    disk.makeFolder(folder);
    const names = ["0.jnl", "1.jnl"].map((name) => join(folder, name));
    const [first, second] = names.map((name) => readFrames(disk, name)) as [FileFrames, FileFrames];
    refuseLostFrames(first, second);
    const inOrder = first.generation <= second.generation ? [first, second] : [second, first];
    const touched = new Set<string>();
    for (const { entries } of inOrder) for (const entry of entries) replay(root, disk, entry, touched);
    syncReplayed(disk, touched);
    const newest = (inOrder[1] as FileFrames).generation;
    const files = names.map((name) => openJournalFile(disk, name, fileBytes)) as [JournalFile, JournalFile];
    disk.syncFolder(folder);
    // The files take turns also from one opening to the next: `refuseLostFrames` relies on it.
    const active = first.generation > second.generation ? 1 : 0;
    if (newest > 0n) await restart(files[active] as JournalFile, newest + 1n);
    return new Journal(root, disk, { files, active, fileBytes });
  }

  /** Calls `done(undefined)` when the entry is on the disk, or `done(error)`; never both, never neither. */
  commit(entry: JournalEntry, done: (error: unknown) => void): void {
    this.#queue.push({ entry, done });
    this.#schedule();
  }

  /** Keeps a durable entry whose segment refused it: the journal does not forget it before the segment has it. */
  retain(entry: JournalEntry): void {
    this.#file.retained.push(entry);
  }

  /** Writes a tenant's retained entries into its segments. @throws `disk_full`, `disk_failed` */
  flushRetained(tenant: TenantId): void {
    for (const file of this.#files) this.#flush(file, (entry) => entry.tenant === tenant);
  }

  /**
   * Syncs every covered segment and empties both files: afterwards the journal holds no byte of any tenant. Commits
   * wait meanwhile. After a failure the next commit, or the next call, finishes it.
   */
  async recycle(): Promise<void> {
    this.#holds += 1;
    try {
      while (this.#writing) await this.#untilIdle();
      await this.#recycling?.catch(() => undefined);
      for (const file of this.#files) await this.#syncSegments(file);
      this.#halfWiped = true;
      await this.#wipe();
    } finally {
      this.#holds -= 1;
      this.#schedule();
    }
  }

  async close(): Promise<void> {
    while (this.#writing || this.#queue.length > 0) await this.#untilIdle();
    await this.#recycling?.catch(() => undefined);
    try {
      await voidPlace(this.#file);
      for (const file of this.#files) await this.#syncSegments(file);
    } finally {
      for (const file of this.#files) file.file.close();
    }
  }

  get #file(): JournalFile {
    return this.#files[this.#active] as JournalFile;
  }

  #untilIdle(): Promise<void> {
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  #schedule(): void {
    if (this.#scheduled || this.#writing || this.#holds > 0 || this.#queue.length === 0) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      if (!this.#writing && this.#holds === 0) void this.#writeLoop();
    });
  }

  async #writeLoop(): Promise<void> {
    this.#writing = true;
    while (this.#queue.length > 0 && this.#holds === 0) {
      const batch = this.#takeBatch();
      const failure = await this.#writeFrame(batch).then(
        () => undefined,
        (error: unknown) => error ?? new Error("unknown"),
      );
      for (const waiting of batch) waiting.done(failure);
    }
    this.#writing = false;
    for (const wake of this.#idle.splice(0)) wake();
  }

  #takeBatch(): Waiting[] {
    let bytes = 0;
    let count = 0;
    for (const { entry } of this.#queue) {
      bytes += ENTRY_HEADER_BYTES + entry.bytes.length;
      if (count > 0 && bytes > MAX_FRAME_BYTES) break;
      count += 1;
    }
    return this.#queue.splice(0, count);
  }

  async #writeFrame(batch: readonly Waiting[]): Promise<void> {
    if (this.#halfWiped) await this.#wipe();
    if (this.#file.position >= this.#fileBytes) await this.#turn();
    const file = this.#file;
    const frame = encodeFrame(
      batch.map((waiting) => waiting.entry),
      file,
    );
    file.spoiled = true;
    try {
      await file.file.writeDurably(frame, file.position);
    } catch (error) {
      // Best effort: if this fails too, the next frame takes the place, or closing tries again.
      await voidPlace(file).catch(() => undefined);
      throw error;
    }
    file.spoiled = false;
    file.position += frame.length;
    file.sequence += 1;
    for (const { entry } of batch) this.#noteDirty(file, entry);
  }

  #noteDirty(file: JournalFile, entry: JournalEntry): void {
    const folder = logFolder(this.#root, entry.tenant);
    file.dirtySegments.add(segmentPath(folder, entry.segment));
    if (entry.position === 0) file.dirtyFolders.add(folder);
  }

  /** Goes on in the other file, which must be clean by now, and starts to clean the one that is full. */
  async #turn(): Promise<void> {
    await this.#recycling?.catch(() => undefined);
    const full = this.#file;
    const next = this.#files[1 - this.#active] as JournalFile;
    // Usually nothing is left to sync; after a failed sync this is the second try, and its failure fails the commit.
    await this.#syncSegments(next);
    await restart(next, full.generation + 1n);
    this.#active = 1 - this.#active;
    this.#recycling = this.#syncSegments(full);
    this.#recycling.catch(() => undefined);
  }

  /** Zeros both files, each from its end: what is left of it when a crash comes still begins with whole frames. */
  async #wipe(): Promise<void> {
    const newest = this.#file.generation;
    for (const file of [this.#file, this.#files[1 - this.#active] as JournalFile]) {
      for (let end = Math.max(this.#fileBytes, file.file.size()); end > 0; end -= WIPE_CHUNK_BYTES) {
        const start = Math.max(0, end - WIPE_CHUNK_BYTES);
        await file.file.writeDurably(Buffer.alloc(end - start), start);
      }
      file.spoiled = false;
    }
    await restart(this.#file, newest + 1n);
    this.#halfWiped = false;
  }

  #flush(file: JournalFile, chosen: (entry: JournalEntry) => boolean): void {
    for (const entry of file.retained.filter(chosen)) {
      replay(this.#root, this.#disk, entry, file.dirtySegments);
      file.retained.splice(file.retained.indexOf(entry), 1);
    }
  }

  async #syncSegments(file: JournalFile): Promise<void> {
    this.#flush(file, () => true);
    try {
      if (file.doubtful) this.#writeAgain(file);
      for (const path of [...file.dirtySegments]) {
        const segment = openIfPresent(this.#disk, path);
        if (segment !== undefined) await segment.sync().finally(() => segment.close());
        file.dirtySegments.delete(path);
      }
      for (const folder of [...file.dirtyFolders]) {
        if (this.#disk.has(folder)) this.#disk.syncFolder(folder);
        file.dirtyFolders.delete(folder);
      }
    } catch (error) {
      file.doubtful = true;
      throw error;
    }
    file.doubtful = false;
  }

  /** After a failed sync the kernel may count pages as clean that never reached the disk: syncing again proves nothing. */
  #writeAgain(file: JournalFile): void {
    const bytes = (this.#disk.readFile(file.path) ?? Buffer.alloc(0)).subarray(0, file.position);
    for (const entry of walkFrames(bytes).entries) {
      const path = segmentPath(logFolder(this.#root, entry.tenant), entry.segment);
      const segment = file.dirtySegments.has(path) ? openIfPresent(this.#disk, path) : undefined;
      try {
        segment?.write(entry.bytes, entry.position);
      } finally {
        segment?.close();
      }
    }
  }
}

/**
 * Begins a file anew, with no frame at its start: a first frame that is torn must not leave the head of an older
 * generation before frames that belong to neither.
 */
async function restart(file: JournalFile, generation: bigint): Promise<void> {
  await file.file.writeDurably(Buffer.alloc(ALIGNMENT), 0);
  file.generation = generation;
  file.sequence = 0;
  file.position = 0;
}

/** Makes sure that a frame whose commits have failed is not there after a restart. */
async function voidPlace(file: JournalFile): Promise<void> {
  if (!file.spoiled) return;
  await file.file.writeDurably(Buffer.alloc(ALIGNMENT), file.position);
  file.spoiled = false;
}

function openJournalFile(disk: Disk, path: string, fileBytes: number): JournalFile {
  const file = disk.open(path, "durable");
  // Written once in full, so that a commit's write changes no metadata and needs no journal of the file system.
  if (file.size() < fileBytes) file.write(Buffer.alloc(fileBytes - file.size()), file.size());
  return {
    path,
    file,
    generation: 1n,
    sequence: 0,
    position: 0,
    dirtySegments: new Set(),
    dirtyFolders: new Set(),
    doubtful: false,
    spoiled: false,
    retained: [],
  };
}

function encodeFrame(entries: readonly JournalEntry[], at: { generation: bigint; sequence: number }): Buffer {
  const payload = entries.reduce((sum, entry) => sum + ENTRY_HEADER_BYTES + entry.bytes.length, 0);
  const used = FRAME_HEADER_BYTES + payload;
  const frame = Buffer.alloc(Math.ceil(used / ALIGNMENT) * ALIGNMENT);
  frame.writeUInt32LE(MAGIC, 0);
  frame.writeUInt32LE(FORMAT_VERSION, 4);
  frame.writeBigUInt64LE(at.generation, 8);
  frame.writeBigUInt64LE(BigInt(at.sequence), 16);
  frame.writeUInt32LE(payload, 24);
  frame.writeUInt32LE(entries.length, 28);
  let position = FRAME_HEADER_BYTES;
  for (const entry of entries) {
    frame.writeBigUInt64LE(entry.tenant, position);
    frame.writeBigUInt64LE(entry.segment, position + 8);
    frame.writeBigUInt64LE(BigInt(entry.position), position + 16);
    frame.writeUInt32LE(entry.bytes.length, position + 24);
    entry.bytes.copy(frame, position + ENTRY_HEADER_BYTES);
    position += ENTRY_HEADER_BYTES + entry.bytes.length;
  }
  frameChecksum(frame, used).copy(frame, 32);
  return frame;
}

function frameChecksum(frame: Buffer, used: number): Buffer {
  return hash("sha256", Buffer.concat([frame.subarray(0, 32), frame.subarray(FRAME_HEADER_BYTES, used)]), "buffer");
}

interface Frames {
  readonly generation: bigint;
  readonly entries: JournalEntry[];
}

interface FileFrames extends Frames {
  /** Newest generation of a whole frame behind the place where reading stopped. */
  readonly behind: bigint;
}

function readFrames(disk: Disk, path: string): FileFrames {
  const bytes = disk.readFile(path) ?? Buffer.alloc(0);
  const { position, ...frames } = walkFrames(bytes);
  let behind = 0n;
  for (let at = position; at + FRAME_HEADER_BYTES <= bytes.length; at += ALIGNMENT) {
    const found = parseFrame(bytes, at)?.generation ?? 0n;
    if (found > behind) behind = found;
  }
  return { ...frames, behind };
}

/** The whole frames from the start that follow each other, and where they end. */
function walkFrames(bytes: Buffer): Frames & { readonly position: number } {
  const entries: JournalEntry[] = [];
  const generation = parseFrame(bytes, 0)?.generation ?? 0n;
  let position = 0;
  for (let sequence = 0n; ; sequence += 1n) {
    const frame = parseFrame(bytes, position);
    if (frame === undefined || frame.generation !== generation || frame.sequence !== sequence) break;
    entries.push(...frame.entries);
    position += frame.totalBytes;
  }
  return { generation, entries, position };
}

/**
 * A frame is written only after the one before it is durable, and the older file is the one that is begun anew, its
 * first sector zeroed first. So a whole frame behind the end of reading proves that one before it was lost, unless a
 * newer generation stands at the file's start, or was about to: then the other file holds a newer one than the frame's.
 */
function refuseLostFrames(a: FileFrames, b: FileFrames): void {
  const lost = (file: FileFrames, other: FileFrames): boolean => {
    if (file.behind === 0n) return false;
    return file.generation === 0n ? file.behind > other.generation : file.behind >= file.generation;
  };
  if (lost(a, b) || lost(b, a)) {
    throw kimberliteError("journal_damaged", "the commit journal is damaged before its end");
  }
}

interface ParsedFrame extends Frames {
  readonly sequence: bigint;
  readonly totalBytes: number;
}

function parseFrame(bytes: Buffer, at: number): ParsedFrame | undefined {
  if (at + FRAME_HEADER_BYTES > bytes.length || bytes.readUInt32LE(at) !== MAGIC) return undefined;
  const version = bytes.readUInt32LE(at + 4);
  if (version > FORMAT_VERSION) {
    throw kimberliteError("format_too_new", `the journal has format ${version}`, { detail: { version } });
  }
  const used = FRAME_HEADER_BYTES + bytes.readUInt32LE(at + 24);
  if (at + used > bytes.length) return undefined;
  const frame = bytes.subarray(at, at + used);
  if (!frameChecksum(frame, used).equals(frame.subarray(32, 64))) return undefined;
  return {
    generation: frame.readBigUInt64LE(8),
    sequence: frame.readBigUInt64LE(16),
    totalBytes: Math.ceil(used / ALIGNMENT) * ALIGNMENT,
    entries: parseEntries(frame),
  };
}

function parseEntries(frame: Buffer): JournalEntry[] {
  const entries: JournalEntry[] = [];
  let position = FRAME_HEADER_BYTES;
  for (let left = frame.readUInt32LE(28); left > 0; left -= 1) {
    const length = frame.readUInt32LE(position + 24);
    const start = position + ENTRY_HEADER_BYTES;
    entries.push({
      tenant: frame.readBigUInt64LE(position) as TenantId,
      segment: frame.readBigUInt64LE(position + 8),
      position: Number(frame.readBigUInt64LE(position + 16)),
      bytes: frame.subarray(start, start + length),
    });
    position = start + length;
  }
  return entries;
}

/** Writes an entry into its segment unless it stands there already. A tenant whose folder is gone was erased. */
function replay(root: string, disk: Disk, entry: JournalEntry, touched: Set<string>): void {
  const folder = logFolder(root, entry.tenant);
  const path = segmentPath(folder, entry.segment);
  const begins = entry.position === 0;
  const file = begins && disk.has(folder) ? disk.open(path, "create") : openIfPresent(disk, path);
  if (file === undefined) return;
  touched.add(path);
  try {
    if (file.read(entry.position, entry.bytes.length).equals(entry.bytes)) return;
    file.write(entry.bytes, entry.position);
  } finally {
    file.close();
  }
}

/** Also those that were right already: right in the system's cache, perhaps, and not on the disk. */
function syncReplayed(disk: Disk, paths: ReadonlySet<string>): void {
  for (const path of paths) syncPath(disk, path);
  for (const folder of new Set([...paths].map(dirname))) disk.syncFolder(folder);
}

function openIfPresent(disk: Disk, path: string): DiskFile | undefined {
  return disk.has(path) ? disk.open(path, "update") : undefined;
}

function syncPath(disk: Disk, path: string): void {
  const file = disk.open(path, "update");
  try {
    file.syncNow();
  } finally {
    file.close();
  }
}
