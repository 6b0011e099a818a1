/**
 * The data directory: its format, its installation id, and the lock that keeps a second process out.
 *
 * The lock is one that the operating system lets go of when the process ends, however it ends. Nothing is written
 * before the caller has proven that the master key opens what is there.
 */
import { join } from "node:path";
import Database from "better-sqlite3-multiple-ciphers";
import { kimberliteError } from "../errors.ts";
import { type Disk, diskError } from "../host/disk.ts";
import type { Randomness } from "../host/randomness.ts";

const DATA_FORMAT_VERSION = 1;
const FORMAT_FILE = "kimberlite.json";
const LOCK_FILE = "lock";

export interface Installation {
  /** Public random name of this data directory, in every checkpoint's origin. */
  readonly id: string;
}

/** Reads what the directory says of itself; undefined if it is empty or absent. @throws `format_too_new` */
export function readInstallation(disk: Disk, root: string): Installation | undefined {
  const bytes = disk.readFile(join(root, FORMAT_FILE));
  if (bytes === undefined) return undefined;
  const parsed = parseFormat(bytes);
  if (parsed.format > DATA_FORMAT_VERSION) {
    throw kimberliteError("format_too_new", `the data directory has format ${parsed.format}`, {
      detail: { format: parsed.format, supported: DATA_FORMAT_VERSION },
    });
  }
  return { id: parsed.installation };
}

/** Writes the format file of a new installation, last of all, so that a half-made directory is made anew. */
export async function writeInstallation(disk: Disk, root: string, installation: Installation): Promise<void> {
  const text = `${JSON.stringify({ format: DATA_FORMAT_VERSION, installation: installation.id })}\n`;
  await disk.replaceFile(join(root, FORMAT_FILE), Buffer.from(text));
}

export function newInstallation(randomness: Randomness): Installation {
  return { id: randomness.bytes(8).toString("hex") };
}

/**
 * Takes the directory for this process.
 *
 * @returns a function that gives it back.
 * @throws `directory_locked`, `disk_failed`
 */
export function lockDirectory(root: string): () => void {
  let db: Database.Database | undefined;
  try {
    db = new Database(join(root, LOCK_FILE), { timeout: 0 });
    db.pragma("journal_mode=MEMORY");
    db.exec("BEGIN EXCLUSIVE");
    const held = db;
    return () => held.close();
  } catch (error) {
    db?.close();
    const code = (error as { code?: string }).code ?? "";
    if (code.startsWith("SQLITE_BUSY")) {
      throw kimberliteError("directory_locked", "another process has this data directory open", {
        cause: error,
      });
    }
    throw diskError(error);
  }
}

function parseFormat(bytes: Buffer): { readonly format: number; readonly installation: string } {
  try {
    const parsed = JSON.parse(bytes.toString("utf8")) as { format?: unknown; installation?: unknown };
    if (Number.isSafeInteger(parsed.format) && /^[0-9a-f]{16}$/.test(String(parsed.installation))) {
      return { format: parsed.format as number, installation: parsed.installation as string };
    }
  } catch {
    // The message below says it for every way in which the file can be wrong.
  }
  throw kimberliteError("directory_not_initialised", "the path holds no Kimberlite data directory");
}
