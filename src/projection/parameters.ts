/**
 * Parameters of a statement: which values may be given, and which place each of a list fills.
 *
 * The binding wants places with a name or number by that, and the others in order.
 */
import { kimberliteError } from "../errors.ts";
import { parameterNames } from "./sql-text.ts";
import { scanSql } from "./sql-tokens.ts";
import type { SqlInput, SqlParams, SqlValue } from "./values.ts";

type Bound = null | number | bigint | string | Buffer;

/** Values that may be bound: in order, by name, or none. */
export type ParsedParams =
  | { readonly list: readonly Bound[] }
  | { readonly byName: Readonly<Record<string, Bound>> }
  | undefined;

/** The places of a statement: how many, and by what the binding knows those that are not bare. */
export interface Places {
  readonly count: number;
  /** By number, from 1. */
  readonly keys: ReadonlyMap<number, string>;
}

const MIN_INTEGER = -(2n ** 63n);
const MAX_INTEGER = 2n ** 63n - 1n;
const MAX_PARAMETERS = 32_766;
/** SQLite and the binding look each up among all the others: of many, they would take seconds. */
const MAX_NAMED = 1_000;
/** What a place with a name or number looks like, wherever it stands. */
const NOT_BARE = /\?[0-9]|[:@#$][\w$\u0080-\uffff]/;

/** @throws `invalid_parameter` naming the place, never the value */
export function parseParams(params: SqlParams | undefined): ParsedParams {
  if (params === undefined) return undefined;
  if (Array.isArray(params)) {
    if (params.length > MAX_PARAMETERS) throw invalid(`more than ${MAX_PARAMETERS} parameters`);
    return { list: Array.from(params as readonly unknown[], (value, index) => parseValue(value, index + 1)) };
  }
  if (typeof params !== "object" || params === null || params instanceof Uint8Array) {
    throw invalid("parameters are an array or an object");
  }
  const byName = Object.create(null) as Record<string, Bound>;
  for (const [name, value] of Object.entries(params as Record<string, SqlInput>))
    byName[name.replace(/^[?:@$#]/, "")] = parseValue(value, name);
  return { byName };
}

/**
 * Values that are exact: a bigint is an INTEGER, a number a REAL. One for each parameter, in SQLite's order.
 *
 * @throws `invalid_parameter` naming the place, never the value
 */
export function parseExact(values: readonly SqlValue[]): ParsedParams {
  return {
    list: values.map((value, index) =>
      typeof value === "number" && !Number.isNaN(value) ? value : parseValue(value, index + 1),
    ),
  };
}

/** The places of a text that compiles; undefined if all are bare. */
export function placesOf(sql: string): Places | undefined {
  if (!NOT_BARE.test(sql)) return undefined;
  const names = parameterNames(sql);
  const keys = new Map<number, string>();
  for (const [index, name] of names.entries()) if (name !== null) keys.set(index + 1, name.slice(1));
  return keys.size === 0 ? undefined : { count: names.length, keys };
}

/** Before a text is compiled. @throws `invalid_parameter` for more names and numbers than can be looked up in a moment */
export function requireFewNames(sql: string): void {
  if (sql.length < MAX_NAMED * 3 || !NOT_BARE.test(sql)) return;
  const names = new Set<string>();
  scanSql(sql, (kind, start, end) => {
    if (kind === "variable" && end - start > 1 && names.size <= MAX_NAMED) names.add(sql.slice(start, end));
  });
  if (names.size > MAX_NAMED)
    throw invalid(`more than ${MAX_NAMED} parameters with a name or number; write ? for each`);
}

/**
 * What the binding takes for a statement with these places.
 *
 * @throws `invalid_parameter` if there are more or fewer places than values in a list
 */
export function argumentsFor(params: ParsedParams, places: Places | undefined): readonly unknown[] {
  if (params === undefined) return [];
  if ("byName" in params) return [params.byName];
  if (places === undefined || params.list.length === 0) return params.list;
  return fillPlaces(params.list, places);
}

function fillPlaces(values: readonly Bound[], { count, keys }: Places): readonly unknown[] {
  if (count !== values.length)
    throw invalid(`the statement takes ${count} parameters, and got ${values.length}`);
  const bare: Bound[] = [];
  const byKey = Object.create(null) as Record<string, Bound>;
  for (const [index, value] of values.entries()) {
    const key = keys.get(index + 1);
    if (key === undefined) bare.push(value);
    else if (key in byKey && byKey[key] !== value)
      throw invalid(`two places are called ${key}; give the values by name`);
    else byKey[key] = value;
  }
  return [...bare, byKey];
}

/** One value as it is bound. @throws `invalid_parameter` naming the place, never the value */
export function parseValue(value: unknown, place: number | string): Bound {
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

function invalid(message: string): Error {
  return kimberliteError("invalid_parameter", message);
}
