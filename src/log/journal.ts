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
 * failed sync of a segment (the kernel forgets what it could not write: it is written again from here), a full disk. A
 * tenant whose segments cannot be made durable stops no other: what is still needed of it is carried from file to file,
 * its own commits are refused meanwhile, so that this stays bounded, and each turn and each try to use it tries again.
 *
 * Over 500 lines because the two files, their turns and what is still owed to segments are one state.
 */
import { dirname, join } from "node:path";
import { KimberliteError } from "../errors.ts";
import type { Disk, DiskFile } from "../host/disk.ts";
import { SYSTEM_TENANT, type TenantId } from "../tenant/tenant-id.ts";
import { Coverage, type EntriesOfFile, inPlace, replayEntry } from "./journal-coverage.ts";
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
  readonly coverage: Coverage;
  /** A failed write may have left a whole frame behind the last one. */
  spoiled: boolean;
}

type Failures = Map<TenantId, unknown>;

/** A tenant that is refused is tried again with its next commit, this long after the last time. */
const TRY_AGAIN_MS = 100;

export class Journal {
  readonly #disk: Disk;
  readonly #files: [JournalFile, JournalFile];
  readonly #fileBytes: number;
  #active: number;
  #queue: Waiting[] = [];
  #writing = false;
  #scheduled = false;
  #recycling: Promise<unknown> | undefined;
  /** The last that was asked for of `recycle`: two at a time would begin both files anew. */
  #emptying: Promise<unknown> = Promise.resolve();
  #idle: (() => void)[] = [];
  /** Recycles under way: no frame is written meanwhile. */
  #holds = 0;
  /** A recycle that failed midway is finished before another frame is written. */
  #halfWiped = false;
  /** Tenants whose segments could not be made durable when the journal needed it. */
  readonly #refused: Map<TenantId, { readonly triedAtMs: number }> = new Map();
  /** Syncs of segments run one after another. */
  #syncing: Promise<unknown> = Promise.resolve();

  private constructor(
    disk: Disk,
    start: {
      readonly files: [JournalFile, JournalFile];
      readonly active: number;
      readonly fileBytes: number;
    },
  ) {
    this.#disk = disk;
    this.#files = start.files;
    this.#fileBytes = start.fileBytes;
    this.#active = start.active;
  }

  /**
   * Opens the journal of a data directory, replaying into the segments what a crash left there. A tenant whose segments
   * refuse that is refused until they take it; what it needs stays in the journal.
   *
   * @throws `journal_damaged` if a frame is missing before a later one; `disk_full`, `disk_failed`.
   */
  static async open(root: string, disk: Disk, fileBytes: number = JOURNAL_FILE_BYTES): Promise<Journal> {
    const folder = join(root, "journal");
    disk.makeFolder(folder);
    const names = ["0.jnl", "1.jnl"].map((name) => join(folder, name));
    const [first, second] = names.map((name) => readFrames(disk, name)) as [FileFrames, FileFrames];
    refuseLostFrames(first, second);
    // The files take turns also from one opening to the next: `refuseLostFrames` relies on it.
    const older = first.generation > second.generation ? 1 : 0;
    const inOrder = older === 0 ? [first, second] : [second, first];
    const entries = inOrder.flatMap((frames) => frames.entries);
    const failures = replayAll(root, disk, entries);
    const files = names.map((path) => openJournalFile(disk, path, { root, fileBytes })) as [
      JournalFile,
      JournalFile,
    ];
    try {
      for (const path of [folder, root]) disk.syncFolder(path);
      const journal = new Journal(disk, { files, active: older, fileBytes });
      await journal.#begin(inOrder as [FileFrames, FileFrames], failures);
      return journal;
    } catch (error) {
      for (const { file } of files) file.close();
      throw error;
    }
  }

