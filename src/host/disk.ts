/**
 * The disk as a port: everything that the log, the journal and the key store do to files goes through here, so that
 * tests can make writes short, syncs fail and space run out. SQLite's own files do not (it has its own VFS).
 *
 * Faults become the error family here: ENOSPC and EDQUOT are `disk_full`, everything else that the system refuses is
 * `disk_failed`. ENOENT stays visible to callers as `undefined` where a docstring says so.
 */
import * as fs from "node:fs";
import { dirname } from "node:path";
import { kimberliteError } from "../errors.ts";
import { failpoint } from "./failpoint.ts";

/** An open file. Positions and lengths are in bytes. */
export interface DiskFile {
  /** Reads up to `length` bytes at `position`; shorter only at the end of the file. */
  read(position: number, length: number): Buffer;
  /** Writes all of `bytes` at `position` before it returns; not yet durable. */
  write(bytes: Uint8Array, position: number): void;
  /** Writes and makes durable; resolves when the disk has it. */
  writeDurably(bytes: Uint8Array, position: number): Promise<void>;
  /** Makes earlier writes durable. */
  sync(): Promise<void>;
  syncNow(): void;
  truncate(length: number): void;
  size(): number;
  close(): void;
}

export type OpenMode = "read" | "update" | "create" | "durable";

export interface Disk {
  /** "durable" creates, and each write returns only when the disk has it (O_DSYNC). */
  open(path: string, mode: OpenMode): DiskFile;
  readFile(path: string): Buffer | undefined;
  /**
   * Writes `path.new`, syncs it and renames it over `path`; what stood there before is kept as `path.old` until the
   * folder is durable, then overwritten and unlinked. A crash leaves the former file or the new one whole, and names
   * for everything else: `clearReplaced` destroys that.
   */
  replaceFile(path: string, bytes: Uint8Array): Promise<void>;
  /** Destroys what an interrupted `replaceFile(path)` left beside `path`, and leaves `path` as it is. */
  clearReplaced(path: string): Promise<void>;
  /** Overwrites a file with zeros, syncs and unlinks it. Absent is fine. */
  destroyFile(path: string): Promise<void>;
  removeFile(path: string): void;
  makeFolder(path: string): void;
  removeFolder(path: string): void;
  /** Gives a file or folder another name, where there is none of it yet; durable with `syncFolder` of what it is in. */
  move(from: string, to: string): void;
  has(path: string): boolean;
  /** Names in a folder, sorted; empty if there is no folder. */
  list(path: string): string[];
  /** Makes the entries of a folder durable. */
  syncFolder(path: string): void;
}

/** The machine's disk. */
export const systemDisk: Disk = {
  open: (path, mode) => openFile(path, mode),
  readFile: (path) => absentIsUndefined(() => fs.readFileSync(path)),
  replaceFile: (path, bytes) => replaceFile(path, bytes),
  clearReplaced: (path) => clearReplaced(path),
  destroyFile: (path) => destroyFile(path),
  removeFile: (path) => guarded(() => fs.rmSync(path, { force: true })),
  makeFolder: (path) => guarded(() => makeFolder(path)),
  removeFolder: (path) => guarded(() => fs.rmSync(path, { recursive: true, force: true })),
  move: (from, to) => guarded(() => fs.renameSync(from, to)),
  has: (path) => fs.existsSync(path),
  list: (path) => absentIsUndefined(() => fs.readdirSync(path).sort()) ?? [],
  syncFolder: (path) => syncFolder(path),
};

const OPEN_FLAGS = {
  read: fs.constants.O_RDONLY,
  update: fs.constants.O_RDWR,
  create: fs.constants.O_RDWR | fs.constants.O_CREAT,
  durable: fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_DSYNC,
};

function openFile(path: string, mode: OpenMode): DiskFile {
  const fd = guarded(() => fs.openSync(path, OPEN_FLAGS[mode], 0o600));
  return {
    read: (position, length) => guarded(() => readFully(fd, position, length)),
    write: (bytes, position) => guarded(() => writeFully(fd, bytes, position)),
    writeDurably: (bytes, position) => writeDurably(fd, bytes, { position, sync: mode !== "durable" }),
    sync: () =>
      new Promise((resolve, reject) =>
        fs.fdatasync(fd, (error) => (error === null ? resolve() : reject(diskError(error)))),
      ),
    syncNow: () => guarded(() => fs.fdatasyncSync(fd)),
    truncate: (length) => guarded(() => fs.ftruncateSync(fd, length)),
    size: () => guarded(() => fs.fstatSync(fd).size),
    close: () => guarded(() => fs.closeSync(fd)),
  };
}

