/**
 * Capture of row changes, whatever causes them: plain DML, upsert, REPLACE, user triggers, foreign key actions, and the
 * shadow tables of full-text search.
 *
 * Temporary triggers on every table note which rows were touched, with the image before the first touch. When the
 * caller's savepoint ends, the image after is read: the net change of each row, as if it changed once. Nothing depends
 * on the order of triggers but that our own AFTER INSERT comes before a user's, which a test pins.
 *
 * Kept: a touched row whose images are equal is no change; one transaction's images are bounded in bytes.
 */
import { kimberliteError } from "../errors.ts";
import type { Change, RowKey } from "../log/record.ts";
import { RESERVED_PREFIX } from "./bookkeeping.ts";
import type { SqliteDatabase, SqliteStatement } from "./sqlite.ts";
import { bySubject } from "./subject-value.ts";
import { imageExpression, keyCondition, keyExpression, quoteName, type TableShape } from "./tables.ts";

export interface CapturedTable {
  readonly stream: number;
  readonly shape: TableShape;
  /** Place, in its images, of the column that says whose row it is; undefined for a table without subjects. */
  readonly subjectColumn?: number | undefined;
}

interface Touch {
  readonly stream: number;
  readonly key: RowKey;
  readonly before: Uint8Array | null;
}

const TRIGGER_PREFIX = `${RESERVED_PREFIX}capture_`;
const IS_OURS = `type = 'trigger' AND substr(name, 1, ${TRIGGER_PREFIX.length}) = '${TRIGGER_PREFIX}'`;

export class Capture {
  readonly #db: SqliteDatabase;
  readonly #maxBytes: number;
  readonly #tables: Map<number, CapturedTable> = new Map();
  readonly #afterImages: Map<number, SqliteStatement> = new Map();
  #touches: Map<bigint | string, Touch> = new Map();
  #bytes = 0;

  constructor(db: SqliteDatabase, maxBytes: number) {
    this.#db = db;
    this.#maxBytes = maxBytes;
    db.function("kimberlite_touch", { safeIntegers: true, deterministic: false }, (stream, key, before) => {
      this.#touch(Number(stream as bigint), key as RowKey, before as Buffer | null);
      return null;
    });
  }

  get tables(): ReadonlyMap<number, CapturedTable> {
    return this.#tables;
  }

  /** Begins to capture a table; trusted mode, "defensive" off for shadow tables. */
  install(table: CapturedTable): void {
    this.remove(table.stream);
    for (const sql of triggersOf(table)) this.#db.exec(sql);
    this.#tables.set(table.stream, table);
  }

  /** Ends the capture of a table, which may be gone already. */
  remove(stream: number): void {
    for (const event of ["insert", "update", "move", "delete"]) {
      this.#db.exec(`DROP TRIGGER IF EXISTS temp.${triggerName(stream, event)}`);
    }
    this.forget(stream);
  }

  /** Ends the capture of every table, also of those that only a rollback brought back. */
  removeAll(): void {
    const names = this.#db
      .prepare(`SELECT name FROM temp.sqlite_master WHERE ${IS_OURS}`)
      .pluck()
      .all() as string[];
    for (const name of names) this.#db.exec(`DROP TRIGGER IF EXISTS temp.${quoteName(name)}`);
    this.#tables.clear();
    this.#afterImages.clear();
  }

  /**
   * A temporary trigger whose table another connection dropped or renamed stays in the schema table, where ALTER TABLE
   * trips over it, and cannot be dropped, for SQLite does not load it. The schema table must be writable.
   */
  forgetOrphans(): void {
    const tables = "SELECT name FROM main.sqlite_master WHERE type = 'table'";
    this.#db.exec(`DELETE FROM temp.sqlite_master WHERE ${IS_OURS} AND tbl_name NOT IN (${tables})`);
  }

  /** Drops what is remembered of a table whose triggers went with a rollback or with the table. */
  forget(stream: number): void {
    this.#tables.delete(stream);
    this.#afterImages.delete(stream);
  }

  get isEmpty(): boolean {
    return this.#touches.size === 0;
  }

