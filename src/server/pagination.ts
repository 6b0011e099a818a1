/** Pages of lists: a cursor says where the last one ended, and means nothing else to a client. */
import { kimberliteError } from "../errors.ts";
import type { Page } from "./operation.ts";

/** The id that a page ended with. @throws `invalid_argument` for what is no cursor */
export function parseCursor(cursor: string): string {
  const id = Buffer.from(cursor, "base64url").toString("latin1");
  if (/^[\w.:-]{1,40}$/.test(id) && toCursor(id) === cursor) return id;
  throw kimberliteError("invalid_argument", "the cursor is not one of this list");
}

/** First offset of the page that a cursor leads to, of a list in the order of offsets. @throws `invalid_argument` */
export function parseOffsetCursor(cursor: string): bigint {
  const id = parseCursor(cursor);
  if (/^\d{1,19}$/.test(id)) return BigInt(id) + 1n;
  throw kimberliteError("invalid_argument", "the cursor is not one of this list");
}

/** The cursor of what comes after that id. */
export function toCursor(id: string): string {
  return Buffer.from(id, "latin1").toString("base64url");
}

/** The first `limit` of the items, and where to go on if there are more. */
export function toPage<T>(
  items: readonly T[],
  limit: number,
  idOf: (item: T) => string | number | bigint,
): Page<T> {
  const page = items.slice(0, limit);
  const last = page.at(-1);
  if (items.length <= limit || last === undefined) return { items: page };
  return { items: page, next: toCursor(String(idOf(last))) };
}

/** `Link` (RFC 8288) to the next page: the same address with another cursor. */
export function nextLink(url: string, next: string): string {
  const [path, query] = url.split("?", 2);
  const params = new URLSearchParams(query);
  params.set("cursor", next);
  return `<${path}?${params.toString()}>; rel="next"`;
}
