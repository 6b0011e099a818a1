/**
 * Keeps streams and capture triggers in step with the tenant's schema, and turns schema changes into log changes.
 *
 * Logged is SQL that makes the same schema from the same state: for a created table the text that SQLite itself keeps
 * (so CREATE TABLE AS becomes a plain table and its rows), else the statement as it was sent. ALTER TABLE parses every
 * temporary trigger, so capture stands aside while one runs.
 */
import { kimberliteError } from "../errors.ts";
import type { Change, StreamBinding } from "../log/record.ts";
import { type Bookkeeping, FIRST_USER_STREAM, OWN_TABLES, RESERVED_PREFIX } from "./bookkeeping.ts";
import type { Capture } from "./capture.ts";
import { type Connection, INLINE_VALUE_BYTES } from "./connection.ts";
import { Views } from "./expansion.ts";
import { documentsOf, requireReplayable, settingsOf } from "./full-text.ts";
import type { GuardReport } from "./guard.ts";
import { Sequences } from "./sequences.ts";
import type { SqliteDatabase } from "./sqlite.ts";
import {
  columnsByTable,
  imageExpression,
  isVirtual,
  keyExpression,
  listTables,
  narrowedTables,
  quoteName,
  readTable,
  type SchemaItem,
  schemaVersion,
  type TableShape,
} from "./tables.ts";

/** Most bytes of what the schema says of one table, view, index or trigger: every connection reads all of it. */
const MAX_ITEM_BYTES = INLINE_VALUE_BYTES - 1024;

interface BeforeChange {
  readonly version: number;
  readonly tables: readonly SchemaItem[];
  /** By table; of an ALTER TABLE alone. */
  readonly columns: ReadonlyMap<string, readonly string[]>;
  readonly seen: GuardReport;
  /** Tables that have rows and that others refer to: to drop one acts on the rows of those. */
  readonly actedUpon: ReadonlySet<string>;
}

interface SchemaOutcome {
  /** What the log must say of it. */
  readonly changes: Change[];
  /** False for a statement that found nothing to do. */
  readonly changed: boolean;
  readonly dropped: boolean;
}

export class SchemaTracker {
  readonly #connection: Connection;
  readonly #bookkeeping: Bookkeeping;
  readonly #capture: Capture;
  readonly sequences: Sequences;
  hasVirtualTables = false;
  nextStream: number = FIRST_USER_STREAM;
  /** Column that says whose rows are a table's, by its stream. */
  #subjectColumns: ReadonlyMap<number, string> = new Map();
  #dirty = false;
  #version = -1;

  constructor(connection: Connection, bookkeeping: Bookkeeping, capture: Capture) {
    this.#connection = connection;
    this.#bookkeeping = bookkeeping;
    this.#capture = capture;
    this.sequences = new Sequences(connection.db);
  }

