/**
 * How values, tables and JSON look on a terminal.
 *
 * Kept: what a tenant stored cannot act on the terminal (control characters, escape sequences and marks that reorder
 * text are shown as escapes), and JSON loses nothing: integers past 2^53 are strings, blobs `{"base64": …}`,
 * infinities the strings "Infinity" and "-Infinity".
 */
import { styleText } from "node:util";
import Table from "cli-table3";
import type { SqlValue } from "../projection/values.ts";

const SHOWN_BLOB_BYTES = 16;
const PAGE_ROWS = 200;
/** C0, DEL, C1, and the marks that reorder or hide text; newlines are kept. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
const UNSAFE = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

/** Text that a terminal only shows. */
export function escapeText(text: string): string {
  return text.replace(UNSAFE, (character) => {
    if (character === "\t") return "\\t";
    if (character === "\r") return "\\r";
    const code = character.charCodeAt(0);
    return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16)}`;
  });
}

/** As `escapeText`, on one line. */
export function escapeLine(text: string): string {
  return escapeText(text).replaceAll("\n", " ");
}

export function formatCell(value: SqlValue): string {
  if (value === null) return "NULL";
  if (typeof value === "string") return escapeText(value);
  if (value instanceof Uint8Array) return formatBlob(value);
  return String(value);
}

function formatBlob(bytes: Uint8Array): string {
  const shown = Buffer.from(bytes.subarray(0, SHOWN_BLOB_BYTES)).toString("hex");
  return bytes.length <= SHOWN_BLOB_BYTES ? `x'${shown}'` : `x'${shown}…' (${bytes.length} bytes)`;
}

/**
 * A table with a head; numbers are to the right. A long one has a head again every `PAGE_ROWS` rows, because the time
 * to lay one out grows with the square of its length.
 */
export function renderTable(columns: readonly string[], rows: readonly (readonly SqlValue[])[]): string {
  const numeric = columns.map((_, index) => rows.length > 0 && rows.every((row) => isNumeric(row[index])));
  const head = columns.map((column) => bold(escapeLine(column)));
  const pages: string[] = [];
  for (let at = 0; at === 0 || at < rows.length; at += PAGE_ROWS) {
    const table = new Table({
      head,
      colAligns: numeric.map((right) => (right ? "right" : "left")),
      style: { head: [], border: [], compact: true },
    });
    for (const row of rows.slice(at, at + PAGE_ROWS)) table.push(row.map(formatCell));
    pages.push(table.toString());
  }
  return pages.join("\n");
}

function isNumeric(value: SqlValue | undefined): boolean {
  return value === null || typeof value === "number" || typeof value === "bigint";
}

export function bold(text: string): string {
  return styleText("bold", text, { stream: process.stdout });
}

export function dim(text: string): string {
  return styleText("dim", text, { stream: process.stdout });
}

/** JSON of anything that the library gives, on one line. */
export function toJson(value: unknown): string {
  return JSON.stringify(value, function (this: Record<string, unknown>, key: string, changed: unknown) {
    const raw = this[key];
    if (raw instanceof Uint8Array) return { base64: Buffer.from(raw).toString("base64") };
    if (typeof raw === "bigint") return jsonInteger(raw);
    if (typeof raw === "number" && !Number.isFinite(raw)) return String(raw);
    return changed;
  });
}

function jsonInteger(value: bigint): number | string {
  const safe = value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER);
  return safe ? Number(value) : value.toString();
}

/** Rows as objects. Of columns with one name, the later get `:1`, `:2` … behind it. */
export function rowObjects(
  columns: readonly string[],
  rows: readonly (readonly SqlValue[])[],
): { readonly columns: string[]; readonly rows: Record<string, SqlValue>[] } {
  const names = distinctNames(columns);
  const objects = rows.map((row) =>
    Object.fromEntries(names.map((name, index) => [name, row[index] ?? null])),
  );
  return { columns: names, rows: objects };
}

function distinctNames(columns: readonly string[]): string[] {
  const taken = new Set<string>();
  return columns.map((column) => {
    let name = column;
    for (let count = 1; taken.has(name); count += 1) name = `${column}:${count}`;
    taken.add(name);
    return name;
  });
}

/** Counts as people read them: "1 row", "2 rows". */
export function counted(count: number | bigint, noun: string): string {
  return `${grouped(count)} ${noun}${BigInt(count) === 1n ? "" : "s"}`;
}

/** A whole number with its thousands apart. Not by the language's own means, whose tables take 40 ms to load. */
export function grouped(count: number | bigint): string {
  return String(count).replaceAll(/\B(?=(?:[0-9]{3})+$)/g, ",");
}

export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let amount = bytes;
  let unit = 0;
  for (; amount >= 1024 && unit < units.length - 1; unit += 1) amount /= 1024;
  return `${unit === 0 ? amount : amount.toFixed(1)} ${units[unit]}`;
}

/** ISO 8601 of microseconds since 1970. */
export function formatTime(timeUs: bigint): string {
  return new Date(Number(timeUs / 1000n)).toISOString();
}