  /** Forgets what was touched, after a rollback. */
  discard(): void {
    if (this.#touches.size > 0) this.#touches = new Map();
    this.#bytes = 0;
  }

  /** The net change of every row touched since the last call, in order of first touch. Trusted mode. */
  take(): Change[] {
    if (this.#touches.size === 0) return [];
    const changes: Change[] = [];
    for (const touch of this.#touches.values()) {
      const after = this.#afterImage(touch);
      if (after === undefined || sameImage(touch.before, after)) continue;
      const change = {
        kind: "row",
        stream: touch.stream,
        key: touch.key,
        before: touch.before,
        after,
      } as const;
      const column = this.#tables.get(touch.stream)?.subjectColumn;
      if (column === undefined) changes.push(change);
      else changes.push(...bySubject(change, column));
    }
    this.discard();
    return changes;
  }

  /** The highest rowid touched, of each table that has a sequence. */
  highestRowids(): ReadonlyMap<string, bigint> {
    const highest = new Map<string, bigint>();
    for (const { stream, key } of this.#touches.values()) {
      const shape = this.#tables.get(stream)?.shape;
      if (shape?.autoincrement !== true || typeof key !== "bigint") continue;
      const known = highest.get(shape.name);
      if (known === undefined || key > known) highest.set(shape.name, key);
    }
    return highest;
  }

  #touch(stream: number, key: RowKey, before: Buffer | null): void {
    const id =
      typeof key === "bigint"
        ? (BigInt(stream) << 64n) | BigInt.asUintN(64, key)
        : `${stream}:${latin1(key)}`;
    if (this.#touches.has(id)) return;
    this.#touches.set(id, { stream, key, before });
    this.#bytes += 64 + (before?.length ?? 0);
    if (this.#bytes > this.#maxBytes) {
      throw kimberliteError(
        "transaction_too_large",
        "the transaction changes more than one record may hold",
        {
          detail: { maxTransactionBytes: this.#maxBytes },
        },
      );
    }
  }

  /** Undefined for a table that a DDL statement of the same transaction dropped. */
  #afterImage(touch: Touch): Uint8Array | null | undefined {
    const table = this.#tables.get(touch.stream);
    if (table === undefined) return undefined;
    let statement = this.#afterImages.get(touch.stream);
    if (statement === undefined) {
      const { shape } = table;
      const sql = `SELECT ${imageExpression(shape.columns)} FROM main.${quoteName(shape.name)} WHERE ${keyCondition(shape)}`;
      statement = (this.#db.prepare(sql) as SqliteStatement).pluck();
      this.#afterImages.set(touch.stream, statement);
    }
    return (statement.get(touch) as Buffer | undefined) ?? null;
  }
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
}

function sameImage(before: Uint8Array | null, after: Uint8Array | null): boolean {
  if (before === null || after === null) return before === after;
  return Buffer.compare(before, after) === 0;
}

function triggerName(stream: number, event: string): string {
  return quoteName(`${TRIGGER_PREFIX}${stream}_${event}`);
}

function triggersOf({ stream, shape }: CapturedTable): string[] {
  const on = `ON main.${quoteName(shape.name)}`;
  const oldKey = keyExpression(shape, "OLD.");
  const newKey = keyExpression(shape, "NEW.");
  const before = imageExpression(shape.columns, "OLD.");
  const create = (event: string, when: string, call: string): string =>
    `CREATE TEMP TRIGGER ${triggerName(stream, event)} ${when} BEGIN SELECT kimberlite_touch(${stream}, ${call}); END`;
  return [
    create("insert", `AFTER INSERT ${on}`, `${newKey}, NULL`),
    create("update", `BEFORE UPDATE ${on}`, `${oldKey}, ${before}`),
    create("move", `AFTER UPDATE ${on} WHEN ${moved(shape)}`, `${newKey}, NULL`),
    create("delete", `BEFORE DELETE ${on}`, `${oldKey}, ${before}`),
  ];
}

/** True when an update gave the row another identity. */
function moved(shape: TableShape): string {
  if (!shape.withoutRowid) return `NEW.${shape.rowid} IS NOT OLD.${shape.rowid}`;
  return shape.keyColumns
    .map((column) => `NEW.${quoteName(column)} IS NOT OLD.${quoteName(column)}`)
    .join(" OR ");
}
