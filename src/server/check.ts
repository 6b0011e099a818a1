/** Input against its schema: the very schema that the documentation of the API is made of. */
import type { TSchema } from "typebox";
import { Compile } from "typebox/compile";
import { Convert } from "typebox/value";
import { kimberliteError } from "../errors.ts";

/** Gives back the value if it is as the schema says. @throws `invalid_argument` */
export type Check = (value: unknown) => unknown;

/** A check of one part of a request; text as an address carries it becomes what the schema wants. */
export function compileCheck(schema: TSchema, part: "body" | "query" | "params"): Check {
  const validator = Compile(schema);
  return (given) => {
    const value = part === "body" ? given : Convert(schema, given);
    if (validator.Check(value)) return value;
    const [error] = validator.Errors(value);
    const where = `${part}${(error?.instancePath ?? "").replaceAll("/", ".")}`;
    throw kimberliteError("invalid_argument", `${where} ${reasonOf(error, schema)}`);
  };
}

interface Mismatch {
  readonly keyword: string;
  readonly instancePath: string;
  readonly message: string;
}

function reasonOf(error: Mismatch | undefined, schema: TSchema): string {
  // What closes an object is a schema that refuses everything: the field is unknown.
  if (error?.keyword === "boolean") return "is not known here";
  const described = error?.keyword === "pattern" ? descriptionAt(schema, error.instancePath) : undefined;
  return described === undefined ? (error?.message ?? "is not valid") : `must be ${described}`;
}

/** What a field is in words, if the schema has them. */
function descriptionAt(schema: TSchema, path: string): string | undefined {
  let at: unknown = schema;
  for (const name of path.split("/").slice(1)) {
    const { properties } = (at ?? {}) as { readonly properties?: Readonly<Record<string, unknown>> };
    at = properties?.[name];
  }
  const { description } = (at ?? {}) as { readonly description?: string };
  return description;
}
