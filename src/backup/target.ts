/**
 * Where backups go: named objects, each written whole and never changed. A directory here; S3 in `s3-target.ts`.
 *
 * Names are paths of letters, digits, `.`, `_` and `-` between slashes. An object is there whole or not at all.
 */
import { dirname, join, resolve, sep } from "node:path";
import { kimberliteError } from "../errors.ts";
import type { Disk } from "../host/disk.ts";

export interface BackupTarget {
  /** Names the place for people and for comparing places, without credentials. */
  readonly uri: string;
  /** Writes an object, in the place of one of that name; durable when it resolves. @throws `storage_failed`, `disk_full` */
  put(name: string, bytes: Buffer): Promise<void>;
  /** @returns undefined if there is none. @throws `storage_failed` */
  get(name: string): Promise<Buffer | undefined>;
  /** Names that begin so, ascending. @throws `storage_failed` */
  list(prefix: string): Promise<string[]>;
  /** Absent is fine. @throws `storage_failed` */
  remove(name: string): Promise<void>;
  close(): Promise<void>;
}

/** Objects as files below a folder, through the disk port. */
export function directoryTarget(folder: string, disk: Disk): BackupTarget {
  const root = resolve(folder);
  const pathOf = (name: string): string => join(root, ...name.split("/"));
  const made = new Set<string>();
  return {
    uri: `file:${root}`,
    async put(name, bytes) {
      const path = pathOf(name);
      makeDurableFolder(disk, dirname(path), made);
      await disk.replaceFile(path, bytes);
    },
    get: async (name) => disk.readFile(pathOf(name)),
    list: async (prefix) => {
      const folderName = prefix.slice(0, prefix.lastIndexOf("/") + 1);
      return namesBelow(disk, root, folderName).filter((name) => name.startsWith(prefix));
    },
    async remove(name) {
      const path = pathOf(name);
      // Wrapped keys may be among them.
      await disk.destroyFile(path);
    },
    close: async () => undefined,
  };
}

/** Makes a folder, and the names of all that had to be made durable. */
function makeDurableFolder(disk: Disk, folder: string, made: Set<string>): void {
  if (made.has(folder)) return;
  const absent: string[] = [];
  for (let path = folder; !disk.has(path); path = dirname(path)) absent.push(path);
  disk.makeFolder(folder);
  for (const path of absent) disk.syncFolder(dirname(path));
  made.add(folder);
}

function namesBelow(disk: Disk, root: string, folder: string): string[] {
  return entriesOf(disk, join(root, ...folder.split("/")))
    .flatMap((name) => {
      if (/\.(new|old)$/.test(name)) return [];
      if (name === "") return [folder.slice(0, -1)];
      const path = folder + name;
      return name.includes(".") ? [path] : namesBelow(disk, root, `${path}/`);
    })
    .sort();
}

/** A file that is no folder is there too, where something else than backups is. */
function entriesOf(disk: Disk, path: string): string[] {
  try {
    return disk.list(path);
  } catch (error) {
    const { cause } = error as { cause?: { code?: unknown } };
    if (cause?.code === "ENOTDIR") return [""];
    throw error;
  }
}

/** @throws `invalid_argument` if one place holds the other: keys are backed up apart from what they open */
export function requireApart(data: BackupTarget, keys: BackupTarget): void {
  const [a, b] = [`${data.uri}${sep}`, `${keys.uri}${sep}`];
  if (!a.startsWith(b) && !b.startsWith(a)) return;
  throw kimberliteError(
    "invalid_argument",
    "keys are backed up to another place than the data that they open",
  );
}
