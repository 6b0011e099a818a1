/**
 * The cursors of one WebSocket: opened on a stream, fetched in answers of bounded size, closed.
 *
 * Kept: while a cursor is open, nothing else is asked of its stream; fetches of one are answered one after another, for
 * clients ask ahead; one that is closed has let go of everything.
 */
import { kimberliteError } from "../errors.ts";
import { invalid } from "./limits.ts";
import type { CursorEntry, SocketResponse } from "./protocol.ts";
import type { SqlStream } from "./sql-stream.ts";

export interface OpenStream {
  /** Undefined if it failed to open: its number is taken all the same. */
  readonly stream: SqlStream | undefined;
  /** Resolves when what was asked of it so far is done. */
  last: Promise<unknown>;
  /** No request is let in while a cursor is open. */
  cursors: number;
}

interface OpenCursor {
  readonly entries: AsyncGenerator<CursorEntry, void> | undefined;
  readonly owner: OpenStream | undefined;
  readonly close: () => void;
  done: boolean;
  last: Promise<unknown>;
}

const MAX_ENTRIES = 1_000;
const MAX_ENTRY_BYTES = 256 * 1024;

export class SocketCursors {
  readonly #limit: number;
  readonly #cursors: Map<number, OpenCursor> = new Map();

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** @param run begins the batch once `before` is over; nothing runs before the first fetch */
  open(
    cursorId: number,
    owner: OpenStream | undefined,
    run: (before: Promise<unknown>) => AsyncGenerator<CursorEntry, void>,
  ): SocketResponse {
    if (this.#cursors.has(cursorId)) throw invalid("the number of the cursor is in use");
    if (this.#cursors.size >= this.#limit) {
      throw kimberliteError("overloaded", "too many cursors are open on the connection", {
        detail: { limit: this.#limit },
      });
    }
    if (owner === undefined) {
      const close = (): void => undefined;
      this.#cursors.set(cursorId, { entries: undefined, owner, close, done: true, last: Promise.resolve() });
      throw invalid("no stream of this number is open");
    }
    const closed = Promise.withResolvers<void>();
    // What is asked of the stream next waits until the cursor is closed.
    owner.cursors += 1;
    const before = owner.last;
    owner.last = before.then(() => closed.promise);
    const cursor: OpenCursor = {
      entries: run(before),
      owner,
      done: false,
      last: Promise.resolve(),
      close: () => {
        if (!cursor.done) owner.cursors -= 1;
        cursor.done = true;
        void cursor.entries?.return().finally(() => closed.resolve());
      },
    };
    this.#cursors.set(cursorId, cursor);
    return { type: "open_cursor" };
  }

  /** @param inTurn runs the fetch when it may */
  async fetch(
    { cursorId, maxCount }: { readonly cursorId: number; readonly maxCount: number },
    inTurn: (work: () => Promise<SocketResponse>) => Promise<SocketResponse>,
  ): Promise<SocketResponse> {
    const cursor = this.#cursors.get(cursorId);
    if (cursor === undefined) throw invalid("no cursor of this number is open");
    const { entries } = cursor;
    if (entries === undefined) throw invalid("the cursor did not open");
    const fetched = cursor.last.then(() => inTurn(() => takeEntries(entries, maxCount)));
    cursor.last = fetched.catch(() => undefined);
    return fetched;
  }

  close(cursorId: number): SocketResponse {
    const cursor = this.#cursors.get(cursorId);
    this.#cursors.delete(cursorId);
    cursor?.close();
    return { type: "close_cursor" };
  }

  /** Their numbers stay taken until they are closed by number. */
  closeOf(owner: OpenStream): void {
    for (const cursor of this.#cursors.values()) if (cursor.owner === owner) cursor.close();
  }

  closeAll(): void {
    for (const cursor of this.#cursors.values()) cursor.close();
  }
}

/** As many as are wanted, or fit one answer. */
async function takeEntries(
  entries: AsyncGenerator<CursorEntry, void>,
  maxCount: number,
): Promise<SocketResponse> {
  const taken: CursorEntry[] = [];
  let bytes = 0;
  const most = Math.min(maxCount, MAX_ENTRIES);
  while (taken.length < most && bytes < MAX_ENTRY_BYTES) {
    const next = await entries.next();
    if (next.done === true) return { type: "fetch_cursor", entries: taken, done: true };
    taken.push(next.value);
    if (next.value.type === "row") bytes += rowBytes(next.value.row);
  }
  return { type: "fetch_cursor", entries: taken, done: false };
}

function rowBytes(row: readonly unknown[]): number {
  let bytes = 0;
  for (const value of row) {
    bytes += typeof value === "string" || value instanceof Uint8Array ? value.length : 8;
  }
  return bytes;
}
