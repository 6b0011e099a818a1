/**
 * One WebSocket that speaks Hrana: a hello, then requests on streams, cursors and stored texts, answered as they end.
 *
 * Kept: nothing runs before the hello was accepted; requests of one stream run in order; the credential is asked again
 * before each request. Bounded: streams, cursors, texts, requests that run and that wait. A client that does not take its
 * answers is read from no more, and is cut off when too much waits for it. When the connection ends, what it held is
 * rolled back.
 */
import type { TenantPrincipal } from "../auth/principal.ts";
import { kimberliteError } from "../errors.ts";
import { toHranaError } from "./hrana-error.ts";
import { type HranaLimits, invalid } from "./limits.ts";
import type {
  ClientMessage,
  CursorEntry,
  Encoding,
  ServerMessage,
  SocketRequest,
  SocketResponse,
} from "./protocol.ts";
import { SqlStore } from "./sql-store.ts";
import type { SqlStream } from "./sql-stream.ts";

/** What a connection needs of its WebSocket. */
export interface SocketPort {
  send(data: string | Uint8Array): void;
  /** Bytes that were sent and not taken yet. */
  unreadBytes(): number;
  pause(): void;
  resume(): void;
  /** Says why and closes; what still comes is ignored. */
  close(code: number, reason: string): void;
}

export interface ConnectionParts {
  readonly socket: SocketPort;
  readonly encoding: Encoding;
  readonly limits: HranaLimits;
  readonly maxUnreadBytes: number;
  /** @throws as authentication does */
  readonly authenticate: (jwt: string | undefined) => Promise<TenantPrincipal>;
  /** @throws `unauthenticated` */
  readonly recheck: (principal: TenantPrincipal) => void;
  readonly openStream: (principal: TenantPrincipal, store: SqlStore) => SqlStream;
}

interface OpenStream {
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
  /** Fetches are answered one after another, for clients ask ahead. */
  last: Promise<unknown>;
}

/** RFC 6455 §7.4.1 */
export const CLOSE = {
  goingAway: 1001,
  protocol: 1002,
  unsupported: 1003,
  policy: 1008,
  restart: 1012,
} as const;

const MAX_ENTRIES = 1_000;
const MAX_ENTRY_BYTES = 256 * 1024;

export class SocketConnection {
  readonly #parts: ConnectionParts;
  readonly #store: SqlStore;
  readonly #streams: Map<number, OpenStream> = new Map();
  readonly #cursors: Map<number, OpenCursor> = new Map();
  #principal: Promise<TenantPrincipal> | undefined;
  #outstanding = 0;
  #running = 0;
  readonly #turns: (() => void)[] = [];
  #ended = false;

  constructor(parts: ConnectionParts) {
    this.#parts = parts;
    this.#store = new SqlStore(parts.limits);
  }

  /** True once a hello came. */
  get greeted(): boolean {
    return this.#principal !== undefined;
  }

