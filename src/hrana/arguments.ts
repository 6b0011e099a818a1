/** The arguments of a statement, put in SQLite's order. */
import { kimberliteError } from "../errors.ts";
import { parameterNames } from "../projection/sql-text.ts";
import type { SqlValue } from "../projection/values.ts";
import type { NamedArgument, Stmt } from "./protocol.ts";

/**
 * A value for each parameter of the text. A named argument goes before a positional one for the same place; a name
 * without its sign stands for any sign.
 *
 * @throws `invalid_parameter` for an argument too many, or a parameter without one
 */
export function placeArguments(
  sql: string,
  { args, namedArgs }: Pick<Stmt, "args" | "namedArgs">,
): SqlValue[] {
  const names = parameterNames(sql);
  if (namedArgs.length === 0 && args.length === names.length) return [...args];
  if (args.length > names.length) throw wrong(`takes ${names.length} parameters, and got ${args.length}`);
  const values: (SqlValue | undefined)[] = names.map((_, index) => args[index]);
  const places = placesByName(names);
  for (const argument of namedArgs) put(values, places, argument);
  return values.map((value, index) => {
    if (value === undefined) throw wrong(`has no argument for its parameter ${names[index] ?? index + 1}`);
    return value;
  });
}

/** Under each name with its sign, and without. */
function placesByName(names: readonly (string | null)[]): ReadonlyMap<string, number[]> {
  const places = new Map<string, number[]>();
  for (const [index, name] of names.entries()) {
    if (name === null) continue;
    for (const key of [name, name.slice(1)]) places.set(key, [...(places.get(key) ?? []), index]);
  }
  return places;
}

function put(
  values: (SqlValue | undefined)[],
  places: ReadonlyMap<string, number[]>,
  { name, value }: NamedArgument,
): void {
  const found = places.get(name);
  if (found === undefined) throw wrong("has no parameter of the name of an argument");
  for (const index of found) values[index] = value;
}

function wrong(what: string): Error {
  return kimberliteError("invalid_parameter", `the statement ${what}`);
}
