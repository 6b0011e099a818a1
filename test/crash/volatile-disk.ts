/**
 * A disk that can lose its power: it knows what of each file, and of the names in each folder, is durable, and can
 * write down what would be left. Works on the files themselves; the loss is told in a copy.
 *
 * It is as unkind as POSIX lets a disk be. A write that was not synced is there or not, sector by sector. A name is
 * durable once its folder was synced. A sync that fails leaves the bytes readable and counts them as clean: the next
 * sync does not write them.
 */
import * as fs from "node:fs";
import { dirname, join, relative } from "node:path";
import { type Disk, type DiskFile, diskError, type OpenMode } from "../../src/host/disk.ts";
import type { Seeded } from "../../src/testing/seeded.ts";

const SECTOR_BYTES = 512;

interface Range {
  readonly start: number;
  readonly end: number;
}

interface Known {
  /** Content as the disk has it; undefined if its name is all that there is. */
  durable: Buffer;
  /** Written since, and to be written by the next sync. */
  dirty: Range[];
}

export interface VolatileDiskOptions {
  /** Asked before each sync of a file; true makes it fail. */
  readonly failsSync?: (path: string) => boolean;
}

export class VolatileDisk {
  readonly disk: Disk;
  readonly #base: Disk;
  readonly #root: string;
  readonly #options: VolatileDiskOptions;
  readonly #files: Map<string, Known> = new Map();
  /** Names that a loss may take. */
  readonly #unnamed: Set<string> = new Set();

  /** @param root folder whose files are followed; what is in it already is durable */
  constructor(base: Disk, root: string, options: VolatileDiskOptions = {}) {
    this.#base = base;
    this.#root = root;
    this.#options = options;
    this.disk = this.#wrap(base);
  }

  /**
   * Copies to `target` what is left if the power goes now, chance deciding whatever POSIX leaves open.
   *
   * Files that never went through this disk (SQLite's) are copied as they are.
   */
  losePower(target: string, chance: Seeded): void {
    fs.cpSync(this.#root, target, { recursive: true });
    for (const [path, known] of this.#files) {
      if (!fs.existsSync(path)) continue;
      fs.writeFileSync(
        join(target, relative(this.#root, path)),
        remains(known, fs.readFileSync(path), chance),
      );
    }
    for (const path of this.#unnamed) {
      if (chance.below(3) > 0)
        fs.rmSync(join(target, relative(this.#root, path)), { recursive: true, force: true });
    }
  }

  /** Copies to `target` what a process finds that starts after a kill: all of it, but no more durable than before. */
  copyTo(target: string): VolatileDisk {
    fs.cpSync(this.#root, target, { recursive: true });
    const copy = new VolatileDisk(this.#base, target, this.#options);
    const moved = (path: string): string => join(target, relative(this.#root, path));
    for (const [path, { durable, dirty }] of this.#files)
      copy.#files.set(moved(path), { durable, dirty: [...dirty] });
    for (const path of this.#unnamed) copy.#unnamed.add(moved(path));
    return copy;
  }

  #wrap(base: Disk): Disk {
    return {
      ...base,
      open: (path, mode) => this.#open(path, mode),
      replaceFile: async (path, bytes) => {
        await base.replaceFile(path, bytes);
        this.#files.delete(path);
        this.#nameAll(dirname(path));
      },
      destroyFile: async (path) => {
        await base.destroyFile(path);
        this.#files.delete(path);
        this.#nameAll(dirname(path));
      },
      removeFile: (path) => {
        base.removeFile(path);
        this.#files.delete(path);
      },
      makeFolder: (path) => {
        for (let made = path; !base.has(made); made = dirname(made)) this.#unnamed.add(made);
        base.makeFolder(path);
      },
      syncFolder: (path) => {
        base.syncFolder(path);
        this.#nameAll(path);
      },
    };
  }

  #nameAll(folder: string): void {
    for (const path of this.#unnamed) if (dirname(path) === folder) this.#unnamed.delete(path);
  }

  #open(path: string, mode: OpenMode): DiskFile {
    if ((mode === "create" || mode === "durable") && !this.#base.has(path)) {
      this.#unnamed.add(path);
      this.#files.set(path, { durable: Buffer.alloc(0), dirty: [] });
    }
    const file = this.#base.open(path, mode);
    const known = (): Known => this.#known(path);
    const sync = (): void => {
      if (this.#options.failsSync?.(path) === true) {
        known().dirty = [];
        throw diskError(Object.assign(new Error("planned by a test"), { code: "EIO" }));
      }
      settle(known(), fs.readFileSync(path));
    };
    return {
      read: (position, length) => file.read(position, length),
      write: (bytes, position) => {
        const range = { start: position, end: position + bytes.length };
        const { dirty } = known();
        file.write(bytes, position);
        dirty.push(range);
        if (mode === "durable") settle({ ...known(), dirty: [range] }, fs.readFileSync(path), known());
      },
      writeDurably: async (bytes, position) => {
        const range = { start: position, end: position + bytes.length };
        known();
        await file.writeDurably(bytes, position);
        settle({ ...known(), dirty: [range] }, fs.readFileSync(path), known());
      },
      sync: async () => sync(),
      syncNow: sync,
      truncate: (length) => {
        known();
        file.truncate(length);
        const entry = known();
        entry.durable = entry.durable.subarray(0, length);
      },
      size: () => file.size(),
      close: () => file.close(),
    };
  }

  /** What was there before this disk was made is durable. */
  #known(path: string): Known {
    let known = this.#files.get(path);
    if (known === undefined) {
      known = { durable: fs.existsSync(path) ? fs.readFileSync(path) : Buffer.alloc(0), dirty: [] };
      this.#files.set(path, known);
    }
    return known;
  }
}

/** The dirty ranges reach the disk. */
function settle(from: Known, content: Buffer, into: Known = from): void {
  into.durable = overlay(into.durable, content, from.dirty);
  if (into === from) into.dirty = [];
}

function overlay(durable: Buffer, content: Buffer, ranges: readonly Range[]): Buffer {
  const length = Math.max(durable.length, ...ranges.map((range) => Math.min(range.end, content.length)));
  const result = Buffer.alloc(length);
  durable.copy(result);
  for (const { start, end } of ranges) content.copy(result, start, start, Math.min(end, content.length));
  return result;
}

/** Chance lets none, all, or some sectors of what was not synced reach the disk. */
function remains(known: Known, content: Buffer, chance: Seeded): Buffer {
  const mood = chance.below(3);
  if (mood === 0) return known.durable;
  const sectors = known.dirty.flatMap(({ start, end }) => {
    const cut: Range[] = [];
    for (let at = start; at < end; ) {
      const next = Math.min(end, (Math.floor(at / SECTOR_BYTES) + 1) * SECTOR_BYTES);
      cut.push({ start: at, end: next });
      at = next;
    }
    return cut;
  });
  return overlay(known.durable, content, mood === 1 ? sectors : sectors.filter(() => chance.oneIn(2)));
}
