/**
 * One connection to a tenant's projection: encrypted page by page under the tenant's key (SQLite3 Multiple Ciphers,
 * AEGIS-256, raw key), guarded before a single statement of the tenant is compiled.
 *
 * Kept: temporary data stays in memory (temporary files would be plaintext); the key is in no SQL text that an error
 * could repeat; without the guard nothing is served.
 */
import { statSync } from "node:fs";
import Database from "better-sqlite3-multiple-ciphers";
import { kimberliteError } from "../errors.ts";
import { machineMemory } from "../host/memory.ts";
import { type Guard, installGuard } from "./guard.ts";
import { hideSchemaTable } from "./schema-table.ts";
import type { SqliteDatabase } from "./sqlite.ts";
import { fromSqlite } from "./sqlite-error.ts";

/** Limits of what one statement may be, hold and give. */
export interface StatementLimits {
  /** Milliseconds that one statement may run. */
  readonly timeLimitMs: number;
  readonly maxResultRows: number;
  readonly maxResultBytes: number;
  /** Most bytes of one value or row. */
  readonly maxValueBytes: number;
  readonly maxSqlBytes: number;
  /** Most bytes of the changes of one transaction. */
  readonly maxTransactionBytes: number;
  /**
   * Memory that SQLite and other native code may hold in the process. Beyond it the statement that has run longest is
   * stopped, of whatever tenant: `result_too_large`. Linux with glibc alone.
   */
  readonly maxMemoryBytes: number;
}

export const DEFAULT_LIMITS: StatementLimits = {
  timeLimitMs: 30_000,
  maxResultRows: 1_000_000,
  maxResultBytes: 64 * 1024 * 1024,
  maxValueBytes: 16 * 1024 * 1024,
  maxSqlBytes: 1_000_000,
  maxTransactionBytes: 128 * 1024 * 1024,
  maxMemoryBytes: Math.min(2 * 1024 ** 3, Math.floor(machineMemory() / 2)),
};

export interface ConnectionOptions {
  readonly path: string;
  /** 32 bytes. */
  readonly key: Buffer;
  readonly role: "write" | "read";
  readonly limits: StatementLimits;
  readonly cacheKib?: number;
  /**
   * True for statements on the main thread: a value of more than `INLINE_VALUE_BYTES` is `value_too_large` there, because
   * no deadline reaches into one call of a function and its time grows with what it is given; a lane takes it. So is a
   * text `statement_timeout` that takes long to compile.
   */
  readonly inline?: boolean;
}

/** Most bytes of one value or row that a statement may touch on the main thread. */
export const INLINE_VALUE_BYTES: number = 64 * 1024;

export interface Connection {
  readonly db: SqliteDatabase;
  readonly guard: Guard;
  /** Names the expression through which tenants see the schema table without our part of it. */
  readonly schemaView: number;
  /** On the main thread: what takes long is refused there, for a lane to do. */
  readonly inline: boolean;
}

/**
 * Opens (and for role "write" creates) a projection file.
 *
 * @throws `projection_damaged` if it does not open under this key, `runtime_unsupported` without the guard,
 * `disk_failed`, `disk_full`.
 */
export function openConnection(options: ConnectionOptions): Connection {
  requireRuntime();
  let db: SqliteDatabase | undefined;
  try {
    const readonly = options.role === "read";
    db = new Database(options.path, { readonly, fileMustExist: readonly, timeout: 5_000 });
    configure(db, options);
    const { maxValueBytes } = options.limits;
    const guard = installGuard(db, {
      maxValueBytes: options.inline === true ? Math.min(maxValueBytes, INLINE_VALUE_BYTES) : maxValueBytes,
      maxSqlBytes: options.limits.maxSqlBytes,
      maxMemoryBytes: options.limits.maxMemoryBytes,
    });
    return { db, guard, schemaView: hideSchemaTable(guard), inline: options.inline === true };
  } catch (error) {
    db?.close();
    throw fromSqlite(error, undefined);
  }
}

/** Reads every page, each of which is authenticated. @throws `projection_damaged` */
export function requireWholePages({ db }: Connection): void {
  try {
    if (db.pragma("quick_check(1)", { simple: true }) === "ok") return;
  } catch (error) {
    throw fromSqlite(error, undefined);
  }
  throw kimberliteError("projection_damaged", "the projection's file is damaged");
}

/** Bytes of the write-ahead log beside a projection; 0 if there is none. */
export function walBytes(path: string): number {
  return statSync(`${path}-wal`, { throwIfNoEntry: false })?.size ?? 0;
}

/** Stops the connection from moving the write-ahead log into the file by itself: somebody else does. */
export function deferCheckpoints({ db }: Connection): void {
  db.pragma("wal_autocheckpoint=0");
}

/** Moves what the write-ahead log holds into the file and syncs it, without stopping readers or the writer. */
export function checkpointFile(options: Omit<ConnectionOptions, "role">): void {
  const { db } = openConnection({ ...options, role: "write" });
  try {
    db.pragma("wal_checkpoint(PASSIVE)");
  } finally {
    db.close();
  }
}

/** Encrypts a projection file anew, in place; nobody has it open. A crash leaves a file to be thrown away. */
export function rekeyFile(path: string, keys: { readonly from: Buffer; readonly to: Buffer }): void {
  let db: SqliteDatabase | undefined;
  try {
    db = new Database(path, { fileMustExist: true });
    db.pragma("cipher='aegis'");
    db.pragma(`key='raw:${keys.from.toString("hex")}'`);
    db.pragma("temp_store=MEMORY");
    // The write-ahead log would keep pages under the former key.
    db.pragma("journal_mode=DELETE");
    db.pragma(`rekey='raw:${keys.to.toString("hex")}'`);
  } catch (error) {
    throw fromSqlite(error, undefined);
  } finally {
    db?.close();
  }
}

function configure(db: SqliteDatabase, options: ConnectionOptions): void {
  db.pragma("cipher='aegis'");
  db.pragma(`key='raw:${options.key.toString("hex")}'`);
  db.pragma("temp_store=MEMORY");
  db.pragma(`cache_size=-${options.cacheKib ?? 2_000}`);
  db.pragma("recursive_triggers=ON");
  db.pragma("foreign_keys=ON");
  if (options.role === "write") {
    db.pragma("journal_mode=WAL");
    db.pragma("synchronous=NORMAL");
    db.pragma("journal_size_limit=4194304");
  } else {
    db.pragma("query_only=ON");
  }
  // The first read of the file: a wrong key or a foreign file shows here.
  db.prepare("SELECT count(*) FROM sqlite_master").get();
}

function requireRuntime(): void {
  const major = Number.parseInt(process.versions.node, 10);
  if (major < 22) {
    throw kimberliteError(
      "runtime_unsupported",
      `Kimberlite needs Node.js 22 or later; this is ${process.version}`,
    );
  }
}