  /** The older file is begun anew, once what a refused tenant still needs of it is in the newer one. */
  async #begin([, newer]: readonly [FileFrames, FileFrames], failures: Failures): Promise<void> {
    const [active, other] = [this.#file, this.#other];
    if (newer.generation === 0n) return;
    if (failures.size > 0) {
      Object.assign(other, { generation: newer.generation, sequence: newer.count, position: newer.end });
      const before = readFrames(this.#disk, active.path).entries;
      await this.#append(
        other,
        before.filter(({ tenant }) => failures.has(tenant)),
      );
      other.coverage.noteUnwritten(this.#entriesOf(other)().filter(({ tenant }) => failures.has(tenant)));
      this.#refuse(failures);
    }
    await restart(active, newer.generation + 1n);
  }

  /** Calls `done(undefined)` when the entry is on the disk, or `done(error)`; never both, never neither. */
  commit(entry: JournalEntry, done: (error: unknown) => void): void {
    if (this.#refused.size > 0 && this.#refused.has(entry.tenant)) {
      this.#tryAgain(entry.tenant).then(() => this.commit(entry, done), done);
      return;
    }
    this.#queue.push({ entry, done });
    this.#schedule();
  }

  /** Keeps a durable entry whose segment refused it: the journal does not forget it before the segment has it. */
  retain(entry: JournalEntry): void {
    this.#file.coverage.retain(entry);
  }

  /**
   * Makes the segments of a tenant durable if one of them refused an entry, or could not be synced, before. Asked
   * whenever a tenant is opened; costs nothing where nothing failed.
   *
   * @throws `disk_full`, `disk_failed`: the tenant cannot be served, and nothing of it is lost.
   */
  async settle(tenant: TenantId): Promise<void> {
    const owed = this.#files.some(({ coverage }) => coverage.holdsRetained(tenant));
    if (!owed && !this.#refused.has(tenant)) return;
    await this.#serially(async () => {
      for (const file of this.#files) await this.#settleTenant(file, tenant, this.#entriesOf(file));
      this.#refused.delete(tenant);
    });
  }

  /**
   * Syncs every covered segment and empties both files: afterwards the journal holds no byte of any tenant, but for those
   * whose segments cannot be made durable. Commits wait meanwhile. After a failure the next commit, or the next call, finishes it.
   *
   * @throws `disk_full`, `disk_failed`
   */
  recycle(): Promise<void> {
    this.#holds += 1;
    const done = this.#emptying.then(() => this.#empty());
    this.#emptying = done.catch(() => undefined);
    return done;
  }

  async #empty(): Promise<void> {
    try {
      while (this.#writing) await this.#untilIdle();
      // What is durable by now is written into its segment in this turn of the event loop.
      await new Promise<void>((resolve) => setImmediate(resolve));
      await this.#recycling?.catch(() => undefined);
      await this.#gather();
      this.#halfWiped = true;
      await this.#wipe();
    } finally {
      this.#holds -= 1;
      this.#schedule();
    }
  }

  /**
   * As `recycle`, and nothing of this tenant, which is closed, is left here: its segments may be replaced by others.
   *
   * @throws `disk_full`, `disk_failed` if its segments refuse what stands here: it is kept for them
   */
  async release(tenant: TenantId): Promise<void> {
    await this.recycle();
    while (this.owes(tenant)) {
      await this.#tryAgain(tenant);
      await this.recycle();
    }
  }

  /** True while something of the tenant here is not durable in its segments. */
  owes(tenant: TenantId): boolean {
    return this.#refused.has(tenant) || this.#files.some(({ coverage }) => coverage.covers(tenant));
  }

  /** Finishes what waits; afterwards there is nothing to replay, but for tenants that are refused. @throws `disk_full`, `disk_failed` */
  async close(): Promise<void> {
    while (this.#writing || this.#queue.length > 0) await this.#untilIdle();
    await this.#recycling?.catch(() => undefined);
    await this.#emptying;
    try {
      await this.#serially(async () => undefined);
      await voidPlace(this.#file);
      await this.#gather();
      await this.#retire();
    } finally {
      for (const file of this.#files) file.file.close();
    }
  }

  get #file(): JournalFile {
    return this.#files[this.#active] as JournalFile;
  }

  get #other(): JournalFile {
    return this.#files[1 - this.#active] as JournalFile;
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
    const entries = batch.map((waiting) => waiting.entry);
    await this.#writeTo(file, entries);
    for (const entry of entries) file.coverage.note(entry);
  }

  async #writeTo(file: JournalFile, entries: readonly JournalEntry[]): Promise<void> {
    const frame = encodeFrame(entries, file);
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
  }

  /** Adds entries to a file, in as many frames as they need. */
  async #append(file: JournalFile, entries: readonly JournalEntry[]): Promise<void> {
    let from = 0;
    for (let to = 0, bytes = 0; to < entries.length; to += 1) {
      bytes += ENTRY_HEADER_BYTES + (entries[to] as JournalEntry).bytes.length;
      if (bytes <= MAX_FRAME_BYTES && to + 1 < entries.length) continue;
      await this.#writeTo(file, entries.slice(from, to + 1));
      from = to + 1;
      bytes = 0;
    }
  }

