/**
 * Splits SQL text into statements as SQLite's own shell does (`sqlite3_complete`): a semicolon ends a statement unless
 * it is in a string, a quoted name, a comment or the body of a trigger, which ends with `; END ;`.
 *
 * Text comes in pieces of any size, and is looked at once: a statement of a million lines costs a million lines.
 */

type Mode = "code" | "'" | '"' | "`" | "]" | "line comment" | "block comment";
type Token = "semicolon" | "other" | "explain" | "create" | "temp" | "trigger" | "end";

/** Where a statement is; the table is that of `sqlite3_complete`. */
type Place = "start" | "normal" | "explain" | "create" | "trigger" | "trigger semicolon" | "trigger end";

const WORDS: ReadonlyMap<string, Token> = new Map([
  ["create", "create"],
  ["end", "end"],
  ["explain", "explain"],
  ["temp", "temp"],
  ["temporary", "temp"],
  ["trigger", "trigger"],
]);
const LONGEST_WORD = "temporary".length;
const QUOTES: ReadonlyMap<string, Mode> = new Map([
  ["'", "'"],
  ['"', '"'],
  ["`", "`"],
  ["[", "]"],
]);
const WORD_CHARACTER = /[\w$\u0080-\uffff]/;
const SPACE = /[ \t\r\n\f\v\ufeff]/;

export class SqlSplitter {
  #text = "";
  /** Characters of `#text` that were looked at. */
  #at = 0;
  /** Where the statement's first token is; -1 before it. */
  #start = -1;
  #mode: Mode = "code";
  #place: Place = "start";
  #word = "";
  /** The last character, when it may begin a comment or end one. */
  #pending = "";

  /** Takes more text. @returns the statements that it completed, without their semicolons and leading comments */
  push(text: string): string[] {
    this.#text += text;
    const done: string[] = [];
    for (; this.#at < this.#text.length; this.#at += 1) {
      const statement = this.#look(this.#text[this.#at] as string);
      if (statement !== undefined) done.push(statement);
    }
    this.#forgetDone();
    return done;
  }

  /** Takes the end of the text. @returns the last statement, if it had no semicolon */
  finish(): string | undefined {
    const empty = this.#start < 0 && (this.#mode !== "code" || this.#pending === "");
    const rest = empty ? "" : this.#text.slice(Math.max(this.#start, 0));
    this.reset();
    return rest.trim() === "" ? undefined : rest.trimEnd();
  }

  /** Forgets an unfinished statement. */
  reset(): void {
    this.#text = "";
    this.#at = 0;
    this.#mode = "code";
    this.#pending = "";
    this.#begin();
  }

  /** True between statements: what comes next begins one. */
  get idle(): boolean {
    return this.#start < 0 && this.#mode === "code" && this.#pending === "";
  }

  #look(character: string): string | undefined {
    const pending = this.#pending;
    this.#pending = "";
    if (this.#mode === "code") return this.#lookAtCode(character, pending);
    if (this.#mode === "line comment") {
      if (character === "\n") this.#mode = "code";
    } else if (this.#mode === "block comment") {
      if (character === "/" && pending === "*") this.#mode = "code";
      else if (character === "*") this.#pending = "*";
    } else if (character === this.#mode) {
      // A doubled quote ends the string and begins it again, which comes to the same.
      this.#mode = "code";
    }
    return undefined;
  }

  #lookAtCode(character: string, pending: string): string | undefined {
    if (WORD_CHARACTER.test(character)) {
      this.#flushPending(pending);
      this.#markStart(this.#at);
      if (this.#word.length <= LONGEST_WORD) this.#word += character;
      return undefined;
    }
    this.#endWord();
    if ((pending === "-" && character === "-") || (pending === "/" && character === "*")) {
      this.#mode = character === "-" ? "line comment" : "block comment";
      return undefined;
    }
    this.#flushPending(pending);
    if (SPACE.test(character)) return undefined;
    if (character === "-" || character === "/") {
      this.#pending = character;
      return undefined;
    }
    if (character === ";") return this.#endStatement();
    this.#markStart(this.#at);
    this.#mode = QUOTES.get(character) ?? "code";
    this.#step("other");
    return undefined;
  }

  /** The character before was an operator after all. */
  #flushPending(pending: string): void {
    if (pending === "") return;
    this.#markStart(this.#at - 1);
    this.#step("other");
  }

  #endWord(): void {
    if (this.#word === "") return;
    this.#step(WORDS.get(this.#word.toLowerCase()) ?? "other");
    this.#word = "";
  }

  #endStatement(): string | undefined {
    const inTrigger = this.#place === "trigger" || this.#place === "trigger semicolon";
    if (inTrigger) {
      this.#step("semicolon");
      return undefined;
    }
    const statement = this.#start < 0 ? undefined : this.#text.slice(this.#start, this.#at).trimEnd();
    this.#begin();
    return statement;
  }

  #begin(): void {
    this.#start = -1;
    this.#place = "start";
    this.#word = "";
  }

  #markStart(at: number): void {
    if (this.#start < 0) this.#start = at;
  }

  #step(token: Token): void {
    this.#place = nextPlace(this.#place, token);
  }

  /** Keeps only what is not done; in the middle of a comment before a statement, nothing. */
  #forgetDone(): void {
    const keepFrom = this.#start >= 0 ? this.#start : this.#text.length - this.#pending.length;
    if (keepFrom === 0) return;
    this.#text = this.#text.slice(keepFrom);
    this.#at -= keepFrom;
    if (this.#start >= 0) this.#start = 0;
  }
}

function nextPlace(place: Place, token: Token): Place {
  switch (place) {
    case "start":
      return token === "create" ? "create" : token === "explain" ? "explain" : "normal";
    case "normal":
      return "normal";
    case "explain":
      return token === "create" ? "create" : token === "other" ? "explain" : "normal";
    case "create":
      return token === "trigger" ? "trigger" : token === "temp" ? "create" : "normal";
    case "trigger":
      return token === "semicolon" ? "trigger semicolon" : "trigger";
    case "trigger semicolon":
      return token === "semicolon" ? place : token === "end" ? "trigger end" : "trigger";
    case "trigger end":
      return "trigger";
  }
}

/** The statements of a whole text. */
export function splitSql(text: string): string[] {
  const splitter = new SqlSplitter();
  const statements = splitter.push(text);
  const last = splitter.finish();
  return last === undefined ? statements : [...statements, last];
}
