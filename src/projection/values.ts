/**
 * Values between JavaScript and SQLite.
 *
 * In (`parameters.ts`): integers stay integers (a JavaScript number that is a safe integer is bound as INTEGER, not
 * REAL); infinities are kept; what SQLite would change in silence is refused: NaN, lone surrogates, integers past 64 bits.
 * Out: integers are numbers when safe, else bigint; blobs are `Uint8Array`; `null` is `null`.
 */
import { kimberliteError } from "../errors.ts";

/** A value that a column can hold. */
export type SqlValue = null | number | bigint | string | Uint8Array;
/** What may be given as a parameter; booleans are stored as 0 and 1. */
export type SqlInput = SqlValue | boolean;
/** Parameters by position, or by name without its prefix. */
export type SqlParams = readonly SqlInput[] | Readonly<Record<string, SqlInput>>;
/** One row by column name; of two columns with one name the last stays. */
export type Row = Record<string, SqlValue>;

export interface ResultLimits {
  readonly maxRows: number;
  readonly maxBytes: number;
}

/**
 * True if a row holds an integer that a double cannot be trusted with: the rows must be read again as bigints.
 * Checks the size of the result on the way.
 *
 * @throws `result_too_large`
 */
export function inspectRows(rows: readonly (Row | SqlValue[])[], limits: ResultLimits): boolean {
  if (rows.length > limits.maxRows) throw tooManyRows(limits);
  let bytes = 0;
  let unsafe = false;
  for (const row of rows as readonly Row[]) {
    for (const key in row) {
      const value = row[key] as SqlValue;
      if (typeof value === "number") {
        bytes += 8;
        unsafe ||= value > Number.MAX_SAFE_INTEGER || value < Number.MIN_SAFE_INTEGER;
      } else bytes += sizeOf(value);
    }
  }
  if (bytes > limits.maxBytes) throw tooManyBytes(limits);
  return unsafe;
}

/** Turns the bigints of a row that was read with all integers as bigints into numbers where they are safe. In place. */
export function narrowIntegers<T extends Row | SqlValue[]>(row: T): T {
  const cells = row as Row;
  for (const key in cells) {
    const value = cells[key];
    if (typeof value === "bigint" && value >= -9007199254740991n && value <= 9007199254740991n)
      cells[key] = Number(value);
  }
  return row;
}

/** A number where the integer is a safe one. */
export function narrowInteger(value: number | bigint): number | bigint {
  return typeof value === "bigint" && value >= -9007199254740991n && value <= 9007199254740991n
    ? Number(value)
    : value;
}

/**
 * Takes rows, read with all integers as bigints, as long as they stay within the limits, and narrows their integers
 * unless they are wanted `exact`.
 *
 * @throws `result_too_large` at the first row past a limit: no more than that is ever held
 */
export function collectRows<T extends Row | SqlValue[]>(
  rows: Iterable<T>,
  limits: ResultLimits,
  exact = false,
): T[] {
  const collected: T[] = [];
  let bytes = 0;
  for (const row of rows) {
    const cells = row as Row;
    for (const key in cells) bytes += sizeOf(cells[key] as SqlValue);
    if (collected.length >= limits.maxRows) throw tooManyRows(limits);
    if (bytes > limits.maxBytes) throw tooManyBytes(limits);
    collected.push(exact ? row : narrowIntegers(row));
  }
  return collected;
}

/** Finds rows that nobody wants, one at a time. */
export function dropRows(rows: Iterable<unknown>): [] {
  for (const _ of rows);
  return [];
}

/** Bytes of the rows of a result, as its limit counts them. */
export function resultBytes(rows: readonly (readonly SqlValue[])[]): number {
  let bytes = 0;
  for (const row of rows) for (const value of row) bytes += sizeOf(value);
  return bytes;
}

/** Bytes that a value takes in a result, for the limit; text counts its UTF-16 length. */
function sizeOf(value: SqlValue): number {
  if (typeof value === "string") return value.length;
  if (value instanceof Uint8Array) return value.length;
  return 8;
}

/** @throws `result_too_large` */
export function requireWithin(
  found: { readonly rows: number; readonly bytes: number },
  limits: ResultLimits,
): void {
  if (found.rows > limits.maxRows) throw tooManyRows(limits);
  if (found.bytes > limits.maxBytes) throw tooManyBytes(limits);
}

function tooManyRows({ maxRows }: ResultLimits): Error {
  const message = `the result has more than ${maxRows} rows; use LIMIT`;
  return kimberliteError("result_too_large", message, { detail: { maxRows } });
}

function tooManyBytes({ maxBytes }: ResultLimits): Error {
  const message = `the result has more than ${maxBytes} bytes; select less`;
  return kimberliteError("result_too_large", message, { detail: { maxBytes } });
}

/** Rows by column name, from rows as arrays: also where a column is called `__proto__`, which an object takes otherwise. */
export function rowsByName(rows: readonly (readonly SqlValue[])[], columns: readonly string[]): Row[] {
  return rows.map((row) =>
    Object.fromEntries(columns.map((column, index) => [column, row[index] as SqlValue])),
  );
}
