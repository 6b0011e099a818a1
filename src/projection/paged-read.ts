/**
 * A statement that is read in pages, as they are asked for: between two of them it stands still.
 *
 * Kept: the rows of one page are all that is held; the deadline counts the time that SQLite worked, not the time that the
 * client took; the limits of a result hold over all pages together. For a connection in a snapshot that nothing else uses.
 */
import type { Guard } from "./guard.ts";
import { fromSqlite } from "./sqlite-error.ts";
import { type ResultLimits, requireWithin, resultBytes, type SqlValue } from "./values.ts";

export interface Page {
  readonly rows: SqlValue[][];
  /** True if there are no more. */
  readonly done: boolean;
}

export interface PagedParts {
  readonly guard: Guard;
  readonly rows: Iterator<SqlValue[]>;
  readonly limits: ResultLimits;
  readonly timeLimitMs: number;
}

export class PagedRead {
  readonly #parts: PagedParts;
  #leftMs: number;
  #count = 0;
  #bytes = 0;

  constructor(parts: PagedParts) {
    this.#parts = parts;
    this.#leftMs = parts.timeLimitMs;
  }

  /** @throws `statement_timeout`, `result_too_large`, and what SQLite fails with in the middle */
  next(maxBytes: number, mostMs: number): Page {
    const { guard, rows, limits } = this.#parts;
    const startedMs = performance.now();
    guard.enter("read", Math.max(1, Math.min(this.#leftMs, mostMs)));
    let page: Page;
    try {
      page = takePage(rows, maxBytes);
    } catch (error) {
      throw fromSqlite(error, guard, guard.leave());
    }
    guard.leave();
    this.#leftMs -= performance.now() - startedMs;
    this.#count += page.rows.length;
    this.#bytes += resultBytes(page.rows);
    requireWithin({ rows: this.#count, bytes: this.#bytes }, limits);
    return page;
  }

  close(): void {
    this.#parts.rows.return?.();
  }
}

function takePage(rows: Iterator<SqlValue[]>, maxBytes: number): Page {
  const taken: SqlValue[][] = [];
  let bytes = 0;
  while (bytes < maxBytes) {
    const next = rows.next();
    if (next.done === true) return { rows: taken, done: true };
    taken.push(next.value);
    bytes += resultBytes([next.value]) + ROW_BYTES;
  }
  return { rows: taken, done: false };
}

/** What a row takes besides its values. */
const ROW_BYTES = 64;
