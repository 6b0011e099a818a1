/**
 * The guard on a SQLite connection: what a tenant's SQL may do there, and for how long.
 *
 * The rules themselves live in `native/` (SQLite's authorizer, a watchdog thread, row images); this file loads them
 * into a connection and speaks to them by SQL functions that demand a secret of this connection. A connection is
 * trusted except between `enter` and `leave`.
 *
 * Invariants: no connection is served without the guard; the secret never leaves this file; a statement is judged
 * when it is compiled, so one that was prepared while trusted or in another mode keeps the rights of that moment.
 */

import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { assert, kimberliteError } from "../errors.ts";
import type { SqliteDatabase, SqliteStatement } from "./sqlite.ts";

/** Which tenant SQL is compiled: anything that stays inside the database, or queries only. */
export type GuardMode = "write" | "read";

/**
 * `insert` is `write` for a statement whose rowid is asked for: until `leave`, `last_insert_rowid` is `NO_ROWID` unless
 * the statement inserts a row. `replay` is trusted, for a deadline alone.
 */
export type EnterMode = GuardMode | "insert" | "replay";

/** What `last_insert_rowid` is when a statement that was entered as `insert` inserted nothing. */
export const NO_ROWID: bigint = -9_000_000_000_000_000_001n;

/** What happened between `enter` and `leave`. All but the first three tell what was compiled, not what has run. */
export interface GuardReport {
  /** Deferred foreign keys are violated; COMMIT would fail. */
  readonly deferredViolations: boolean;
  /** The deadline passed; what ran then was interrupted. */
  readonly deadlineFired: boolean;
  /** It was stopped before, for the memory that the process holds; `deadlineFired` too. */
  readonly outOfMemory: boolean;
  /** CREATE, DROP or ALTER of anything. `rowWrites` may accompany it: SQLite asks for the rows of a dropped table. */
  readonly schemaChange: boolean;
  readonly alterTable: boolean;
  /** ANALYZE or REINDEX; CREATE INDEX sets it too. */
  readonly analyzeOrReindex: boolean;
  readonly virtualTable: boolean;
  /** INSERT, UPDATE or DELETE on a table of the tenant. */
  readonly rowWrites: boolean;
  /** `PRAGMA user_version` or `defer_foreign_keys` with a value. */
  readonly pragmaSet: boolean;
  readonly sequenceWrites: boolean;
  /** INSERT or REPLACE by the statement itself. */
  readonly inserts: boolean;
  /** `last_insert_rowid()` is called. */
  readonly asksRowid: boolean;
  /** Memory of what was compiled; 0 if nothing was. */
  readonly compiledBytes: number;
}

/** The first thing refused since `enter`, by names only. */
export interface Denial {
  /** SQLite's name of the action without its prefix: `ATTACH`, `PRAGMA`, `READ`, `FUNCTION`, … */
  readonly action: string;
  /** The table, pragma, function or other object; absent where SQLite gives a value or nothing. */
  readonly object?: string;
}

/** Switches for trusted work: replay runs without triggers and foreign keys; setup writes the schema table. */
export type GuardSwitch = "triggers" | "foreign_keys" | "defensive" | "writable_schema";

export interface GuardOptions {
  /** Largest string, blob, row or row image on this connection. */
  readonly maxValueBytes: number;
  /** Longest SQL text on this connection. */
  readonly maxSqlBytes: number;
  /**
   * Memory that SQLite and all else in the heap of C may hold in this process before what has run longest is stopped; of the
   * process, as the last connection has it. Not bounded unless given, and where glibc is not the C library.
   */
  readonly maxMemoryBytes?: number;
}

/** Speaks to the guard of one connection. Not usable after the connection closes. */
export interface Guard {
  /** The mode that was entered last. */
  readonly mode: GuardMode;
  /**
   * Begins to judge what is compiled. With `deadlineMs` above 0, what runs on the connection that much later is
   * interrupted (`SQLITE_INTERRUPT`, about 2 ms late) until `leave`. Forgets earlier denials.
   */
  enter(mode: EnterMode, deadlineMs: number): void;
  /** Back to trusted; no interrupt comes after it returns. Every iterator of the connection must be closed. */
  leave(): GuardReport;
  /** The first refusal since `enter`, also after `leave`. */
  denied(): Denial | undefined;
  /** Turns a switch, while trusted only. */
  configure(what: GuardSwitch, on: boolean): void;
  /** While trusted: from here on only the common table expression `_kimberlite_schema_<view>` reads the schema table. */
  hideSchema(view: number): void;
  /**
   * While trusted: offers a query on this connection to the next table that another connection of this thread makes with
   * `CREATE VIRTUAL TABLE … USING kimberlite_shared`. Close that connection before this one.
   */
  offer(shared: SharedOffer): void;
  /** While trusted: the collation that a column was declared with. */
  collation(table: string, column: string): string;
  /**
   * While trusted: overwrites the memory that this thread and threads that have ended freed. Cost: as long as writing all
   * that is free, tens of milliseconds. @returns false where the platform's allocator does not let it
   */
  scrubMemory(): boolean;
}

