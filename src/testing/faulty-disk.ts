/**
 * A disk that can be interrupted: every call is shown to a judge first, who may let something happen before it, in the
 * middle of its bytes, or after it. What happens is the caller's: an error, or the end of the process.
 */
import { type Disk, type DiskFile, diskError, type OpenMode } from "../host/disk.ts";

export type DiskOperation = Exclude<keyof Disk, "has"> | "read" | "write" | "sync" | "truncate";

/** One call, as the judge sees it. */
export interface DiskCall {
  readonly operation: DiskOperation;
  readonly path: string;
  readonly mode?: OpenMode;
  /** Of a read or a write. */
  readonly position?: number;
  readonly bytes?: number;
}

export interface Interruption {
  readonly when: "before" | "after";
  /** Of a write: so many of its bytes are written before `act`, and no more. */
  readonly writtenBytes?: number;
  /** Throws, ends the process, or just takes note. */
  act(): void;
}

export type Judge = (call: DiskCall) => Interruption | undefined;

/** An interruption that refuses the call as the operating system would. */
export function refusing(errno: string, writtenBytes?: number): Interruption {
  const act = (): never => {
    throw diskError(Object.assign(new Error(`${errno}: planned by a test`), { code: errno }));
  };
  return { when: "before", act, ...(writtenBytes === undefined ? {} : { writtenBytes }) };
}

/** `disk`, with every call shown to `judge`. */
export function faultyDisk(disk: Disk, judge: Judge): Disk {
  const now = <T>(operation: DiskOperation, path: string, work: () => T): T => {
    const interruption = judge({ operation, path });
    if (interruption?.when === "before") interruption.act();
    const result = work();
    if (interruption?.when === "after") interruption.act();
    return result;
  };
  const later = async <T>(operation: DiskOperation, path: string, work: () => Promise<T>): Promise<T> => {
    const interruption = judge({ operation, path });
    if (interruption?.when === "before") interruption.act();
    const result = await work();
    if (interruption?.when === "after") interruption.act();
    return result;
  };
  return {
    open: (path, mode) => openInterrupted(disk, judge, { path, mode }),
    readFile: (path) => now("readFile", path, () => disk.readFile(path)),
    replaceFile: (path, bytes) => later("replaceFile", path, () => disk.replaceFile(path, bytes)),
    clearReplaced: (path) => later("clearReplaced", path, () => disk.clearReplaced(path)),
    destroyFile: (path) => later("destroyFile", path, () => disk.destroyFile(path)),
    removeFile: (path) => now("removeFile", path, () => disk.removeFile(path)),
    makeFolder: (path) => now("makeFolder", path, () => disk.makeFolder(path)),
    move: (from, to) => now("move", from, () => disk.move(from, to)),
    removeFolder: (path) => now("removeFolder", path, () => disk.removeFolder(path)),
    has: (path) => disk.has(path),
    list: (path) => now("list", path, () => disk.list(path)),
    syncFolder: (path) => now("syncFolder", path, () => disk.syncFolder(path)),
  };
}

function openInterrupted(
  disk: Disk,
  judge: Judge,
  opened: { readonly path: string; readonly mode: OpenMode },
): DiskFile {
  const { path, mode } = opened;
  const opening = judge({ operation: "open", path, mode });
  if (opening?.when === "before") opening.act();
  const file = disk.open(path, mode);
  if (opening?.when === "after") opening.act();
  const ask = (
    operation: DiskOperation,
    more: { position?: number; bytes?: number } = {},
  ): Interruption | undefined => {
    const interruption = judge({ operation, path, mode, ...more });
    if (interruption?.when === "before" && interruption.writtenBytes === undefined) interruption.act();
    return interruption;
  };
  // What acts in the middle of a write does not come back: it throws, or the process ends.
  const writePart = (interruption: Interruption | undefined, bytes: Uint8Array, position: number): void => {
    if (interruption?.writtenBytes === undefined) return;
    file.write(bytes.subarray(0, interruption.writtenBytes), position);
    interruption.act();
  };
  const syncAsked = async (): Promise<void> => {
    const interruption = ask("sync");
    await file.sync();
    if (interruption?.when === "after") interruption.act();
  };
  return {
    read: (position, length) => {
      ask("read", { position, bytes: length });
      return file.read(position, length);
    },
    write: (bytes, position) => {
      const interruption = ask("write", { position, bytes: bytes.length });
      writePart(interruption, bytes, position);
      file.write(bytes, position);
      if (interruption?.when === "after") interruption.act();
    },
    writeDurably: async (bytes, position) => {
      const interruption = ask("write", { position, bytes: bytes.length });
      writePart(interruption, bytes, position);
      await file.writeDurably(bytes, position);
      if (interruption?.when === "after") interruption.act();
    },
    sync: syncAsked,
    syncNow: () => {
      const interruption = ask("sync");
      file.syncNow();
      if (interruption?.when === "after") interruption.act();
    },
    truncate: (length) => {
      ask("truncate");
      file.truncate(length);
    },
    size: () => file.size(),
    close: () => file.close(),
  };
}