/** Not Node's own recursion: where no folder can be made (`/proc`) that goes on for ever, and a read-only disk it calls absent. */
function makeFolder(path: string): void {
  try {
    fs.mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EEXIST" && fs.statSync(path).isDirectory()) return;
    const parent = dirname(path);
    if (code !== "ENOENT" || fs.existsSync(parent)) throw error;
    makeFolder(parent);
    makeFolder(path);
  }
}

function readFully(fd: number, position: number, length: number): Buffer {
  const buffer = Buffer.allocUnsafe(length);
  let filled = 0;
  while (filled < length) {
    const count = fs.readSync(fd, buffer, filled, length - filled, position + filled);
    if (count === 0) break;
    filled += count;
  }
  return buffer.subarray(0, filled);
}

function writeFully(fd: number, bytes: Uint8Array, position: number): void {
  let written = 0;
  while (written < bytes.length) {
    written += fs.writeSync(fd, bytes, written, bytes.length - written, position + written);
  }
}

function writeDurably(
  fd: number,
  bytes: Uint8Array,
  to: { readonly position: number; readonly sync: boolean },
): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (error: Error): void => reject(diskError(error));
    const step = (written: number): void => {
      fs.write(fd, bytes, written, bytes.length - written, to.position + written, (error, count) => {
        if (error !== null) return fail(error);
        if (written + count < bytes.length) return step(written + count);
        if (!to.sync) return resolve();
        fs.fdatasync(fd, (syncError) => (syncError === null ? resolve() : fail(syncError)));
      });
    };
    step(0);
  });
}

async function replaceFile(path: string, bytes: Uint8Array): Promise<void> {
  await clearReplaced(path);
  const beside = `${path}.new`;
  const old = absentIsUndefined(() => fs.openSync(path, fs.constants.O_RDWR));
  try {
    const file = openFile(beside, "create");
    try {
      await file.writeDurably(bytes, 0);
    } finally {
      file.close();
    }
    failpoint("replace-before-link");
    if (old !== undefined) keepName(path, `${path}.old`);
    failpoint("replace-before-rename");
    guarded(() => fs.renameSync(beside, path));
    failpoint("replace-after-rename");
    syncFolder(dirname(path));
    if (old !== undefined) overwrite(old);
    failpoint("replace-after-overwrite");
    if (old !== undefined) removeName(`${path}.old`);
  } finally {
    if (old !== undefined) fs.closeSync(old);
  }
}

const NO_HARD_LINKS: ReadonlySet<unknown> = new Set(["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK"]);

/** A second name for a file, where the file system knows of such. */
function keepName(path: string, name: string): void {
  try {
    fs.linkSync(path, name);
  } catch (error) {
    if (!NO_HARD_LINKS.has((error as NodeJS.ErrnoException).code)) throw diskError(error);
  }
}

function removeName(path: string): void {
  guarded(() => fs.rmSync(path, { force: true }));
  syncFolder(dirname(path));
}

async function clearReplaced(path: string): Promise<void> {
  await destroyFile(`${path}.new`);
  const old = `${path}.old`;
  // Before the rename both names are of one file, and it is the one in force.
  if (isSameFile(path, old)) removeName(old);
  else await destroyFile(old);
}

function isSameFile(path: string, other: string): boolean {
  const [a, b] = [path, other].map((name) => absentIsUndefined(() => fs.lstatSync(name, { bigint: true })));
  return a !== undefined && b !== undefined && a.ino === b.ino && a.dev === b.dev;
}

async function destroyFile(path: string): Promise<void> {
  const fd = absentIsUndefined(() => fs.openSync(path, fs.constants.O_RDWR));
  if (fd === undefined) return;
  try {
    overwrite(fd);
  } finally {
    fs.closeSync(fd);
  }
  guarded(() => fs.rmSync(path, { force: true }));
  syncFolder(dirname(path));
}

function overwrite(fd: number): void {
  guarded(() => {
    writeFully(fd, Buffer.alloc(fs.fstatSync(fd).size), 0);
    fs.fdatasyncSync(fd);
  });
}

function syncFolder(path: string): void {
  guarded(() => {
    const fd = fs.openSync(path, fs.constants.O_RDONLY);
    try {
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
  });
}

function guarded<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw diskError(error);
  }
}

function absentIsUndefined<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw diskError(error);
  }
}

/** Turns a system error into the family; `detail.errno` keeps the system's name for it. */
export function diskError(error: unknown): Error {
  const errno = (error as NodeJS.ErrnoException | undefined)?.code ?? "unknown";
  if (errno === "ENOSPC" || errno === "EDQUOT") {
    return kimberliteError("disk_full", "the disk is full", { cause: error, detail: { errno } });
  }
  return kimberliteError("disk_failed", `the disk refused an operation (${errno})`, {
    cause: error,
    detail: { errno },
  });
}