/** A query for a reader who has a connection of its own (`native/shared.c`). */
export interface SharedOffer {
  /** CREATE TABLE as the reader's connection sees it. */
  readonly declaration: string;
  /** Gives columns c0, c1, … and with `hasRowid` the rowid behind them. */
  readonly query: string;
  /** A letter a column: what may be compared on this connection. `n` numbers, `t` text, `-` nothing. */
  readonly kinds: string;
  readonly hasRowid: boolean;
}

const ENTER_SQL = "SELECT kimberlite_enter(?, ?, ?)";

const BITS = {
  deferredViolations: 1,
  deadlineFired: 2,
  schemaChange: 4,
  alterTable: 8,
  analyzeOrReindex: 16,
  virtualTable: 32,
  rowWrites: 64,
  pragmaSet: 128,
  sequenceWrites: 256,
  inserts: 512,
  asksRowid: 1024,
  outOfMemory: 2048,
} as const;
/** The bytes are behind the bits. */
const BITS_END = 2 ** 16;

/**
 * An interrupt may hit the entering or leaving statement itself, for a deadline that passed before. The watchdog polls
 * every 2 ms, so one retry nearly always suffices; the bound is against a bug.
 */
const ATTEMPTS = 100;

const MODES: Readonly<Record<EnterMode, number>> = { write: 1, read: 2, replay: 3, insert: 4 };

/** Deadlines come from configuration, so few differ; each gets a statement with its values bound for good. */
const MAX_BOUND_ENTERS = 32;

let locatedBinary: string | undefined;

/**
 * Path of the guard for this platform.
 *
 * @throws `runtime_unsupported` when it was neither shipped nor built at installation.
 */
export function guardBinary(): string {
  if (locatedBinary !== undefined) return locatedBinary;
  const platform = `${isMusl() ? "linuxmusl" : process.platform}-${process.arch}`;
  const file = process.platform === "darwin" ? "guard.dylib" : "guard.so";
  const path = fileURLToPath(new URL(`../../native/prebuilt/${platform}/${file}`, import.meta.url));
  if (existsSync(path)) {
    locatedBinary = path;
    return path;
  }
  throw kimberliteError(
    "runtime_unsupported",
    `the SQLite guard for ${platform} is missing; install a C compiler and run \`npm rebuild kimberlite\``,
    { detail: { platform } },
  );
}

/**
 * Puts the guard on a connection, once. Sets its limits and makes it defensive; the connection stays trusted.
 * Do this after the key is set and before any SQL of a tenant.
 *
 * @throws `runtime_unsupported` when the extension is missing or does not load.
 */
export function installGuard(db: SqliteDatabase, options: GuardOptions): Guard {
  const binary = guardBinary();
  const secret = randomBytes(16);
  try {
    db.loadExtension(binary);
    const { maxValueBytes, maxSqlBytes, maxMemoryBytes = 0 } = options;
    db.prepare("SELECT kimberlite_setup(?, ?, ?, ?)").get(secret, maxValueBytes, maxSqlBytes, maxMemoryBytes);
  } catch (cause) {
    throw kimberliteError("runtime_unsupported", "the SQLite guard does not load", { cause });
  }
  return new ConnectionGuard(db, secret);
}

class ConnectionGuard implements Guard {
  mode: GuardMode = "read";
  readonly #db: SqliteDatabase;
  readonly #secret: Uint8Array;
  readonly #enter: SqliteStatement;
  readonly #boundEnters: Map<number, SqliteStatement> = new Map();
  readonly #leave: SqliteStatement;
  readonly #denied: SqliteStatement;
  readonly #configure: SqliteStatement;

  constructor(db: SqliteDatabase, secret: Uint8Array) {
    this.#db = db;
    this.#secret = secret;
    this.#enter = this.#prepare(ENTER_SQL);
    this.#leave = this.#prepare("SELECT kimberlite_leave(?)").bind(secret);
    this.#denied = this.#prepare("SELECT kimberlite_denied(?)").bind(secret);
    this.#configure = this.#prepare("SELECT kimberlite_config(?, ?, ?)");
  }

  enter(mode: EnterMode, deadlineMs: number): void {
    this.mode = mode === "read" ? "read" : "write";
    const key = MODES[mode] * 2 ** 40 + deadlineMs;
    const bound = this.#boundEnters.get(key);
    if (bound === undefined) this.#enterFirst(key, MODES[mode], deadlineMs);
    else uninterrupted(() => bound.get());
  }

