/**
 * What SQL text says before SQLite compiles it: the parameters that it has, and whether it is a statement that begins or
 * ends a transaction, or a setting of the connection.
 *
 * Kept: nothing is allowed or refused for what is found here; SQLite's authorizer alone decides. A text that is not wholly
 * one of the forms below is SQLite's to judge. Cost: one pass, whatever the text.
 */

import { scanSql, startOf } from "./sql-tokens.ts";

/** A statement about the session rather than the data. Names are as written, without quotes. */
export type SessionControl =
  | { readonly kind: "begin"; readonly mode: "deferred" | "immediate" | "readonly" }
  | { readonly kind: "commit" }
  | { readonly kind: "rollback" }
  | { readonly kind: "savepoint" | "release" | "rollback-to"; readonly name: string }
  /** `PRAGMA foreign_keys`; `on` is absent when it asks. */
  | { readonly kind: "foreign-keys"; readonly on?: boolean };

/**
 * The parameters by their index less one: the name with its prefix, or null where there is none (`?`, or a number that is
 * left out). A bare `?` is numbered one above the highest before it, as SQLite does.
 */
export function parameterNames(sql: string): (string | null)[] {
  const names: (string | null)[] = [];
  if (!/[?:@$#]/.test(sql)) return names;
  const known = new Set<string>();
  scanSql(sql, (kind, start, end) => {
    if (kind !== "variable") return;
    const place = sql.slice(start, end);
    if (place === "?") names.push(null);
    else if (place.startsWith("?")) noteNumbered(names, place);
    else if (!known.has(place)) names.push(place);
    known.add(place);
  });
  return names;
}

/** SQLite's own highest number; a larger one does not compile. */
const MAX_NUMBER = 32_766;

function noteNumbered(names: (string | null)[], place: string): void {
  const number = Number(place.slice(1));
  if (number < 1 || number > MAX_NUMBER) return;
  while (names.length < number) names.push(null);
  names[number - 1] ??= place;
}

const EXPLAIN = /^explain(?![\w$\u0080-\uffff])/i;
const WITH = /^with\b/i;
const READS = /^(?:select|values|explain|pragma)\b/i;
const LONGEST_WORD = "explain".length;
const LEADING = /^(?:\s+|--[^\n]*(?:\n|$)|\/\*[\s\S]*?\*\/)*/;
const TRAILING = /(?:\s|;)*$/;
const NAME = String.raw`("(?:[^"]|"")+"|\x60[^\x60]+\x60|\[[^\]]+\]|'[^']+'|[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*)`;
const FIRST_WORD = /^(?:begin|commit|end|rollback|savepoint|release|pragma)\b/i;

/** True for EXPLAIN and EXPLAIN QUERY PLAN. */
export function isExplain(sql: string): boolean {
  return EXPLAIN.test(beginning(sql));
}

/** True for a text that may be one that only reads: worth asking a connection that only reads. */
export function mayRead(sql: string): boolean {
  const text = beginning(sql);
  if (WITH.test(text)) return !/\b(?:insert|update|delete|replace)\b/i.test(sql);
  return READS.test(text);
}

/** As much of the first token as is looked at. */
function beginning(sql: string): string {
  const start = startOf(sql);
  return sql.slice(start, start + LONGEST_WORD + 1);
}

const BEGIN =
  /^begin(?:\s+(deferred|immediate|exclusive|readonly|concurrent))?(?:\s+transaction)?(?:\s+(readonly))?$/i;
const COMMIT = /^(?:commit|end)(?:\s+transaction)?$/i;
const ROLLBACK = /^rollback(?:\s+transaction)?$/i;
const ROLLBACK_TO = new RegExp(
  String.raw`^rollback(?:\s+transaction)?\s+to(?:\s+savepoint)?\s+${NAME}$`,
  "i",
);
const SAVEPOINT = new RegExp(String.raw`^savepoint\s+${NAME}$`, "i");
const RELEASE = new RegExp(String.raw`^release(?:\s+savepoint)?\s+${NAME}$`, "i");
const FOREIGN_KEYS =
  /^pragma\s+(?:main\s*\.\s*)?foreign_keys(?:\s*=\s*['"]?(\w+)['"]?|\s*\(\s*['"]?(\w+)['"]?\s*\))?$/i;
/** Longer texts are none of these forms; a pattern is not run over them. */
const MAX_CONTROL_LENGTH = 1_000;

/** The control that a text is, wholly; undefined for every other statement. */
export function parseControl(sql: string): SessionControl | undefined {
  if (sql.length > MAX_CONTROL_LENGTH) return undefined;
  const text = sql.replace(LEADING, "").replace(TRAILING, "");
  if (!FIRST_WORD.test(text)) return undefined;
  return transactionControl(text) ?? savepointControl(text) ?? foreignKeys(text);
}

function transactionControl(text: string): SessionControl | undefined {
  const begin = BEGIN.exec(text);
  if (begin !== null) return { kind: "begin", mode: beginMode(begin[1] ?? begin[2]) };
  if (COMMIT.test(text)) return { kind: "commit" };
  return ROLLBACK.test(text) ? { kind: "rollback" } : undefined;
}

function beginMode(word: string | undefined): "deferred" | "immediate" | "readonly" {
  const mode = word?.toLowerCase();
  if (mode === "readonly") return "readonly";
  return mode === "immediate" || mode === "exclusive" ? "immediate" : "deferred";
}

function savepointControl(text: string): SessionControl | undefined {
  for (const [pattern, kind] of [
    [SAVEPOINT, "savepoint"],
    [RELEASE, "release"],
    [ROLLBACK_TO, "rollback-to"],
  ] as const) {
    const name = pattern.exec(text)?.[1];
    if (name !== undefined) return { kind, name: unquote(name) };
  }
  return undefined;
}

function unquote(name: string): string {
  return /^["'`[]/.test(name) ? name.slice(1, -1).replaceAll('""', '"') : name;
}

function foreignKeys(text: string): SessionControl | undefined {
  const match = FOREIGN_KEYS.exec(text);
  if (match === null) return undefined;
  const value = match[1] ?? match[2];
  if (value === undefined) return { kind: "foreign-keys" };
  // SQLite's own reading of a boolean: what it does not know is off.
  return { kind: "foreign-keys", on: /^(?:on|yes|true|full|extra|0*[1-9]\d*)$/i.test(value) };
}
