/**
 * The cursors of one WebSocket: opened on a stream, fetched in answers of bounded size, closed.
 *
 * Kept: while a cursor is open, nothing else is asked of its stream; fetches of one are answered one after another, for
 * clients ask ahead; one that is closed has let go of everything.
 */
import { kimberliteError } from "../errors.ts";
import { toHranaError } from "./hrana-error.ts";
import { invalid } from "./limits.ts";
import type { CursorEntry, SocketResponse } from "./protocol.ts";
import type { NoteFailure, SqlStream } from "./sql-stream.ts";

export interface OpenStream {
  /** Undefined if it failed to open: its number is taken all the same. */
  readonly stream: SqlStream | undefined;
  /** Resolves when what was asked of it so far is done. */
  last: Promise<unknown>;
  /** No request is let in while a cursor is open. */
  cursors: number;
}

interface OpenCursor {
  /** Undefined if it failed to open: its number is taken all the same. */
  readonly entries: AsyncGenerator<CursorEntry, void> | undefined;
  readonly owner: OpenStream | undefined;
  readonly close: () => void;
  closed: boolean;
  /** True once everything was taken. */
  finished: boolean;
  last: Promise<unknown>;
}

type Fetched = Extract<SocketResponse, { readonly type: "fetch_cursor" }>;

/** A fetch, and whom a failure of its batch is told beside the client. */
type Fetch = (work: (note: NoteFailure) => Promise<SocketResponse>) => Promise<SocketResponse>;

const MAX_ENTRIES = 1_000;
const MAX_ENTRY_BYTES = 256 * 1024;

export class SocketCursors {
  readonly #limit: number;
  readonly #cursors: Map<number, OpenCursor> = new Map();

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** @param prepare gives what runs the batch once `before` is over; nothing runs before the first fetch */
  async open(
    cursorId: number,
    owner: OpenStream | undefined,
    prepare: (owner: OpenStream) => (before: Promise<unknown>) => AsyncGenerator<CursorEntry, void>,
  ): Promise<SocketResponse> {
    if (this.#cursors.has(cursorId)) throw invalid("the number of the cursor is in use");
    if (this.#cursors.size >= this.#limit) {
      throw kimberliteError("overloaded", "too many cursors are open on the connection", {
        detail: { limit: this.#limit },
      });
    }
    this.#cursors.set(cursorId, failedCursor(owner));
    if (owner === undefined) throw invalid("no stream of this number is open");
    if (owner.cursors > 0) throw invalid("a cursor is open on the stream");
    const run = prepare(owner);
    const before = owner.last;
    const cursor = hold(owner, run(before));
    this.#cursors.set(cursorId, cursor);
    await before;
    if (owner.stream !== undefined) return { type: "open_cursor" };
    cursor.close();
    if (this.#cursors.get(cursorId) === cursor) this.#cursors.set(cursorId, failedCursor(owner));
    throw invalid("the stream did not open");
  }

  /** @param inTurn runs the fetch when it may */
  async fetch(
    { cursorId, maxCount }: { readonly cursorId: number; readonly maxCount: number },
    inTurn: Fetch,
  ): Promise<SocketResponse> {
    const cursor = this.#cursors.get(cursorId);
    if (cursor === undefined) throw invalid("no cursor of this number is open");
    const { entries } = cursor;
    if (entries === undefined) throw invalid("the cursor did not open");
    const fetched = cursor.last.then(() =>
      inTurn(async (note) => {
        const answer = await takeEntries(entries, maxCount, note);
        // One that was closed meanwhile has ended without having given everything. Clients ask on past the end.
        if (cursor.closed && !cursor.finished) throw invalid("the cursor is closed");
        cursor.finished = answer.done;
        return answer;
      }),
    );
    cursor.last = fetched.catch(() => undefined);
    return fetched;
  }

  close(cursorId: number): SocketResponse {
    const cursor = this.#cursors.get(cursorId);
    this.#cursors.delete(cursorId);
    cursor?.close();
    return { type: "close_cursor" };
  }

  /** Closes a stream's cursors together with it. */
  closeOf(owner: OpenStream): void {
    for (const [id, cursor] of this.#cursors) if (cursor.owner === owner) this.close(id);
  }

  closeAll(): void {
    for (const cursor of this.#cursors.values()) cursor.close();
  }
}

function failedCursor(owner: OpenStream | undefined): OpenCursor {
  return {
    entries: undefined,
    owner,
    close: () => undefined,
    closed: true,
    finished: false,
    last: Promise.resolve(),
  };
}

/** What is asked of the stream next waits until the cursor is closed. */
function hold(owner: OpenStream, entries: AsyncGenerator<CursorEntry, void>): OpenCursor {
  const closed = Promise.withResolvers<void>();
  owner.cursors += 1;
  owner.last = owner.last.then(() => closed.promise);
  const cursor: OpenCursor = {
    entries,
    owner,
    closed: false,
    finished: false,
    last: Promise.resolve(),
    close: () => {
      if (!cursor.closed) owner.cursors -= 1;
      cursor.closed = true;
      void entries.return().finally(() => closed.resolve());
    },
  };
  return cursor;
}

/** As many as are wanted, or fit one answer. A batch that fails as a whole ends with an entry that says why. */
async function takeEntries(
  entries: AsyncGenerator<CursorEntry, void>,
  maxCount: number,
  note: NoteFailure,
): Promise<Fetched> {
  const taken: CursorEntry[] = [];
  let bytes = 0;
  const most = Math.min(maxCount, MAX_ENTRIES);
  try {
    while (taken.length < most && bytes < MAX_ENTRY_BYTES) {
      const next = await entries.next();
      if (next.done === true) return { type: "fetch_cursor", entries: taken, done: true };
      taken.push(next.value);
      if (next.value.type === "row") bytes += rowBytes(next.value.row);
    }
  } catch (error) {
    note(error);
    taken.push({ type: "error", error: toHranaError(error) });
    return { type: "fetch_cursor", entries: taken, done: true };
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
