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
    throw kimberliteError("invalid_argument", `${where} ${reasonOf(error)}`);
  };
}

/** What closes an object is a schema that refuses everything: the field is unknown. */
function reasonOf(error: { readonly keyword: string; readonly message: string } | undefined): string {
  if (error?.keyword === "boolean") return "is not known here";
  return error?.message ?? "is not valid";
}
