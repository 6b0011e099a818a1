/** Row images outside SQLite: for readers of a table's stream. Replay never comes here; it stays inside SQLite. */
import { kimberliteError } from "../errors.ts";
import { decodeCbor } from "../log/record.ts";
import type { SqlValue } from "./values.ts";

/** Values of a row image; text that is not UTF-8 comes as its bytes. @throws `log_damaged` */
export function decodeImage(image: Uint8Array): SqlValue[] {
  const values = decodeCbor(image);
  if (!Array.isArray(values)) throw kimberliteError("log_damaged", "a row image is not an array");
  return values.map(toValue);
}

function toValue(value: unknown): SqlValue {
  if (value === null || typeof value === "number" || typeof value === "bigint" || typeof value === "string")
    return value;
  if (value instanceof Uint8Array) return value;
  const inner = (value as { value?: unknown } | null)?.value;
  if (inner instanceof Uint8Array) return inner;
  throw kimberliteError("log_damaged", "a row image holds a value of no SQLite type");
}
