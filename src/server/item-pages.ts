/** Pages of a stream: bounded in items and in bytes, so that none is held at length whatever its events are. */
import type { JsonValue } from "./json-value.ts";
import type { Page } from "./operation.ts";
import { parseOffsetCursor, toCursor } from "./pagination.ts";

export type Item = JsonValue & { readonly offset: string };

const PAGE_BYTES = 4 * 2 ** 20;

/** First offset that a query asks for. @throws `invalid_argument` */
export function firstOf({ cursor, from }: { readonly cursor?: string; readonly from?: string }): bigint {
  return cursor === undefined ? BigInt(from ?? 0n) : parseOffsetCursor(cursor);
}

/** Items as they leave, one at a time. */
export async function* toItems<T>(
  items: AsyncIterable<T>,
  toJson: (item: T) => JsonValue,
): AsyncGenerator<Item, void> {
  for await (const item of items) yield toJson(item) as Item;
}

/** As many as are wanted and fit, and the first whatever its size; more than that is not read. */
export async function pageOf(items: AsyncIterable<Item>, limit = 100): Promise<Page<Item>> {
  const page: Item[] = [];
  let bytes = 0;
  for await (const item of items) {
    const last = page.at(-1);
    if (last !== undefined && (page.length === limit || bytes > PAGE_BYTES)) {
      return { items: page, next: toCursor(last.offset) };
    }
    page.push(item);
    bytes += JSON.stringify(item).length;
  }
  return { items: page };
}
