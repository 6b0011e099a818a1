/**
 * What one file of the commit journal covers: the segments whose bytes, or names, may not be durable yet, by tenant.
 *
 * Kept: a tenant is no longer covered only after a sync of everything that was noted of it; after a sync that failed the
 * bytes are written again from the journal before the next, because the kernel may count pages as clean that never
 * reached the disk; what fails of one tenant fails for no other.
 */
import type { Disk, DiskFile } from "../host/disk.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import type { JournalEntry } from "./journal-frame.ts";
import { logFolder, segmentPath } from "./segment.ts";

interface Covered {
  readonly segments: Set<bigint>;
  /** Entries noted so far: what comes while a sync runs is owed another. */
  noted: number;
  /** True if a segment began. */
  folder: boolean;
  /** A sync or write failed: what the disk has of the segments is unknown until they are written again. */
  doubtful: boolean;
  /** Durable entries that their segments refused. */
  readonly retained: JournalEntry[];
}

/** Gives the entries of the file, read once if at all. */
export type EntriesOfFile = () => readonly JournalEntry[];

export class Coverage {
  readonly #root: string;
  readonly #disk: Disk;
  readonly #tenants: Map<TenantId, Covered> = new Map();

  constructor(root: string, disk: Disk) {
    this.#root = root;
    this.#disk = disk;
  }

  /** An entry is durable in the file: its segment is owed a sync. */
  note(entry: JournalEntry): void {
    const covered = this.#covered(entry.tenant);
    covered.segments.add(entry.segment);
    covered.noted += 1;
    if (entry.position === 0) covered.folder = true;
  }

  /** Its segment refused the entry. */
  retain(entry: JournalEntry): void {
    this.note(entry);
    this.#covered(entry.tenant).retained.push(entry);
  }

  /** The segments of these entries are to be written from the journal before they are synced. */
  noteUnwritten(entries: readonly JournalEntry[]): void {
    for (const entry of entries) {
      this.note(entry);
      this.doubt(entry.tenant);
    }
  }

  doubt(tenant: TenantId): void {
    const covered = this.#tenants.get(tenant);
    if (covered !== undefined) covered.doubtful = true;
  }

  holdsRetained(tenant: TenantId): boolean {
    return (this.#tenants.get(tenant)?.retained.length ?? 0) > 0;
  }

  covers(tenant: TenantId): boolean {
    return this.#tenants.has(tenant);
  }

  tenants(): TenantId[] {
    return [...this.#tenants.keys()];
  }

  /** Of the file's entries those that are still needed for these tenants. */
  needed(entries: readonly JournalEntry[], tenants: ReadonlySet<TenantId>): JournalEntry[] {
    return entries.filter(
      ({ tenant, segment }) =>
        tenants.has(tenant) && this.#tenants.get(tenant)?.segments.has(segment) === true,
    );
  }

  clear(): void {
    this.#tenants.clear();
  }

  /** Makes a tenant's segments durable; afterwards it is not covered any more. @throws `disk_full`, `disk_failed` */
  async settle(tenant: TenantId, entriesOfFile: EntriesOfFile): Promise<void> {
    const covered = this.#tenants.get(tenant);
    if (covered === undefined) return;
    for (const entry of [...covered.retained]) {
      replayEntry(this.#root, this.#disk, entry);
      covered.retained.splice(covered.retained.indexOf(entry), 1);
    }
    const folder = logFolder(this.#root, tenant);
    const { noted } = covered;
    if (covered.doubtful) this.#writeAgain(tenant, covered, entriesOfFile());
    for (const segment of [...covered.segments]) {
      const file = openIfPresent(this.#disk, segmentPath(folder, segment));
      if (file !== undefined) await file.sync().finally(() => file.close());
    }
    if (covered.folder && this.#disk.has(folder)) this.#disk.syncFolder(folder);
    if (covered.noted === noted) this.#tenants.delete(tenant);
  }

  #writeAgain(tenant: TenantId, covered: Covered, entries: readonly JournalEntry[]): void {
    const own = entries.filter((entry) => entry.tenant === tenant && covered.segments.has(entry.segment));
    for (const entry of inPlace(own)) replayEntry(this.#root, this.#disk, entry);
    covered.doubtful = false;
  }

  #covered(tenant: TenantId): Covered {
    let covered = this.#tenants.get(tenant);
    if (covered === undefined) {
      covered = { segments: new Set(), noted: 0, folder: false, doubtful: false, retained: [] };
      this.#tenants.set(tenant, covered);
    }
    return covered;
  }
}

/** In the order of their places: what begins a segment makes its file, and what was carried stands behind newer entries. */
export function inPlace(entries: readonly JournalEntry[]): JournalEntry[] {
  return entries.toSorted((a, b) => Number(a.segment - b.segment) || a.position - b.position);
}

/**
 * Writes an entry into its segment, also where it reads back the same: that may be the system's cache, and not the
 * disk. A tenant whose folder is gone was erased, and an entry for a segment that is not there went with it.
 *
 * @returns whether there is such a segment.
 */
export function replayEntry(root: string, disk: Disk, entry: JournalEntry): boolean {
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
