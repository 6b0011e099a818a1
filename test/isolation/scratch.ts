/**
 * A scratch data directory with a master key of its own, for tests that look at the bytes on the disk: opened, closed,
 * copied and put back as often as a test likes, and removed at the end.
 */
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createMasterKeyFile, Kimberlite, masterKeyFile, type OpenOptions } from "../../src/index.ts";

export class Scratch implements AsyncDisposable {
  readonly folder: string;
  readonly dataDir: string;
  readonly masterKeyPath: string;
  readonly #open: Set<Kimberlite> = new Set();

  constructor() {
    this.folder = fs.mkdtempSync(join(tmpdir(), "kimberlite-test-"));
    this.dataDir = join(this.folder, "data");
    this.masterKeyPath = join(this.folder, "master.key");
    createMasterKeyFile(this.masterKeyPath);
  }

  async open(options: Partial<OpenOptions> = {}): Promise<Kimberlite> {
    const db = await Kimberlite.open({
      dataDir: this.dataDir,
      masterKey: masterKeyFile(this.masterKeyPath),
      // Small: most tests write little, and each new directory and each opening would write or read all of it.
      journalFileBytes: 1024 * 1024,
      ...options,
    });
    this.#open.add(db);
    return db;
  }

  /** Opens the database for the time of some work, and closes it whatever becomes of the work. */
  async with<T>(work: (db: Kimberlite) => Promise<T>, options: Partial<OpenOptions> = {}): Promise<T> {
    const db = await this.open(options);
    try {
      return await work(db);
    } finally {
      await db.close();
      this.#open.delete(db);
    }
  }

  path(...parts: string[]): string {
    return join(this.dataDir, ...parts);
  }

  logFolder(tenant: bigint | number): string {
    return this.path("tenants", String(tenant), "log");
  }

  segment(tenant: bigint | number, firstOffset = 0n): string {
    return join(this.logFolder(tenant), `${firstOffset.toString().padStart(20, "0")}.seg`);
  }

  projection(tenant: bigint | number): string {
    return this.path("tenants", String(tenant), "projection");
  }

  keys(tenant: bigint | number): string {
    return this.path("keys", `${tenant}.keys`);
  }

  /** The state of the directory, without the commit journal: a copy must not be healed by the journal's frames. */
  save(name = "saved"): string {
    const copy = join(this.folder, name);
    fs.rmSync(copy, { recursive: true, force: true });
    fs.cpSync(this.dataDir, copy, { recursive: true, filter: (path) => !path.endsWith(".jnl") });
    return copy;
  }

  /** Puts a saved state in the place of the present one. */
  restore(copy: string): void {
    fs.rmSync(this.dataDir, { recursive: true, force: true });
    fs.cpSync(copy, this.dataDir, { recursive: true });
  }

  /** Removes the commit journal: after a clean close the segments hold everything that it held. */
  forgetJournal(): void {
    fs.rmSync(this.path("journal"), { recursive: true, force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const db of this.#open) await db.close().catch(() => undefined);
    fs.rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Every file below a folder, with its path. */
export function filesBelow(folder: string): string[] {
  if (!fs.existsSync(folder)) return [];
  return fs
    .readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

/** Turns one bit of a file over. */
export function flipBit(path: string, position: number, bit = 0): void {
  const file = fs.openSync(path, "r+");
  try {
    const byte = Buffer.alloc(1);
    fs.readSync(file, byte, 0, 1, position);
    byte[0] = (byte[0] as number) ^ (1 << bit);
    fs.writeSync(file, byte, 0, 1, position);
  } finally {
    fs.closeSync(file);
  }
}