  /** Reads the schema and installs capture on every table: at open, and when a rollback undid a schema change. */
  load(): void {
    this.#readSchemaAnew();
    this.nextStream = this.#bookkeeping.readMeta().nextStream;
    this.#readSubjectColumns();
    this.#capture.removeAll();
    const items = listTables(this.#connection.db);
    this.hasVirtualTables = items.some(isVirtual);
    const byName = new Map(
      this.#bookkeeping
        .streams()
        .filter((row) => row.kind === "table" && !row.dropped)
        .map((row) => [row.name, row.id]),
    );
    for (const item of items) {
      const stream = byName.get(item.name);
      if (stream !== undefined) this.#captureTable(stream, item);
      if (stream !== undefined) this.nextStream = Math.max(this.nextStream, stream + 1);
    }
    for (const row of this.#bookkeeping.streams()) this.nextStream = Math.max(this.nextStream, row.id + 1);
    this.sequences.discard();
    // A rollback undoes what was installed here, too.
    this.#dirty = this.#connection.db.inTransaction;
    this.#version = schemaVersion(this.#connection.db);
  }

  /** After a rollback: what a schema change did is undone in SQLite, so it is read again here. */
  restore(): void {
    this.sequences.discard();
    if (this.#dirty) return this.load();
    this.readAgain();
    this.nextStream = Math.max(FIRST_USER_STREAM, ...this.#bookkeeping.streams().map((row) => row.id + 1));
  }

  /** After any rollback: SQLite forgets the schema also for a change of an earlier batch in the same transaction. */
  readAgain(): void {
    if (!this.hasVirtualTables) return;
    this.#readSchemaAnew();
    // Loads full-text tables now: within the compilation of an ALTER TABLE their own statements would be refused.
    const { db } = this.#connection;
    for (const item of listTables(db).filter(isVirtual))
      db.pragma(`main.table_xinfo(${quoteName(item.name)})`);
  }

  /**
   * Makes SQLite read the schema now, if it must, while shadow tables may have triggers: read in "defensive" mode, the
   * temporary triggers on full-text documents would be left out in silence, and be made twice.
   */
  #readSchemaAnew(): void {
    const { db, guard } = this.#connection;
    guard.configure("defensive", false);
    try {
      db.prepare(
        "SELECT (SELECT count(*) FROM main.sqlite_master), (SELECT count(*) FROM temp.sqlite_master)",
      ).get();
      guard.configure("writable_schema", true);
      this.#capture.forgetOrphans();
    } finally {
      guard.configure("writable_schema", false);
      guard.configure("defensive", true);
    }
  }

  /** True if the transaction that is open touched the schema or its capture: a rollback then undoes that too. */
  get unsettled(): boolean {
    return this.#dirty;
  }

  /** What was touched so far is committed. */
  settle(): void {
    this.#dirty = false;
  }

  /** Reads again what another connection may have changed. @returns whether the schema did */
  refresh(): boolean {
    const version = schemaVersion(this.#connection.db);
    // Asked in this order: a statement makes SQLite read a changed schema, and how it does that matters to `load`.
    if (version !== this.#version || this.#subjectsDeclared()) {
      this.load();
      this.#dirty = true;
      return true;
    }
    this.nextStream = this.#bookkeeping.readMeta().nextStream;
    return false;
  }

  /** One more changes rows and no schema: a connection that missed it would capture the rows unsealed. */
  #subjectsDeclared(): boolean {
    return this.#subjectColumns.size !== this.#bookkeeping.subjectColumns().length;
  }

  #readSubjectColumns(): void {
    const declared = this.#bookkeeping.subjectColumns();
    this.#subjectColumns = new Map(declared.map(({ stream, column }) => [stream, column]));
  }

  /** Captures a table's rows as those of subjects from here on: the declaration is in our tables. */
  beginSubjects(): void {
    this.#dirty = true;
    this.#readSubjectColumns();
    this.#reinstall();
    this.#version = schemaVersion(this.#connection.db);
  }

  takeStreamId(): number {
    const id = this.nextStream;
    this.nextStream += 1;
    return id;
  }

  beforeChange(seen: GuardReport): BeforeChange {
    this.#dirty = true;
    const { db } = this.#connection;
    const tables = listTables(db);
    const actedUpon = this.#subjectColumns.size === 0 ? NONE : tablesThatOthersReferTo(db, tables);
    const columns = seen.alterTable ? columnsByTable(db) : NO_COLUMNS;
    const before = { version: schemaVersion(db), tables, columns, seen, actedUpon };
    if (seen.alterTable) for (const stream of [...this.#capture.tables.keys()]) this.#removeTriggers(stream);
    return before;
  }

  afterChange(before: BeforeChange, sql: string): SchemaOutcome {
    const { db } = this.#connection;
    if (schemaVersion(db) === before.version && !before.seen.analyzeOrReindex) {
      if (before.seen.alterTable) this.#reinstall();
      return { changes: [], changed: false, dropped: false };
    }
    if (before.seen.alterTable) this.#refuseReservedNames();
    this.#version = schemaVersion(db);
    this.#refuseLongTexts();
    Views.of(db).requireAll();
    this.sequences.discard();
    const tables = listTables(db);
    this.hasVirtualTables = tables.some(isVirtual);
    const { bindings, created } = this.#bind(before, tables);
    const changes: Change[] = [{ kind: "ddl", sql: this.#replayableText(created, sql), bindings }];
    if (before.seen.alterTable) {
      this.#reinstall();
      for (const name of narrowedTables(before.columns, columnsByTable(db)))
        this.#bookkeeping.narrowTable(name);
    }
    for (const item of created) for (const change of this.#existingRows(item)) changes.push(change);
    return { changes, changed: true, dropped: tables.length < before.tables.length };
  }

  /** @throws `unsupported_sql` for what the main thread's connections could not read: they would serve nothing any more */
  #refuseLongTexts(): void {
    const longest = this.#connection.db
      .prepare(
        "SELECT max(octet_length(sql) + octet_length(name) + octet_length(tbl_name)) FROM main.sqlite_master",
      )
      .pluck()
      .get() as number | null;
    if ((longest ?? 0) <= MAX_ITEM_BYTES) return;
    throw kimberliteError("unsupported_sql", "the text of a table, view, index or trigger is too long", {
      detail: { bytes: longest ?? 0, limit: MAX_ITEM_BYTES },
    });
  }

  /** SQLite does not show the new name of a renamed table to an authorizer, so it is looked at afterwards. */
  #refuseReservedNames(): void {
    const rows = this.#connection.db.prepare("SELECT name, tbl_name AS owner FROM main.sqlite_master").all();
    for (const { name, owner } of rows as { name: string; owner: string }[]) {
      if (
        name.toLowerCase().startsWith(RESERVED_PREFIX) &&
        !OWN_TABLES.includes(name) &&
        !OWN_TABLES.includes(owner)
      ) {
        throw kimberliteError("unsupported_sql", `names that begin with ${RESERVED_PREFIX} are reserved`);
      }
    }
  }

  #bind(
    before: BeforeChange,
    tables: readonly SchemaItem[],
  ): { readonly bindings: StreamBinding[]; readonly created: SchemaItem[] } {
    const names = new Set(tables.map((item) => item.name));
    const known = new Map(before.tables.map((item) => [item.name, item]));
    const gone = before.tables.filter((item) => !names.has(item.name));
    const fresh = tables.filter((item) => !known.has(item.name));
    const bindings: StreamBinding[] = [];
    const created: SchemaItem[] = [];
    for (const item of fresh) {
      const origin = before.seen.alterTable ? renamedFrom(item, gone) : undefined;
      const stream = origin === undefined ? this.takeStreamId() : this.#streamOf(origin.name);
      if (origin === undefined) created.push(item);
      else gone.splice(gone.indexOf(origin), 1);
      this.#bindTable(stream, item);
      bindings.push({ stream, name: item.name });
    }
    for (const item of gone) {
      if (before.actedUpon.has(item.name)) throw dropsOthersRows();
      const stream = this.#streamOf(item.name);
      this.#bookkeeping.dropStream(stream);
      this.#capture.forget(stream);
      bindings.push({ stream, name: null });
    }
    return { bindings, created };
  }

  #bindTable(stream: number, item: SchemaItem): void {
    const holder = this.#bookkeeping.streamNamed(item.name);
    if (holder !== undefined && holder.kind === "events") {
      throw kimberliteError("stream_exists", "an event stream has that name already", {
        detail: { stream: holder.id },
      });
    }
    if (isVirtual(item)) requireReplayable(this.#connection.db, item);
    this.#bookkeeping.putStream(stream, "table", item.name);
    this.#captureTable(stream, item);
  }

  #streamOf(name: string): number {
    const row = this.#bookkeeping.streamNamed(name);
    if (row === undefined) throw kimberliteError("projection_damaged", "a table has no stream");
    return row.id;
  }

  #captureTable(stream: number, item: SchemaItem): void {
    if (isVirtual(item)) return;
    const { db, guard } = this.#connection;
    const shape = readTable(db, item);
    // Of a full-text table documents and settings are captured; its index follows from them.
    const logged = documentsOf(db, item.name) !== undefined || settingsOf(db, item.name) !== undefined;
    if (shape.shadow && !logged) return;
    if (shape.shadow) guard.configure("defensive", false);
    try {
      this.#capture.install({ stream, shape, subjectColumn: this.#subjectPlace(stream, shape) });
    } finally {
      if (shape.shadow) guard.configure("defensive", true);
    }
  }

  #subjectPlace(stream: number, shape: TableShape): number | undefined {
    const column = this.#subjectColumns.get(stream);
    if (column === undefined) return undefined;
    const place = shape.columns.indexOf(column);
    if (place >= 0) return place;
    throw kimberliteError(
      "unsupported_sql",
      "the column names the table's subjects: it keeps its name and place",
    );
  }

  #removeTriggers(stream: number): void {
    this.#capture.remove(stream);
  }

