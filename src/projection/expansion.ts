/**
 * How far a text grows when SQLite compiles it: a view or common table expression is copied into each place that names
 * it, so views of views that double make a statement of millions of parts from a few lines. SQLite looks at no deadline
 * and asks no authorizer while it copies: such a text is refused before it is compiled.
 *
 * Names are counted wherever they could be a table's: more than are copied, never fewer. What a statement may reach is
 * not decided here. A name that several expressions of one text share is not followed in circles: it counts as too much.
 */
import { kimberliteError } from "../errors.ts";
import { nameOf, scanSql, type TokenKind } from "./sql-tokens.ts";
import type { SqliteDatabase } from "./sqlite.ts";

/** Copies of views and expressions, and the tokens in them. */
export interface Growth {
  readonly copies: number;
  readonly tokens: number;
}

/** What may be compiled at all. SQLite's time grows with the square of the copies: this many take about a second. */
const MOST: Growth = { copies: 1_000, tokens: 200_000 };
/** What may be compiled on the main thread: milliseconds. */
const MOST_INLINE: Growth = { copies: 100, tokens: 10_000 };
const NONE: Growth = { copies: 0, tokens: 0 };
const ENDLESS: Growth = { copies: Number.POSITIVE_INFINITY, tokens: Number.POSITIVE_INFINITY };
const WITH = /\bwith\b/i;

interface Token {
  readonly kind: TokenKind;
  /** As SQLite compares names; of marks and numbers the text. */
  readonly name: string;
}

/** A common table expression of a text: its name, and where its body lies among the tokens. */
interface Definition {
  readonly name: string;
  readonly head: number;
  readonly start: number;
  readonly end: number;
}

export class Views {
  readonly #texts: ReadonlyMap<string, string>;
  readonly #known: Map<string, Growth> = new Map();

  /** @param texts of views, by name in lower case */
  constructor(texts: ReadonlyMap<string, string>) {
    this.#texts = texts;
  }

  static of(db: SqliteDatabase): Views {
    const rows = db.prepare("SELECT name, sql FROM main.sqlite_master WHERE type = 'view'").all() as {
      name: string;
      sql: string;
    }[];
    return new Views(new Map(rows.map(({ name, sql }) => [name.toLowerCase(), sql])));
  }