  /** Goes on in the other file, which must be clean by now, and starts to clean the one that is full. */
  async #turn(): Promise<void> {
    await this.#recycling?.catch(() => undefined);
    const full = this.#file;
    const next = this.#other;
    // Usually nothing is left to sync. After a failed sync this is the second try: what fails again is carried over.
    const failures = await this.#syncSegments(next);
    await this.#carry(next, full, failures);
    await restart(next, full.generation + 1n);
    this.#active = 1 - this.#active;
    this.#recycling = this.#syncSegments(full);
    this.#recycling.catch(() => undefined);
  }

  /** Before a file is begun anew: what tenants still need of it goes to the other, and they are refused meanwhile. */
  async #carry(from: JournalFile, to: JournalFile, failures: Failures): Promise<void> {
    if (failures.size > 0) {
      const needed = from.coverage.needed(this.#entriesOf(from)(), new Set(failures.keys()));
      await this.#append(to, needed);
      to.coverage.noteUnwritten(needed);
      this.#refuse(failures);
    }
    from.coverage.clear();
  }

  /** Everything that is not durable in its segment is in the active file, and nothing in the other. */
  async #gather(): Promise<void> {
    const other = this.#other;
    await this.#carry(other, this.#file, await this.#syncSegments(other));
    this.#refuse(await this.#syncSegments(this.#file));
  }

  #refuse(failures: Failures): void {
    const triedAtMs = performance.now();
    for (const tenant of failures.keys()) this.#refused.set(tenant, { triedAtMs });
  }

  /** A commit of a refused tenant waits for its segments to be tried again, which is done after a moment. */
  async #tryAgain(tenant: TenantId): Promise<void> {
    const waitMs = (this.#refused.get(tenant)?.triedAtMs ?? 0) + TRY_AGAIN_MS - performance.now();
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    try {
      await this.settle(tenant);
    } catch (error) {
      if (error instanceof KimberliteError) this.#refuse(new Map([[tenant, error]]));
      throw error;
    }
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
   * Makes every frame obsolete, once all segments are synced: a frame with nothing but what refused tenants still need,
   * which mostly is nothing, begins the newest generation, then the other file loses its start. At every instant one of
   * the two files begins with a whole frame, for what stands behind the starts would else pass for lost: so without a
   * frame in the active file, which then is the newer one already, the other is left as it is until that frame is there.
   */
  async #retire(): Promise<void> {
    const former = this.#file;
    const needed = former.coverage.needed(this.#entriesOf(former)(), new Set(former.coverage.tenants()));
    if (former.position > 0) {
      await restart(this.#other, former.generation + 1n);
      this.#active = 1 - this.#active;
    }
    const newest = this.#file;
    if (needed.length === 0) await this.#writeTo(newest, []);
    else await this.#append(newest, needed);
    former.coverage.clear();
    newest.coverage.noteUnwritten(needed);
    const older = this.#other;
    await restart(older, older.generation);
  }

  /** Makes every segment durable that the file covers. @returns the tenants whose segments refuse, with why */
  #syncSegments(file: JournalFile): Promise<Failures> {
    return this.#serially(async () => {
      const failures: Failures = new Map();
      const entries = this.#entriesOf(file);
      for (const tenant of file.coverage.tenants()) {
        try {
          await this.#settleTenant(file, tenant, entries);
        } catch (error) {
          if (!(error instanceof KimberliteError)) throw error;
          failures.set(tenant, error);
        }
        const elsewhere = this.#files.some((each) => each !== file && each.coverage.covers(tenant));
        if (!failures.has(tenant) && !elsewhere) this.#refused.delete(tenant);
      }
      return failures;
    });
  }

  async #settleTenant(file: JournalFile, tenant: TenantId, entries: EntriesOfFile): Promise<void> {
    try {
      await file.coverage.settle(tenant, entries);
    } catch (error) {
      // Both: a segment that failed may hold bytes of either.
      for (const either of this.#files) either.coverage.doubt(tenant);
      throw error;
    }
  }

  /** The entries that stand in a file, read when they are first wanted. */
  #entriesOf(file: JournalFile): EntriesOfFile {
    let entries: readonly JournalEntry[] | undefined;
    return () => {
      if (entries === undefined) {
        entries = walkFrames(file.file.read(0, file.position)).entries;
      }
      return entries;
    };
  }

  #serially<T>(work: () => Promise<T>): Promise<T> {
    const running = this.#syncing.then(work);
    this.#syncing = running.catch(() => undefined);
    return running;
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

function openJournalFile(
  disk: Disk,
  path: string,
  at: { readonly root: string; readonly fileBytes: number },
): JournalFile {
  const file = disk.open(path, "durable");
  // Written once in full, so that a commit's write changes no metadata and needs no journal of the file system.
  if (file.size() < at.fileBytes) file.write(Buffer.alloc(at.fileBytes - file.size()), file.size());
  return {
    path,
    file,
    generation: 1n,
    sequence: 0,
    position: 0,
    coverage: new Coverage(at.root, disk),
    spoiled: false,
  };
}

/**
 * Brings segments up to the journal, and makes them and their names durable, tenant by tenant.
 *
 * @returns the tenants whose segments refuse, with why.
 * @throws `disk_full`, `disk_failed` for the system tenant, without which there is no node
 */
function replayAll(root: string, disk: Disk, entries: readonly JournalEntry[]): Failures {
  const failures: Failures = new Map();
  for (const [tenant, own] of Map.groupBy(entries, (entry) => entry.tenant)) {
    try {
      replayTenant(root, disk, own);
    } catch (error) {
      if (tenant === SYSTEM_TENANT || !(error instanceof KimberliteError)) throw error;
      failures.set(tenant, error);
    }
  }
  return failures;
}

function replayTenant(root: string, disk: Disk, entries: readonly JournalEntry[]): void {
  const touched = new Set<string>();
  for (const entry of inPlace(entries)) {
    if (replayEntry(root, disk, entry))
      touched.add(segmentPath(logFolder(root, entry.tenant), entry.segment));
  }
  for (const path of touched) syncPath(disk, path);
  for (const folder of new Set([...touched].map(dirname))) disk.syncFolder(folder);
}

function syncPath(disk: Disk, path: string): void {
  const file = disk.open(path, "update");
  try {
    file.syncNow();
  } finally {
    file.close();
  }
}