  #reinstall(): void {
    for (const item of listTables(this.#connection.db)) this.#captureTable(this.#streamOf(item.name), item);
  }

  #replayableText(created: readonly SchemaItem[], sql: string): string {
    const made = created.find((item) => isVirtual(item)) ?? created[0];
    return made?.sql ?? sql;
  }

  /** Rows that a new table has already: CREATE TABLE AS. Those of a full-text index's tables replay makes itself. */
  *#existingRows(item: SchemaItem): Generator<Change> {
    const stream = this.#streamOf(item.name);
    const shape = this.#capture.tables.get(stream)?.shape;
    if (shape === undefined || shape.shadow) return;
    const sql = `SELECT ${keyExpression(shape)}, ${imageExpression(shape.columns)} FROM main.${quoteName(shape.name)}`;
    const rows = this.#connection.db.prepare(sql).raw().safeIntegers(true).iterate() as Iterable<
      [bigint | Buffer, Buffer]
    >;
    for (const [key, after] of rows) yield { kind: "row", stream, key, before: null, after };
  }
}

const NONE: ReadonlySet<string> = new Set();
const NO_COLUMNS: ReadonlyMap<string, readonly string[]> = new Map();

/**
 * Replay of a DROP TABLE acts on the rows of other tables as the first run did, but not through rows of a subject that is
 * erased, which replay does not have. So with declared subjects only rows that nothing refers to are dropped.
 */
function tablesThatOthersReferTo(db: SqliteDatabase, tables: readonly SchemaItem[]): ReadonlySet<string> {
  const referred = new Set<string>();
  for (const item of tables.filter((table) => !isVirtual(table))) {
    const keys = db.pragma(`main.foreign_key_list(${quoteName(item.name)})`) as { table: string }[];
    for (const { table } of keys)
      if (table.toLowerCase() !== item.name.toLowerCase()) referred.add(table.toLowerCase());
  }
  const hasRows = (name: string): boolean =>
    db.prepare(`SELECT 1 FROM main.${quoteName(name)} LIMIT 1`).get() !== undefined;
  const names = tables.map(({ name }) => name).filter((name) => referred.has(name.toLowerCase()));
  return new Set(names.filter(hasRows));
}

function dropsOthersRows(): Error {
  return kimberliteError(
    "unsupported_sql",
    "where subjects are declared, a table that others refer to is emptied before it is dropped",
  );
}

function renamedFrom(item: SchemaItem, gone: readonly SchemaItem[]): SchemaItem | undefined {
  if (isVirtual(item)) return gone.length > 0 ? gone.find(isVirtual) : undefined;
  return gone.find((old) => old.rootPage === item.rootPage);
}
