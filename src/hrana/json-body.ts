/**
 * A request's body as JSON (RFC 8259), more strictly than `JSON.parse`: UTF-8 or refused, no key twice, no nesting past a
 * limit, no key that would reach an object's prototype.
 *
 * The text is looked through once, without recursion, whatever its nesting.
 */
import { kimberliteError } from "../errors.ts";

const MAX_DEPTH = 32;
const POISONED = new Set(["__proto__", "constructor", "prototype"]);
const TOKENS = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\]:]/gs;
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
  for (const [token] of text.matchAll(TOKENS)) {
    if (token === "{" || token === "[") depth += 1;
    else if (token === "}" || token === "]") depth -= 1;
    if (depth > MAX_DEPTH) throw invalid(`the body is nested deeper than ${MAX_DEPTH}`);
  }
}

/** Of a text that is JSON: a string before a colon is a key. */
function requireOwnKeys(text: string): void {
  const open: (Set<string> | undefined)[] = [];
  let last = "";
  for (const [token] of text.matchAll(TOKENS)) {
    if (token === "{") open.push(new Set());
    else if (token === "[") open.push(undefined);
    else if (token === "}" || token === "]") open.pop();
    else if (token === ":") requireNewKey(JSON.parse(last) as string, open.at(-1));
    last = token;
  }
}

function requireNewKey(key: string, seen: Set<string> | undefined): void {
  if (POISONED.has(key)) throw invalid("the body has a key that no object may have");
  if (seen?.has(key) === true) throw invalid("the body has a key twice");
  seen?.add(key);
}

function invalid(message: string): Error {
  return kimberliteError("invalid_argument", message);
}
