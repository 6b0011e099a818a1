/**
 * A request's body as JSON (RFC 8259), more strictly than `JSON.parse`: UTF-8 or refused, no key twice, no nesting past a
 * limit, no key that would reach an object's prototype, and not more parts than the main thread has time for.
 *
 * The text is looked through once, from left to right, whatever is in it: no pattern that looks back, for whoever sends
 * a text that never ends a string would hold up every tenant with it, also before it is known who that is.
 */
import { kimberliteError } from "../errors.ts";

const MAX_DEPTH = 32;
/** Objects, lists and keys: a value of a row is three. */
const MAX_PARTS = 500_000;
const POISONED = new Set(["__proto__", "constructor", "prototype"]);
/** Keys of one object that are compared one by one. */
const FEW_KEYS = 16;
const utf8 = new TextDecoder("utf-8", { fatal: true });

/** @throws `invalid_argument`, which says what is wrong and nothing of what was sent */
export function parseJsonBody(bytes: Buffer): unknown {
  const text = decode(bytes);
  new Scan(text).all();
  try {
    return JSON.parse(text);
  } catch {
    // The parser's own message quotes the text.
    throw notJson();
  }
}

function decode(bytes: Buffer): string {
  try {
    return utf8.decode(bytes);
  } catch {
    throw invalid("the body is not UTF-8");
  }
}

/** One pass over a text that may be JSON; where it is none, `JSON.parse` says so. */
class Scan {
  readonly #text: string;
  #parts = 0;
  /** Of each object or list that is open, where its keys begin in `#keys`. */
  readonly #firstKeys: number[] = [];
  readonly #keys: string[] = [];
  /** By depth: all keys of an object that has many. */
  readonly #many: Map<number, Set<string>> = new Map();
  /** The last string that ended: the key, if a colon comes next. */
  #stringFrom = 0;
  #stringTo = 0;

  constructor(text: string) {
    this.#text = text;
  }

  all(): void {
    const text = this.#text;
    for (let at = 0; at < text.length; at += 1) {
      switch (text.charCodeAt(at)) {
        case 0x22: // "
          at = this.#passString(at);
          break;
        case 0x7b: // {
        case 0x5b: // [
          this.#open();
          break;
        case 0x7d: // }
        case 0x5d: // ]
          this.#close();
          break;
        case 0x3a: // :
          this.#takeKey();
      }
    }
  }

  /** @returns where the string that begins at `at` ends, or the text does */
  #passString(at: number): number {
    const text = this.#text;
    let end = text.indexOf('"', at + 1);
    while (end > 0 && isEscaped(text, end, at)) end = text.indexOf('"', end + 1);
    if (end < 0) throw notJson();
    this.#stringFrom = at;
    this.#stringTo = end + 1;
    return end;
  }

  #open(): void {
    this.#takePart();
    this.#firstKeys.push(this.#keys.length);
    if (this.#firstKeys.length > MAX_DEPTH) throw invalid(`the body is nested deeper than ${MAX_DEPTH}`);
  }

  #close(): void {
    if (this.#many.size > 0) this.#many.delete(this.#firstKeys.length);
    const firstKey = this.#firstKeys.pop();
    if (firstKey !== undefined) this.#keys.length = firstKey;
  }

  #takeKey(): void {
    const depth = this.#firstKeys.length;
    if (depth === 0) throw notJson();
    this.#takePart();
    const key = keyOf(this.#text.slice(this.#stringFrom, this.#stringTo));
    if (POISONED.has(key)) throw invalid("the body has a key that no object may have");
    const firstKey = this.#firstKeys[depth - 1] as number;
    const many = this.#many.get(depth);
    const isTaken = many === undefined ? this.#keys.includes(key, firstKey) : many.has(key);
    if (isTaken) throw invalid("the body has a key twice");
    if (many !== undefined) many.add(key);
    else if (this.#keys.push(key) - firstKey > FEW_KEYS)
      this.#many.set(depth, new Set(this.#keys.slice(firstKey)));
  }

  #takePart(): void {
    this.#parts += 1;
    if (this.#parts > MAX_PARTS) throw invalid(`the body has more than ${MAX_PARTS} objects, lists and keys`);
  }
}

/** Whether the quote at `end` belongs to the string that begins at `start`: behind an odd number of backslashes. */
function isEscaped(text: string, end: number, start: number): boolean {
  let at = end - 1;
  while (at > start && text.charCodeAt(at) === 0x5c) at -= 1;
  return (end - at) % 2 === 0;
}

function keyOf(written: string): string {
  if (!written.includes("\\")) return written.slice(1, -1);
  try {
    return JSON.parse(written) as string;
  } catch {
    throw notJson();
  }
}

function notJson(): Error {
  return invalid("the body is not JSON");
}

function invalid(message: string): Error {
  return kimberliteError("invalid_argument", message);
}
