/** A value of SQLite with its type, as Hrana writes it: nothing is rounded. */
import { Type } from "typebox";
import type { SqlInput, SqlValue } from "../projection/values.ts";
import { type Shape, shapeOf } from "./wire.ts";

export type TypedValue =
  | { readonly type: "null" }
  | { readonly type: "integer"; readonly value: string }
  | { readonly type: "float"; readonly value: number }
  | { readonly type: "text"; readonly value: string }
  | { readonly type: "blob"; readonly base64: string };

const CLOSED = { additionalProperties: false } as const;

export const TypedValueSchema: Shape<TypedValue> = shapeOf<TypedValue>()(
  Type.Union([
    Type.Object({ type: Type.Literal("null") }, CLOSED),
    Type.Object(
      { type: Type.Literal("integer"), value: Type.String({ pattern: "^-?[0-9]{1,19}$" }) },
      CLOSED,
    ),
    Type.Object({ type: Type.Literal("float"), value: Type.Number() }, CLOSED),
    Type.Object({ type: Type.Literal("text"), value: Type.String() }, CLOSED),
    Type.Object(
      { type: Type.Literal("blob"), base64: Type.String({ pattern: "^[A-Za-z0-9+/]*={0,2}$" }) },
      CLOSED,
    ),
  ]),
);

export function toInput(value: TypedValue): SqlInput {
  if (value.type === "null") return null;
  if (value.type === "integer") return BigInt(value.value);
  if (value.type === "blob") return Buffer.from(value.base64, "base64");
  return value.value;
}

/** Integers that are safe come as numbers; what is whole and came from a REAL is then told from them by nothing, as in JavaScript. */
export function toTyped(value: SqlValue): TypedValue {
  if (value === null) return { type: "null" };
  if (typeof value === "bigint") return { type: "integer", value: value.toString() };
  if (typeof value === "number") {
    return Number.isSafeInteger(value)
      ? { type: "integer", value: value.toString() }
      : { type: "float", value };
  }
  if (typeof value === "string") return { type: "text", value };
  return { type: "blob", base64: Buffer.from(value).toString("base64") };
}
