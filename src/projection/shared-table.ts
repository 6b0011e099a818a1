/**
 * A table as it is shared: which of its columns and rows, and how the reader's own database declares it.
 *
 * Decisions alone. The shape of a table when it was granted is kept with the grant: columns added behind are not shared,
 * and any other change of it is a change of what was granted (`sameShape`), also one that was undone since.
 */
import type { SharedOffer } from "./guard.ts";
import { quoteName } from "./tables.ts";

/** A column, as far as it means something to who reads it. */
export interface ColumnShape {
  readonly name: string;
  /** As it was declared. */
  readonly type: string;
  readonly collation: string;
  /** `PRAGMA table_xinfo`: 0 stored, 2 and 3 generated. */
  readonly hidden: number;
}

export interface SharedShape {
  readonly strict: boolean;
  readonly withoutRowid: boolean;
  /** How SQL names the rowid; null for WITHOUT ROWID. */
  readonly rowid: string | null;
  /** Names the columns of the primary key of a WITHOUT ROWID table, in key order. */
  readonly key: readonly string[];
  readonly columns: readonly ColumnShape[];
  /** How often it lost a column or renamed one; absent for never. */
  readonly narrowed?: number;
}

/** What of a table is shared. */
export interface SharedView {
  /** Local stream of the table. */
  readonly stream: number;
  readonly table: string;
  readonly shape: SharedShape;
  /** Names of the columns that are shared, as in `shape`. */
  readonly columns: readonly string[];
  /** SQL expression over the table's columns: the rows that are shared. */
  readonly where: string | undefined;
  /** Rows behind this many are not shared. */
  readonly maxRows: number | undefined;
}

/** Whether the table is still what was granted: the same, or with columns added behind. */
export function sameShape(granted: SharedShape, present: SharedShape): boolean {
  const { columns, ...rest } = granted;
  const { columns: now, ...restNow } = present;
  return (
    JSON.stringify(rest) === JSON.stringify(restNow) &&
    JSON.stringify(columns) === JSON.stringify(now.slice(0, columns.length))
  );
}

/** The offer of a view to the reader's connection. */
export function sharedOffer(view: SharedView): SharedOffer {
  const { shape, table } = view;
  const columns = view.columns.map((name) => columnNamed(shape, name));
  const fields = columns.map((column, index) => `${quoteName(column.name)} AS c${index}`);
  const order = shape.rowid ?? shape.key.map(quoteName).join(", ");
  const query = [
    `SELECT ${[...fields, ...(shape.rowid === null ? [] : [shape.rowid])].join(", ")} FROM main.${quoteName(table)}`,
    // The line's end ends a comment that the expression ends with.
    ...(view.where === undefined ? [] : [`WHERE (\n${view.where}\n)`]),
    ...(view.maxRows === undefined ? [] : [`ORDER BY ${order} LIMIT ${view.maxRows}`]),
  ];
  return {
    declaration: declarationOf(table, columns, shape.strict),
    query: query.join(" "),
    kinds: columns.map((column) => KINDS[affinityOf(column, shape.strict)]).join(""),
    hasRowid: shape.rowid !== null,
  };
}

/** CREATE TABLE with the columns as plain ones, so that they compare and sort as in the table itself. */
export function declarationOf(table: string, columns: readonly ColumnShape[], strict: boolean): string {
  const fields = columns.map((column) => {
    const type = shownType(column, strict);
    return `${quoteName(column.name)} ${type} COLLATE ${quoteName(column.collation)}`;
  });
  return `CREATE TABLE ${quoteName(table)} (${fields.join(", ")})`;
}

/** The column of that name, as SQLite compares names. */
export function findColumn(shape: SharedShape, name: string): ColumnShape | undefined {
  const wanted = asciiLower(name);
  return shape.columns.find((column) => asciiLower(column.name) === wanted);
}

function columnNamed(shape: SharedShape, name: string): ColumnShape {
  return findColumn(shape, name) as ColumnShape;
}

function asciiLower(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
}

type Affinity = "INTEGER" | "TEXT" | "BLOB" | "REAL" | "NUMERIC";

const KINDS: Readonly<Record<Affinity, string>> = {
  INTEGER: "n",
  REAL: "n",
  NUMERIC: "n",
  TEXT: "t",
  BLOB: "-",
};

/** SQLite's rules in their order (https://sqlite.org/datatype3.html §3.1). */
function affinityOf({ type }: ColumnShape, strict: boolean): Affinity {
  if (strict && /^any$/i.test(type)) return "BLOB";
  if (/int/i.test(type)) return "INTEGER";
  if (/char|clob|text/i.test(type)) return "TEXT";
  if (type === "" || /blob/i.test(type)) return "BLOB";
  return /real|floa|doub/i.test(type) ? "REAL" : "NUMERIC";
}

/** The type as it was declared, unless its words could mean something else in the declaration of a virtual table. */
function shownType(column: ColumnShape, strict: boolean): string {
  const affinity = affinityOf(column, strict);
  if (affinity === "BLOB") return /^blob$/i.test(column.type) ? column.type : "";
  const plain = /^(?!hidden$|generated$)[a-z]+(?: ?\(\d+(?:, ?\d+)?\))?$/i.test(column.type);
  return plain ? quoteWord(column.type) : affinity;
}

/** A type may be any word, a keyword too, when it is quoted; its length in parentheses stays outside. */
function quoteWord(type: string): string {
  const word = /^[a-z]+/i.exec(type)?.[0] ?? "";
  return `${quoteName(word)}${type.slice(word.length)}`;
}
