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
import { dirname, join } from "node:path";
import type { Disk, DiskFile } from "../host/disk.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import {
  ALIGNMENT,
  ENTRY_HEADER_BYTES,
  encodeFrame,
  type FileFrames,
  type JournalEntry,
  readFrames,
  refuseLostFrames,
  walkFrames,
} from "./journal-frame.ts";
import { logFolder, segmentPath } from "./segment.ts";

/** Length of each of the two files, beyond which it is the other's turn. */
const JOURNAL_FILE_BYTES = 16 * 1024 * 1024;
const MAX_FRAME_BYTES = 8 * 1024 * 1024;
const WIPE_CHUNK_BYTES = 1024 * 1024;

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
    start: {
      readonly files: [JournalFile, JournalFile];
      readonly active: number;
      readonly fileBytes: number;
    },
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
    replayAll(
      root,
      disk,
      inOrder.flatMap((frames) => frames.entries),
    );
    const files = names.map((name) => openJournalFile(disk, name, fileBytes)) as [JournalFile, JournalFile];
    try {
      for (const path of [folder, root]) disk.syncFolder(path);
      // The files take turns also from one opening to the next: `refuseLostFrames` relies on it.
      const active = first.generation > second.generation ? 1 : 0;
      const newest = (inOrder[1] as FileFrames).generation;
      if (newest > 0n) await restart(files[active] as JournalFile, newest + 1n);
      return new Journal(root, disk, { files, active, fileBytes });
    } catch (error) {
      for (const { file } of files) file.close();
      throw error;
    }
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
   *
   * @throws `disk_full`, `disk_failed`
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

  /** Finishes what waits; afterwards there is nothing to replay. @throws `disk_full`, `disk_failed` */
  async close(): Promise<void> {
    while (this.#writing || this.#queue.length > 0) await this.#untilIdle();
    await this.#recycling?.catch(() => undefined);
    try {
      await voidPlace(this.#file);
      for (const file of this.#files) await this.#syncSegments(file);
      await this.#retire();
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

  async #wipe(): Promise<void> {
    await this.#retire();
    for (const file of this.#files) {
      await zero(file.file, file.position);
      file.spoiled = false;
    }
    this.#halfWiped = false;
  }

  /**
   * Makes every frame obsolete, once all segments are synced: an empty frame begins the newest generation, then the
   * other file loses its start. At every instant one of the two files begins with a whole frame, for what stands behind
   * the starts would else pass for lost: so without a frame in the active file, which then is the newer one already, the
   * other is left as it is until the empty frame is there.
   */
  async #retire(): Promise<void> {
    const { generation, position } = this.#file;
    if (position > 0) {
      await restart(this.#files[1 - this.#active] as JournalFile, generation + 1n);
      this.#active = 1 - this.#active;
    }
    const newest = this.#file;
    const empty = encodeFrame([], newest);
    await newest.file.writeDurably(empty, 0);
    newest.position = empty.length;
    newest.sequence = 1;
    const older = this.#files[1 - this.#active] as JournalFile;
    await restart(older, older.generation);
  }

  #flush(file: JournalFile, chosen: (entry: JournalEntry) => boolean): void {
    for (const entry of file.retained.filter(chosen)) {
      replay(this.#root, this.#disk, entry);
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
      // Both: a segment that failed may hold bytes of either.
      for (const either of this.#files) either.doubtful = true;
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

async function zero(file: DiskFile, from: number): Promise<void> {
  const end = file.size();
  for (let at = from; at < end; at += WIPE_CHUNK_BYTES) {
    await file.writeDurably(Buffer.alloc(Math.min(WIPE_CHUNK_BYTES, end - at)), at);
  }
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

/** Brings segments up to the journal, and makes them and their names durable. */
function replayAll(root: string, disk: Disk, entries: readonly JournalEntry[]): void {
  const touched = new Set<string>();
  for (const entry of entries) {
    if (replay(root, disk, entry)) touched.add(segmentPath(logFolder(root, entry.tenant), entry.segment));
  }
  for (const path of touched) syncPath(disk, path);
  for (const folder of new Set([...touched].map(dirname))) disk.syncFolder(folder);
}

/**
 * Writes an entry into its segment, also where it reads back the same: that may be the system's cache, and not the
 * disk. A tenant whose folder is gone was erased.
 *
 * @returns whether there is such a segment.
 */
function replay(root: string, disk: Disk, entry: JournalEntry): boolean {
  const folder = logFolder(root, entry.tenant);
  const path = segmentPath(folder, entry.segment);
  const begins = entry.position === 0;
  const file = begins && disk.has(folder) ? disk.open(path, "create") : openIfPresent(disk, path);
  if (file === undefined) return false;
  try {
    file.write(entry.bytes, entry.position);
  } finally {
    file.close();
  }
  return true;
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
