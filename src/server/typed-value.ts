/** A value of SQLite with its type, as Hrana writes it: nothing is rounded. */
import { narrowInteger, type SqlInput, type SqlValue } from "../projection/values.ts";

export type TypedValue =
  | { readonly type: "null" }
  | { readonly type: "integer"; readonly value: string }
  /** JSON has no infinity. */
  | { readonly type: "float"; readonly value: number | "Infinity" | "-Infinity" }
  | { readonly type: "text"; readonly value: string }
  | { readonly type: "blob"; readonly base64: string };

export function toInput(value: TypedValue): SqlInput {
  if (value.type === "null") return null;
  if (value.type === "integer") return BigInt(value.value);
  if (value.type === "blob") return Buffer.from(value.base64, "base64");
  return value.type === "float" ? Number(value.value) : value.value;
}

/** As the library gives it: integers that are safe as numbers. */
export function toValue(value: TypedValue): SqlValue {
  const given = toInput(value) as SqlValue;
  return typeof given === "bigint" ? narrowInteger(given) : given;
}

/** Integers that are safe come as numbers; what is whole and came from a REAL is then told from them by nothing, as in JavaScript. */
export function toTyped(value: SqlInput): TypedValue {
  if (value === null) return { type: "null" };
  if (typeof value === "boolean") return { type: "integer", value: value ? "1" : "0" };
  if (typeof value === "bigint") return { type: "integer", value: value.toString() };
  if (typeof value === "number") {
    if (Number.isSafeInteger(value)) return { type: "integer", value: value.toString() };
    if (Number.isFinite(value)) return { type: "float", value };
    return { type: "float", value: value > 0 ? "Infinity" : "-Infinity" };
  }
  if (typeof value === "string") return { type: "text", value };
  return { type: "blob", base64: Buffer.from(value).toString("base64") };
}