  /** Takes one message. What breaks the protocol closes the connection. */
  receive(data: Uint8Array): void {
    if (this.#ended) return;
    let message: ClientMessage;
    try {
      message = this.#parts.encoding.readMessage(data);
    } catch (error) {
      return this.#refuse(CLOSE.protocol, toHranaError(error).message);
    }
    if (message.type === "hello") return void this.#greet(message.jwt);
    if (this.#principal === undefined) return this.#refuse(CLOSE.protocol, "a hello comes first");
    void this.#answer(message.requestId, message.request, this.#principal);
  }

  /** Rolls back what is open. Idempotent. */
  async end(): Promise<void> {
    this.#ended = true;
    for (const turn of this.#turns.splice(0)) turn();
    for (const cursor of this.#cursors.values()) cursor.close();
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    await Promise.all(streams.map(async ({ stream }) => stream?.close()));
  }

  async #greet(jwt: string | undefined): Promise<void> {
    const before = this.#principal;
    const principal = this.#authenticate(jwt, before);
    this.#principal = principal;
    try {
      await principal;
      this.#send({ type: "hello_ok" });
    } catch (error) {
      this.#send({ type: "hello_error", error: toHranaError(error) });
      this.#refuse(CLOSE.policy, "the hello was refused");
    }
  }

  /** A later hello may bring a newer credential, of the same tenant. */
  async #authenticate(
    jwt: string | undefined,
    before: Promise<TenantPrincipal> | undefined,
  ): Promise<TenantPrincipal> {
    const principal = await this.#parts.authenticate(jwt);
    const former = await before;
    const same =
      former === undefined ||
      (former.tenant === principal.tenant &&
        former.role === principal.role &&
        former.grant === principal.grant);
    if (same) return principal;
    throw kimberliteError("not_authorized", "another tenant or role takes another connection");
  }

  async #answer(
    requestId: number,
    request: SocketRequest,
    greeting: Promise<TenantPrincipal>,
  ): Promise<void> {
    this.#outstanding += 1;
    if (this.#outstanding === this.#parts.limits.maxOutstanding) this.#parts.socket.pause();
    let answer: ServerMessage;
    try {
      answer = { type: "response_ok", requestId, response: await this.#handle(request, greeting) };
    } catch (error) {
      answer = { type: "response_error", requestId, error: toHranaError(error) };
    }
    try {
      // Nothing goes out before the hello was answered; after a refusal nothing at all.
      await greeting;
      this.#send(answer);
    } catch {
      // The refusal was told where the hello is answered.
    } finally {
      this.#outstanding -= 1;
      if (this.#outstanding < this.#parts.limits.maxOutstanding) this.#parts.socket.resume();
    }
  }

  /** What changes who is open is done as it comes; what runs waits for its stream. */
  #handle(request: SocketRequest, greeting: Promise<TenantPrincipal>): Promise<SocketResponse> {
    switch (request.type) {
      case "open_stream":
        return this.#openStream(request.streamId, greeting);
      case "close_stream":
        return this.#closeStream(request.streamId);
      case "open_cursor":
        return this.#openCursor(request, greeting);
      case "close_cursor":
        return this.#closeCursor(request.cursorId);
      case "fetch_cursor":
        return this.#fetch(request, greeting);
      case "on_connection":
        return this.#onStore(request.request);
      case "on_stream": {
        const open = this.#streamOf(request.streamId);
        if (open.cursors > 0) return Promise.reject(invalid("a cursor is open on the stream"));
        return this.#inTurn(open, greeting, async (stream) => stream.answer(request.request));
      }
    }
  }

  async #onStore(
    request: Extract<SocketRequest, { type: "on_connection" }>["request"],
  ): Promise<SocketResponse> {
    if (request.type === "store_sql") this.#store.store(request.sqlId, request.sql);
    else this.#store.close(request.sqlId);
    return { type: request.type };
  }

  async #openStream(id: number, greeting: Promise<TenantPrincipal>): Promise<SocketResponse> {
    if (this.#streams.has(id)) throw invalid("the number of the stream is in use");
    if (this.#streams.size >= this.#parts.limits.maxStreamsPerConnection) {
      throw kimberliteError("overloaded", "too many streams are open on the connection", {
        detail: { limit: this.#parts.limits.maxStreamsPerConnection },
      });
    }
    const opening = Promise.withResolvers<SqlStream | undefined>();
    const entry: OpenStream = { stream: undefined, last: opening.promise, cursors: 0 };
    this.#streams.set(id, entry);
    try {
      const principal = await greeting;
      if (this.#ended) throw kimberliteError("closed", "the connection is closed");
      const stream = this.#parts.openStream(principal, this.#store);
      if (this.#streams.get(id) === entry) Object.assign(entry, { stream });
      opening.resolve(stream);
      return { type: "open_stream" };
    } catch (error) {
      opening.resolve(undefined);
      throw error;
    }
  }

  async #closeStream(id: number): Promise<SocketResponse> {
    const open = this.#streams.get(id);
    if (open !== undefined) {
      for (const cursor of this.#cursors.values()) if (cursor.owner === open) cursor.close();
      await open.last.catch(() => undefined);
      await open.stream?.close();
      if (this.#streams.get(id) === open) this.#streams.delete(id);
    }
    return { type: "close_stream" };
  }

  #streamOf(id: number): OpenStream {
    const open = this.#streams.get(id);
    if (open === undefined) throw invalid("no stream of this number is open");
    return open;
  }

  /** After all that was asked of the stream before, when few enough others run and the client takes its answers. */
  #inTurn<T>(
    open: OpenStream,
    greeting: Promise<TenantPrincipal>,
    work: (stream: SqlStream) => Promise<T>,
  ): Promise<T> {
    const done = open.last.then(async () => {
      const principal = await greeting;
      await this.#turn();
      try {
        if (this.#ended) throw kimberliteError("closed", "the connection is closed");
        this.#recheck(principal);
        if (open.stream === undefined) throw invalid("the stream did not open");
        return await work(open.stream);
      } finally {
        this.#endTurn();
      }
    });
    open.last = done.catch(() => undefined);
    return done;
  }

  async #turn(): Promise<void> {
    this.#running += 1;
    if (this.#running > this.#parts.limits.maxRunning && !this.#ended) {
      await new Promise<void>((resolve) => this.#turns.push(resolve));
    }
  }

  #endTurn(): void {
    this.#running -= 1;
    this.#turns.shift()?.();
  }

  #recheck(principal: TenantPrincipal): void {
    try {
      this.#parts.recheck(principal);
    } catch (error) {
      // The answer still goes out; then the connection ends.
      setImmediate(() => this.#refuse(CLOSE.policy, "the credential stands no more"));
      throw error;
    }
  }

  async #openCursor(
    request: Extract<SocketRequest, { type: "open_cursor" }>,
    greeting: Promise<TenantPrincipal>,
  ): Promise<SocketResponse> {
    const { streamId, cursorId, batch } = request;
    if (this.#cursors.has(cursorId)) throw invalid("the number of the cursor is in use");
    if (this.#cursors.size >= this.#parts.limits.maxStreamsPerConnection) {
      throw kimberliteError("overloaded", "too many cursors are open on the connection");
    }
    const owner = this.#streams.get(streamId);
    if (owner === undefined) {
      this.#cursors.set(cursorId, {
        entries: undefined,
        owner,
        close: () => undefined,
        done: true,
        last: Promise.resolve(),
      });
      throw invalid("no stream of this number is open");
    }
    const closed = Promise.withResolvers<void>();
    // What is asked of the stream next waits until the cursor is closed.
    owner.cursors += 1;
    const before = owner.last;
    owner.last = before.then(() => closed.promise);
    const cursor: OpenCursor = {
      entries: this.#entries(owner, { batch, before, greeting }),
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

  async *#entries(
    owner: OpenStream,
    run: {
      readonly batch: Extract<SocketRequest, { type: "open_cursor" }>["batch"];
      readonly before: Promise<unknown>;
      readonly greeting: Promise<TenantPrincipal>;
    },
  ): AsyncGenerator<CursorEntry, void> {
    await run.before;
    const principal = await run.greeting;
    this.#recheck(principal);
    if (owner.stream === undefined) throw invalid("the stream did not open");
    yield* owner.stream.entries(run.batch);
  }

  async #fetch(
    { cursorId, maxCount }: Extract<SocketRequest, { type: "fetch_cursor" }>,
    greeting: Promise<TenantPrincipal>,
  ): Promise<SocketResponse> {
    const cursor = this.#cursors.get(cursorId);
    if (cursor === undefined) throw invalid("no cursor of this number is open");
    if (cursor.entries === undefined) throw invalid("the cursor did not open");
    const { entries } = cursor;
    const fetched = cursor.last.then(async () => {
      this.#recheck(await greeting);
      return takeEntries(entries, maxCount);
    });
    cursor.last = fetched.catch(() => undefined);
    return fetched;
  }

  async #closeCursor(cursorId: number): Promise<SocketResponse> {
    const cursor = this.#cursors.get(cursorId);
    this.#cursors.delete(cursorId);
    cursor?.close();
    return { type: "close_cursor" };
  }

  #send(message: ServerMessage): void {
    if (this.#ended) return;
    const { socket, encoding, maxUnreadBytes } = this.#parts;
    socket.send(encoding.writeMessage(message));
    if (socket.unreadBytes() > maxUnreadBytes) this.#refuse(CLOSE.policy, "the client does not read");
  }

  #refuse(code: number, reason: string): void {
    if (this.#ended) return;
    this.#parts.socket.close(code, reason);
    void this.end();
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
