/**
 * A reading of SQL text as SQLite's own tokenizer reads it: what is a name, what is quoted, what is a place for a
 * parameter.
 *
 * Nothing that a tenant may do is decided here; that is the authorizer's. It serves to fill places and to weigh texts.
 * Kept: one pass, whatever the text; what is not closed reaches to the end.
 */

/** `word` is a bare name or keyword, `name` a quoted one, `variable` a place for a parameter, `mark` one other character. */
export type TokenKind = "word" | "name" | "string" | "number" | "variable" | "mark";

export type OnToken = (kind: TokenKind, start: number, end: number) => void;

/** A byte order mark is one where a token could begin. */
const SPACE = /[ \t\n\v\f\r\ufeff]+/y;
/** SQLite takes every character past ASCII for part of a name, and `$` for one that does not begin it. */
const WORD = /[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*/y;
const NUMBER = /[0-9][\w.$\u0080-\uffff]*/y;
const VARIABLE = /\?[0-9]*|[:@#$][\w$\u0080-\uffff]+/y;

/** Calls back for every token but blanks and comments, in order. */
export function scanSql(sql: string, onToken: OnToken): void {
  for (let at = 0; at < sql.length; ) {
    const blank = skipBlank(sql, at);
    if (blank > at) {
      at = blank;
      continue;
    }
    const [kind, end] = tokenAt(sql, at);
    onToken(kind, at, end);
    at = end;
  }
}

function skipBlank(sql: string, at: number): number {
  const char = sql.charCodeAt(at);
  if (char === 0x2d && sql.charCodeAt(at + 1) === 0x2d) return endOf(sql, "\n", at + 2);
  if (char === 0x2f && sql.charCodeAt(at + 1) === 0x2a) return endOf(sql, "*/", at + 2);
  return match(SPACE, sql, at);
}

function tokenAt(sql: string, at: number): [kind: TokenKind, end: number] {
  const char = sql[at] as string;
  if (char === "'") return ["string", endOfQuoted(sql, at)];
  if (char === '"' || char === "`") return ["name", endOfQuoted(sql, at)];
  if (char === "[") return ["name", endOf(sql, "]", at + 1)];
  const word = match(WORD, sql, at);
  if (word > at) return ["word", word];
  const variable = match(VARIABLE, sql, at);
  if (variable > at) return ["variable", variable];
  const number = match(NUMBER, sql, at);
  return number > at ? ["number", number] : ["mark", at + 1];
}

/** Behind the quote that closes the one at `at`; a doubled one is part of the text. */
function endOfQuoted(sql: string, at: number): number {
  const quote = sql[at] as string;
  for (let close = sql.indexOf(quote, at + 1); close >= 0; close = sql.indexOf(quote, close + 2)) {
    if (sql[close + 1] !== quote) return close + 1;
  }
  return sql.length;
}

function endOf(sql: string, close: string, from: number): number {
  const found = sql.indexOf(close, from);
  return found < 0 ? sql.length : found + close.length;
}

/** Where `pattern` ends if it stands at `at`, else `at`. */
function match(pattern: RegExp, sql: string, at: number): number {
  pattern.lastIndex = at;
  return pattern.test(sql) ? pattern.lastIndex : at;
}

/** Where the first token that is no semicolon begins: SQLite passes over those too. */
export function startOf(sql: string): number {
  let at = 0;
  while (at < sql.length) {
    const next = sql[at] === ";" ? at + 1 : skipBlank(sql, at);
    if (next === at) return at;
    at = next;
  }
  return at;
}

/** The name that a token stands for, as SQLite compares names: without quotes, in lower case. */
export function nameOf(kind: TokenKind, text: string): string {
  if (kind === "word") return text.toLowerCase();
  const open = text[0] as string;
  if (open === "[") return text.slice(1, -1).toLowerCase();
  return text
    .slice(1, -1)
    .replaceAll(open + open, open)
    .toLowerCase();
}
