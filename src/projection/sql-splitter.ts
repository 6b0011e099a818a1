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
const WORD_CHARACTER = /[\w$\u0080-\ufefe\uff00-\uffff]/;
const SPACE = /[ \t\r\n\f\v\ufeff]/;

export class SqlSplitter {
  /** What earlier pieces hold of the statement. */
  #earlier: string[] = [];
  #piece = "";
  #at = 0;
  /** True once the statement's first token was seen; `#from` is where its part of this piece begins. */
  #started = false;
  #from = 0;
  #mode: Mode = "code";
  #place: Place = "start";
  #word = "";
  /** The last character, when it may begin a comment or end one. */
  #pending = "";

  /** Takes more text. @returns the statements that it completed, without their semicolons and leading comments */
  push(text: string): string[] {
    this.#piece = text;
    this.#from = 0;
    const done: string[] = [];
    for (this.#at = 0; this.#at < text.length; this.#at += 1) {
      const statement = this.#look(text[this.#at] as string);
      if (statement !== undefined) done.push(statement);
    }
    if (this.#started) this.#earlier.push(text.slice(this.#from));
    return done;
  }

  /** Takes the end of the text. @returns the last statement, if it had no semicolon */
  finish(): string | undefined {
    const operator = this.#mode === "code" && !this.#started ? this.#pending : "";
    const rest = this.#earlier.join("") + operator;
    this.reset();
    return rest === "" ? undefined : rest.trimEnd();
  }

  /** Forgets an unfinished statement. */
  reset(): void {
    this.#mode = "code";
    this.#pending = "";
    this.#begin();
  }

  /** True between statements: what comes next begins one. */
  get idle(): boolean {
    return !this.#started && this.#mode === "code" && this.#pending === "";
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
    if (this.#at === 0 && !this.#started) this.#earlier.push(pending);
    this.#markStart(Math.max(this.#at - 1, 0));
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
    const text = this.#started ? this.#earlier.join("") + this.#piece.slice(this.#from, this.#at) : undefined;
    this.#begin();
    return text?.trimEnd();
  }

  #begin(): void {
    this.#earlier = [];
    this.#started = false;
    this.#place = "start";
    this.#word = "";
  }

  #markStart(at: number): void {
    if (this.#started) return;
    this.#started = true;
    this.#from = at;
  }

  #step(token: Token): void {
    this.#place = nextPlace(this.#place, token);
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
