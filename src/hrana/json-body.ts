/**
 * A request's body as JSON (RFC 8259), more strictly than `JSON.parse`: UTF-8 or refused, no key twice, no nesting past a
 * limit, no key that would reach an object's prototype.
 *
 * The text is looked through without recursion, whatever its nesting, and in time that grows with its length alone. *Not*
 * by a regular expression: one that meets a string without an end tries anew from each quote within it, and 80 KB held the
 * node up for half a minute.
 */
import { kimberliteError } from "../errors.ts";

const MAX_DEPTH = 32;
const POISONED = new Set(["__proto__", "constructor", "prototype"]);
const [QUOTE, BACKSLASH, COLON] = [0x22, 0x5c, 0x3a];
const [OPEN_OBJECT, CLOSE_OBJECT, OPEN_ARRAY, CLOSE_ARRAY] = [0x7b, 0x7d, 0x5b, 0x5d];
const utf8 = new TextDecoder("utf-8", { fatal: true });

/** @throws `invalid_argument`, which says what is wrong and nothing of what was sent */
export function parseJsonBody(bytes: Buffer): unknown {
  const text = decode(bytes);
  let value: unknown;
  requireShallow(text);
  try {
    value = JSON.parse(text);
  } catch {
    // The parser's own message quotes the text.
    throw invalid("the body is not JSON");
  }
  requireOwnKeys(text);
  return value;
}

function decode(bytes: Buffer): string {
  try {
    return utf8.decode(bytes);
  } catch {
    throw invalid("the body is not UTF-8");
  }
}

function requireShallow(text: string): void {
  let depth = 0;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) at = endOfString(text, at);
    else if (code === OPEN_OBJECT || code === OPEN_ARRAY) depth += 1;
    else if (code === CLOSE_OBJECT || code === CLOSE_ARRAY) depth -= 1;
    if (depth > MAX_DEPTH) throw invalid(`the body is nested deeper than ${MAX_DEPTH}`);
  }
}

/** Of a text that is JSON: a string before a colon is a key. */
function requireOwnKeys(text: string): void {
  const open: (Set<string> | undefined)[] = [];
  let [start, end] = [0, 0];
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) {
      start = at;
      end = endOfString(text, at);
      at = end;
    } else if (code === OPEN_OBJECT) open.push(new Set());
    else if (code === OPEN_ARRAY) open.push(undefined);
    else if (code === CLOSE_OBJECT || code === CLOSE_ARRAY) open.pop();
    else if (code === COLON) requireNewKey(JSON.parse(text.slice(start, end + 1)) as string, open.at(-1));
  }
}

/** Where the string that begins at `open` has its closing quote; the text's length if it has none. */
function endOfString(text: string, open: number): number {
  for (let at = text.indexOf('"', open + 1); at !== -1; at = text.indexOf('"', at + 1)) {
    let before = at - 1;
    while (text.charCodeAt(before) === BACKSLASH) before -= 1;
    if ((at - before) % 2 === 1) return at;
  }
  return text.length;
}

function requireNewKey(key: string, seen: Set<string> | undefined): void {
  if (POISONED.has(key)) throw invalid("the body has a key that no object may have");
  if (seen?.has(key) === true) throw invalid("the body has a key twice");
  seen?.add(key);
}

function invalid(message: string): Error {
  return kimberliteError("invalid_argument", message);
}
