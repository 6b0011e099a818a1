/**
 * Values between JavaScript and SQLite.
 *
 * In: integers stay integers (a JavaScript number that is a safe integer is bound as INTEGER, not REAL), and what
 * SQLite would change in silence is refused: NaN, infinities are kept, lone surrogates, integers past 64 bits.
 * Out: integers are numbers when safe, else bigint; blobs are `Uint8Array`; `null` is `null`.
 */
import { kimberliteError } from "../errors.ts";
import { parameterNames } from "./sql-text.ts";

/** A value that a column can hold. */
export type SqlValue = null | number | bigint | string | Uint8Array;
/** What may be given as a parameter; booleans are stored as 0 and 1. */
export type SqlInput = SqlValue | boolean;
/** Parameters by position, or by name without its prefix. */
export type SqlParams = readonly SqlInput[] | Readonly<Record<string, SqlInput>>;
/** One row by column name; of two columns with one name the last stays. */
export type Row = Record<string, SqlValue>;

type Bound = null | number | bigint | string | Buffer;

export interface ResultLimits {
  readonly maxRows: number;
  readonly maxBytes: number;
}

const MIN_INTEGER = -(2n ** 63n);
const MAX_INTEGER = 2n ** 63n - 1n;
/** Places for parameters; what is quoted or commented comes first, so that it hides what looks like one. */
const PLACES =
  /'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|--[^\n]*|\/\*[\s\S]*?\*\/|\?(?<number>\d*)/g;

const MAX_PARAMETERS = 32_766;

/**
 * Parses parameters into what the binding takes. A list fills places by their order, or by number where the SQL text
 * numbers them (`?1`).
 *
 * @throws `invalid_parameter` naming the place, never the value.
 */
export function parseParams(params: SqlParams | undefined, sql: string): readonly unknown[] {
  if (params === undefined) return [];
  if (Array.isArray(params)) {
    if (params.length > MAX_PARAMETERS) throw invalid(`more than ${MAX_PARAMETERS} parameters`);
    const values = params.map((value, index) => parseValue(value as unknown, index + 1));
    // What is no text is refused when it is compiled.
    const isNumbered = values.length > 0 && typeof sql === "string" && /\?\d/.test(sql);
    return isNumbered ? fillNumbered(values, sql) : values;
  }
  if (typeof params !== "object" || params === null || params instanceof Uint8Array) {
    throw invalid("parameters are an array or an object");
  }
  const named: Record<string, Bound> = Object.create(null) as Record<string, Bound>;
  for (const [name, value] of Object.entries(params))
    named[name.replace(/^[:@$]/, "")] = parseValue(value, name);
  return [named];
}

/**
 * Turns values that are exact (a bigint is an INTEGER, a number a REAL), one for each parameter in SQLite's order, into
 * what the binding takes.
 *
 * @throws `invalid_parameter` naming the place, never the value.
 */
export function bindExact(values: readonly SqlValue[], sql: string): readonly unknown[] {
  const names = parameterNames(sql);
  if (names.length !== values.length) {
    throw invalid(`the statement takes ${names.length} parameters, and got ${values.length}`);
  }
  const bare: Bound[] = [];
  const named: Record<string, Bound> = Object.create(null) as Record<string, Bound>;
  for (const [index, name] of names.entries()) {
    const value = exactValue(values[index], index + 1);
    if (name === null) bare.push(value);
    else named[name.slice(1)] = value;
  }
  return Object.keys(named).length === 0 ? bare : [...bare, named];
}

function exactValue(value: SqlValue | undefined, place: number): Bound {
  if (typeof value === "number" && !Number.isNaN(value)) return value;
  return parseValue(value, place);
}

/** The binding takes numbers for names. A bare `?` is numbered one above the highest before it. */
function fillNumbered(values: readonly Bound[], sql: string): readonly unknown[] {
  const bare: Bound[] = [];
  const numbered: Record<string, Bound> = Object.create(null) as Record<string, Bound>;
  let highest = 0;
  for (const { groups } of sql.matchAll(PLACES)) {
    const number = groups?.["number"];
    if (number === undefined) continue;
    const place = number === "" ? highest + 1 : Number(number);
    highest = Math.max(highest, place);
    const value = values[place - 1];
    if (value === undefined) break;
    if (number === "") bare.push(value);
    else numbered[number] = value;
  }
  if (highest === 0) return values;
  if (highest !== values.length)
    throw invalid(`the statement takes ${highest} parameters, and got ${values.length}`);
  return [...bare, numbered];
}

function parseValue(value: unknown, place: number | string): Bound {
  switch (typeof value) {
    case "string":
      if (!value.isWellFormed()) throw invalid(`parameter ${place} holds a lone surrogate`);
      return value;
    case "number":
      if (Number.isNaN(value)) throw invalid(`parameter ${place} is NaN`);
      return Number.isSafeInteger(value) && !Object.is(value, -0) ? BigInt(value) : value;
    case "bigint":
      if (value < MIN_INTEGER || value > MAX_INTEGER)
        throw invalid(`parameter ${place} does not fit 64 bits`);
      return value;
    case "boolean":
      return value ? 1n : 0n;
    default:
      return parseObject(value, place);
  }
}

function parseObject(value: unknown, place: number | string): Bound {
  if (value === null) return null;
  if (Buffer.isBuffer(value)) return value;
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  if (value instanceof ArrayBuffer) return Buffer.from(value);
  throw invalid(`parameter ${place} is not null, a number, a bigint, a string, a boolean or bytes`);
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

function tooManyRows({ maxRows }: ResultLimits): Error {
  const message = `the result has more than ${maxRows} rows; use LIMIT`;
  return kimberliteError("result_too_large", message, { detail: { maxRows } });
}

function tooManyBytes({ maxBytes }: ResultLimits): Error {
  const message = `the result has more than ${maxBytes} bytes; select less`;
  return kimberliteError("result_too_large", message, { detail: { maxBytes } });
}

function invalid(message: string): Error {
  return kimberliteError("invalid_parameter", message);
}