  /** @throws `unsupported_sql` for a text that grows past all bounds. @returns whether it may be compiled on the main thread */
  require(sql: string): boolean {
    if (this.#texts.size === 0 && !WITH.test(sql)) return true;
    const growth = growthOf(sql, (name) => this.#growthOf(name));
    if (exceeds(growth, MOST)) throw tooComplex();
    return !exceeds(growth, MOST_INLINE);
  }

  /** @throws `unsupported_sql` if a view grows past all bounds */
  requireAll(): void {
    for (const name of this.#texts.keys()) if (exceeds(this.#growthOf(name), MOST)) throw tooComplex();
  }

  /** What one naming of a view adds; nothing if there is no such view. */
  #growthOf(name: string): Growth {
    if (name.startsWith("pragma_")) return this.#ofAnyView();
    const known = this.#known.get(name);
    if (known !== undefined) return known;
    const text = this.#texts.get(name);
    if (text === undefined) return NONE;
    // A view that is defined by itself is refused by SQLite.
    this.#known.set(name, NONE);
    const inner = growthOf(text, (other) => this.#growthOf(other));
    const growth = { copies: inner.copies + 1, tokens: inner.tokens + text.length / 4 };
    this.#known.set(name, growth);
    return growth;
  }

  /** Table functions such as `pragma_table_info` copy one view at a time, of any name, when they run. */
  #ofAnyView(): Growth {
    const isLarge = [...this.#texts.keys()].some((name) => exceeds(this.#growthOf(name), MOST_INLINE));
    return isLarge ? { ...MOST_INLINE, copies: MOST_INLINE.copies + 1 } : NONE;
  }
}

/** What the views and expressions that a text names add to it. */
function growthOf(sql: string, viewGrowth: (name: string) => Growth): Growth {
  const tokens = tokensOf(sql);
  const definitions = WITH.test(sql) ? definitionsIn(tokens) : [];
  const byName = Map.groupBy(definitions, ({ name }) => name);
  const heads = new Set(definitions.map(({ head }) => head));
  const known = new Map<string, Growth>();

  const ofRange = (start: number, end: number, own: string | undefined): Growth => {
    let copies = 0;
    let added = 0;
    for (let at = start; at < end && copies < Number.POSITIVE_INFINITY; at += 1) {
      const name = (tokens[at] as Token).name;
      if (heads.has(at) || name === own || !mayNameTable(tokens, at)) continue;
      const growth = ofName(name);
      copies += growth.copies;
      added += growth.tokens;
    }
    return { copies, tokens: added };
  };
  const ofName = (name: string): Growth => {
    const found = known.get(name);
    if (found !== undefined) return found;
    // Met again before it is known, it is named in a circle: by one of the same name in another part of the text.
    known.set(name, ENDLESS);
    let growth = viewGrowth(name);
    for (const { start, end } of byName.get(name) ?? []) {
      const inner = ofRange(start, end, name);
      growth = {
        copies: growth.copies + inner.copies + 1,
        tokens: growth.tokens + inner.tokens + (end - start),
      };
    }
    known.set(name, growth);
    return growth;
  };
  return ofRange(0, tokens.length, undefined);
}

function tokensOf(sql: string): Token[] {
  const tokens: Token[] = [];
  scanSql(sql, (kind, start, end) => {
    const text = sql.slice(start, end);
    const isName = kind === "word" || kind === "name" || kind === "string";
    tokens.push({ kind, name: isName ? nameOf(kind, text) : text });
  });
  return tokens;
}

/** Not a column behind its table, not what is before a dot, not a new name behind AS. */
function mayNameTable(tokens: readonly Token[], at: number): boolean {
  const { kind } = tokens[at] as Token;
  if (kind !== "word" && kind !== "name" && kind !== "string") return false;
  if (isMark(tokens[at + 1], ".")) return false;
  const before = tokens[at - 1];
  if (isMark(before, ".")) return tokens[at - 2]?.name === "main";
  return !isWord(before, "as");
}

/** Every `name [(columns)] AS [[NOT] MATERIALIZED] (body)`, whether or not it stands behind WITH. */
function definitionsIn(tokens: readonly Token[]): Definition[] {
  const closes = closingMarks(tokens);
  const definitions: Definition[] = [];
  for (const [head, { kind, name }] of tokens.entries()) {
    if (kind === "mark" || kind === "number" || kind === "variable") continue;
    let at = head + 1;
    if (isMark(tokens[at], "(")) at = (closes.get(at) ?? tokens.length) + 1;
    if (!isWord(tokens[at], "as")) continue;
    at += 1;
    if (isWord(tokens[at], "not")) at += 1;
    if (isWord(tokens[at], "materialized")) at += 1;
    if (!isMark(tokens[at], "(")) continue;
    definitions.push({ name, head, start: at + 1, end: closes.get(at) ?? tokens.length });
  }
  return definitions;
}

/** Where each opening parenthesis is closed. */
function closingMarks(tokens: readonly Token[]): ReadonlyMap<number, number> {
  const open: number[] = [];
  const closes = new Map<number, number>();
  for (const [at, token] of tokens.entries()) {
    if (isMark(token, "(")) open.push(at);
    else if (isMark(token, ")")) {
      const opened = open.pop();
      if (opened !== undefined) closes.set(opened, at);
    }
  }
  return closes;
}

function isMark(token: Token | undefined, mark: string): boolean {
  return token?.kind === "mark" && token.name === mark;
}

function isWord(token: Token | undefined, word: string): boolean {
  return token?.kind === "word" && token.name === word;
}

function exceeds(growth: Growth, most: Growth): boolean {
  return growth.copies > most.copies || growth.tokens > most.tokens;
}

function tooComplex(): Error {
  return kimberliteError(
    "unsupported_sql",
    "views or common table expressions name each other so often that the statement grows past what can be compiled; keep the rows in a table in between",
    { detail: { maxCopies: MOST.copies } },
  );
}