  leave(): GuardReport {
    return decodeReport(Number(uninterrupted(() => this.#leave.get())));
  }

  denied(): Denial | undefined {
    const text = this.#denied.get();
    return typeof text === "string" ? parseDenial(text) : undefined;
  }

  configure(what: GuardSwitch, on: boolean): void {
    this.#configure.get(this.#secret, what, on ? 1 : 0);
  }

  hideSchema(view: number): void {
    this.#configure.get(this.#secret, "hide_schema", view);
  }

  offer({ declaration, query, kinds, hasRowid }: SharedOffer): void {
    const offer = this.#prepare("SELECT kimberlite_offer(?, ?, ?, ?, ?)");
    offer.get(this.#secret, declaration, query, kinds, hasRowid ? 1 : 0);
  }

  collation(table: string, column: string): string {
    return String(this.#prepare("SELECT kimberlite_collation(?, ?, ?)").get(this.#secret, table, column));
  }

  scrubMemory(): boolean {
    return Number(this.#prepare("SELECT kimberlite_scrub(?)").get(this.#secret)) === 1;
  }

  #enterFirst(key: number, mode: number, deadlineMs: number): void {
    assert(Number.isInteger(deadlineMs) && deadlineMs >= 0 && deadlineMs < 2 ** 31, "deadline in range");
    if (this.#boundEnters.size >= MAX_BOUND_ENTERS) {
      uninterrupted(() => this.#enter.get(this.#secret, mode, deadlineMs));
      return;
    }
    const bound = this.#prepare(ENTER_SQL).bind(this.#secret, mode, deadlineMs);
    this.#boundEnters.set(key, bound);
    uninterrupted(() => bound.get());
  }

  #prepare(sql: string): SqliteStatement {
    return this.#db.prepare(sql).pluck();
  }
}

/** Says what to do instead of what was refused. */
export function denialHint(denied: Denial, mode: GuardMode = "read"): string {
  const { action, object } = denied;
  if (isReservedName(object)) return "names that begin with _kimberlite_ are reserved";
  if (action === "READ" && /^sqlite_(master|schema)$/i.test(object ?? "")) return SCHEMA_TABLE_HINT;
  if (/_TEMP_/.test(action))
    return "temporary objects are not available; use WITH in the statement, or a table of the schema";
  const hint = HINTS[action];
  if (hint !== undefined) return hint;
  if (mode === "write")
    return "only the tenant's own tables, in its one database, can be made, changed or dropped";
  return "only queries are served here; send changes through execute() or transaction()";
}

const SCHEMA_TABLE_HINT =
  "read sqlite_master by that name alone, without main., and not in a view or CREATE TABLE AS";

/** Every action that can be refused also where writes are served. */
const HINTS: Readonly<Record<string, string>> = {
  ATTACH: "ATTACH and VACUUM are not available: each tenant is its own database",
  DETACH: "DETACH is not available: each tenant is its own database",
  TRANSACTION: "BEGIN, COMMIT and ROLLBACK are not available as SQL; use transaction()",
  SAVEPOINT: "savepoints are not available as SQL; use transaction()",
  CREATE_VTABLE: "of the virtual table modules only fts5 is available, and only where writes are served",
  PRAGMA: "of the PRAGMAs those that describe the schema are available, user_version and defer_foreign_keys",
  FUNCTION: "this SQL function is not available",
  READ: "this table is not part of the tenant's data",
};

function isReservedName(name: string | undefined): boolean {
  return name?.toLowerCase().startsWith("_kimberlite_") ?? false;
}

function parseDenial(text: string): Denial {
  const [action = "", first = "", second = ""] = text.split("|");
  // Of an index on a table of ours the table is what is refused, not the index.
  const object = first === "" || isReservedName(second) ? second : first;
  return object === "" ? { action } : { action, object };
}

function decodeReport(number: number): GuardReport {
  const bits = number % BITS_END;
  return {
    deferredViolations: (bits & BITS.deferredViolations) !== 0,
    deadlineFired: (bits & BITS.deadlineFired) !== 0,
    outOfMemory: (bits & BITS.outOfMemory) !== 0,
    schemaChange: (bits & BITS.schemaChange) !== 0,
    alterTable: (bits & BITS.alterTable) !== 0,
    analyzeOrReindex: (bits & BITS.analyzeOrReindex) !== 0,
    virtualTable: (bits & BITS.virtualTable) !== 0,
    rowWrites: (bits & BITS.rowWrites) !== 0,
    pragmaSet: (bits & BITS.pragmaSet) !== 0,
    sequenceWrites: (bits & BITS.sequenceWrites) !== 0,
    inserts: (bits & BITS.inserts) !== 0,
    asksRowid: (bits & BITS.asksRowid) !== 0,
    compiledBytes: Math.floor(number / BITS_END),
  };
}

function uninterrupted<T>(call: () => T): T {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return call();
    } catch (cause) {
      if (attempt === ATTEMPTS || !isInterrupt(cause)) throw cause;
    }
  }
}

function isInterrupt(cause: unknown): boolean {
  return cause instanceof Error && "code" in cause && cause.code === "SQLITE_INTERRUPT";
}

/** As the SQLite library itself tells the two C libraries of Linux apart. */
function isMusl(): boolean {
  if (process.platform !== "linux") return false;
  const report: unknown = process.report.getReport();
  const header = (report as { readonly header?: { readonly glibcVersionRuntime?: string } }).header;
  return header?.glibcVersionRuntime === undefined;
}
