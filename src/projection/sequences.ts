/**
 * The AUTOINCREMENT sequences in the log.
 *
 * `sqlite_sequence` takes no triggers, and SQLite moves a sequence also when no row was touched (INSERT OR IGNORE). So
 * its values before the first write and after the last are compared. What a schema change does to it, replay does too.
 */
import { kimberliteError } from "../errors.ts";
import type { Change } from "../log/record.ts";
import type { SqliteDatabase, SqliteStatement } from "./sqlite.ts";

/** Below every rowid. */
const MIN_ROWID = -(2n ** 63n) - 1n;

export class Sequences {
  readonly #db: SqliteDatabase;
  #exists: boolean | undefined;
  #select: SqliteStatement | undefined;
  #before: ReadonlyMap<string, bigint> | undefined;

  constructor(db: SqliteDatabase) {
    this.#db = db;
  }

  get watching(): boolean {
    return this.#before !== undefined;
  }

  /** Before a statement that writes. Trusted mode. */
  watch(): void {
    this.#exists ??= this.#look();
    if (this.#exists) this.#before ??= this.#read();
  }

  /**
   * The sequences that moved since the first `watch`, and those that replay would move: it writes a row by inserting
   * it, and SQLite raises a sequence to every rowid that is inserted, though not to one that an update gave.
   *
   * @param touched the highest rowid of each table with touched rows.
   * @throws `unsupported_sql` if a statement left something in `sqlite_sequence` that is no sequence.
   */
  take(touched: ReadonlyMap<string, bigint>): Change[] {
    const before = this.#before;
    if (before === undefined) return [];
    const after = this.#read();
    const names = new Set(
      [...before.keys(), ...after.keys()].filter((name) => before.get(name) !== after.get(name)),
    );
    for (const [name, rowid] of touched) if (rowid > (after.get(name) ?? MIN_ROWID)) names.add(name);
    this.#before = undefined;
    return [...names].map((table) => ({ kind: "sequence", table, value: after.get(table) ?? null }));
  }

  /** After a rollback, or when the schema may be another. */
  discard(): void {
    this.#before = undefined;
    this.#exists = undefined;
  }

  #look(): boolean {
    return (
      this.#db.prepare("SELECT 1 FROM main.sqlite_master WHERE name = 'sqlite_sequence'").get() !== undefined
    );
  }

  #read(): ReadonlyMap<string, bigint> {
    this.#select ??= (this.#db.prepare("SELECT name, seq FROM main.sqlite_sequence") as SqliteStatement)
      .raw()
      .safeIntegers(true);
    const rows = this.#select.all() as [unknown, unknown][];
    const values = new Map(rows.filter(isSequence));
    if (values.size === rows.length) return values;
    throw kimberliteError(
      "unsupported_sql",
      "sqlite_sequence holds one integer for each table, and nothing else",
    );
  }
}

function isSequence(row: [unknown, unknown]): row is [string, bigint] {
  return typeof row[0] === "string" && typeof row[1] === "bigint";
}
