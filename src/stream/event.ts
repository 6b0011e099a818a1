/**
 * Events of a stream: what may be appended, and its bytes (CBOR, RFC 8949).
 *
 * An event is bytes, or a value of JSON's kinds (also bigint and nested bytes). It comes back as it was given (-0 as 0).
 */
import { kimberliteError } from "../errors.ts";
import { decodeCbor, encodeCbor } from "../log/record.ts";

export type EventValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | readonly EventValue[]
  | { readonly [field: string]: EventValue };

const MAX_DEPTH = 64;
export const MAX_EVENTS_PER_APPEND = 10_000;

/** @throws `invalid_argument` for what CBOR cannot give back as it was, `value_too_large` past `maxBytes`. */
export function encodeEvent(event: unknown, maxBytes: number): Buffer {
  requireEncodable(event, 0);
  const bytes = encodeCbor(event);
  if (bytes.length > maxBytes) {
    throw kimberliteError("value_too_large", "an event exceeds the size limit", { detail: { maxBytes } });
  }
  return bytes;
}

export function decodeEvent(bytes: Uint8Array): EventValue {
  return decodeCbor(bytes) as EventValue;
}

/** @throws `invalid_argument` unless 1 to 255 characters without control characters and reserved beginnings. */
export function parseStreamName(name: unknown): string {
  const sane = typeof name === "string" && name.length >= 1 && name.length <= 255 && name.isWellFormed();
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is refused here
  if (!sane || /[\u0000-\u001f\u007f]/.test(name) || /^(_kimberlite_|sqlite_)/i.test(name)) {
    throw kimberliteError("invalid_argument", "a stream's name is 1 to 255 characters, not reserved");
  }
  return name;
}

function requireEncodable(value: unknown, depth: number): void {
  if (depth > MAX_DEPTH) throw refused("is nested too deep");
  if (value === null || typeof value === "boolean" || value instanceof Uint8Array) return;
  if (typeof value === "string") {
    if (!value.isWellFormed()) throw refused("holds a lone surrogate");
    return;
  }
  if (typeof value === "bigint") {
    if (value < -(2n ** 63n) || value >= 2n ** 63n) throw refused("holds an integer past 64 bits");
    return;
  }
  if (typeof value === "number") {
    if (!Number.isFinite(value)) throw refused("holds a number that is not finite");
    return;
  }
  if (Array.isArray(value)) {
    for (const item of value as unknown[]) requireEncodable(item, depth + 1);
    return;
  }
  requirePlainObject(value, depth);
}

function requirePlainObject(value: unknown, depth: number): void {
  const prototype: unknown = typeof value === "object" ? Object.getPrototypeOf(value) : undefined;
  if (prototype !== Object.prototype && prototype !== null) throw refused("is not made of plain values");
  for (const [field, item] of Object.entries(value as object)) {
    if (field === "__proto__") throw refused("has a field named __proto__");
    if (!field.isWellFormed()) throw refused("has a field whose name holds a lone surrogate");
    requireEncodable(item, depth + 1);
  }
}

function refused(why: string): Error {
  return kimberliteError("invalid_argument", `an event ${why}`);
}
