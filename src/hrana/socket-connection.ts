/**
 * One WebSocket that speaks Hrana: a hello, then requests on streams, cursors and stored texts, answered as they end.
 *
 * Kept: nothing runs before the hello was accepted, and nothing more is read while it is looked at; requests of one stream
 * run in order; the credential is asked again before each statement, before each answer leaves, and by the clock.
 * Bounded: streams, cursors, texts, requests that run and that wait, and their bytes. A client that does not take its
 * answers is read from no more, and is cut off when too much waits for it. When the connection ends, what it held is
 * rolled back.
 */
import type { TenantPrincipal } from "../auth/principal.ts";
import { kimberliteError } from "../errors.ts";
import { toHranaError, toKnown } from "./hrana-error.ts";
import { Intake } from "./intake.ts";
import { type HranaLimits, invalid } from "./limits.ts";
import type {
  ClientMessage,
  CursorEntry,
  Encoding,
  HranaBatch,
  ServerMessage,
  SocketRequest,
  SocketResponse,
} from "./protocol.ts";
import { resolveBatch, resolveRequest } from "./references.ts";
import { type OpenStream, SocketCursors } from "./socket-cursors.ts";
import { SqlStore } from "./sql-store.ts";
import type { NoteFailure, SqlStream } from "./sql-stream.ts";

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

/** How a request ended. */
export interface Ended {
  readonly principal: TenantPrincipal | undefined;
  readonly error: unknown;
}

export interface ConnectionParts {
  readonly socket: SocketPort;
  readonly encoding: Encoding;
  readonly limits: HranaLimits;
  readonly maxUnreadBytes: number;
  /** Bytes of messages that wait for their answer; then nothing more is read. */
  readonly maxWaitingBytes: number;
  /** @throws as authentication does */
  readonly authenticate: (jwt: string | undefined) => Promise<TenantPrincipal>;
  /** @throws `unauthenticated` */
  readonly recheck: (principal: TenantPrincipal) => void;
  /** @throws `overloaded` while the node takes no more work */
  readonly admit: () => void;
  /** @param stands throws once the credential of the connection stands no more */
  readonly openStream: (principal: TenantPrincipal, store: SqlStore, stands: () => void) => SqlStream;
  /** Told that a request began, and by the returned function how it ended. */
  readonly begin: (name: string) => (ended: Ended) => void;
  readonly noteFailure: (principal: TenantPrincipal, error: unknown) => void;
}

/** RFC 6455 §7.4.1 */
export const CLOSE = {
  goingAway: 1001,
  protocol: 1002,
  unsupported: 1003,
  policy: 1008,
  restart: 1012,
} as const;

export class SocketConnection {
  readonly #parts: ConnectionParts;
  readonly #store: SqlStore;
  readonly #streams: Map<number, OpenStream> = new Map();
  readonly #cursors: SocketCursors;
  readonly #intake: Intake;
  #principal: Promise<TenantPrincipal> | undefined;
  /** The one whose hello was accepted last. */
  #accepted: TenantPrincipal | undefined;
  #ended = false;

  constructor(parts: ConnectionParts) {
    this.#parts = parts;
    const { limits, maxWaitingBytes, socket } = parts;
    const { maxOutstanding, maxRunning, maxStreamsPerConnection } = limits;
    this.#store = new SqlStore(limits);
    this.#cursors = new SocketCursors(maxStreamsPerConnection);
    this.#intake = new Intake({ maxRequests: maxOutstanding, maxBytes: maxWaitingBytes, maxRunning }, socket);
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
      return this.refuse(CLOSE.protocol, toHranaError(error).message);
    }
    if (message.type === "hello") return void this.#greet(message.jwt, data.length);
    if (this.#principal === undefined) return this.refuse(CLOSE.protocol, "a hello comes first");
    void this.#answer(message, data.length, this.#principal);
  }

  /** Closes the connection if its credential stands no more. */
  look(): void {
    const principal = this.#accepted;
    if (principal === undefined || this.#ended) return;
    try {
      this.#parts.recheck(principal);
    } catch {
      this.#refuseCredential();
    }
  }

  /** Answers what was taken, and nothing more; then says why and closes. */
  async finish(code: number, reason: string): Promise<void> {
    await this.#intake.hold(this.#intake.idle());
    this.refuse(code, reason);
  }

  /** Rolls back what is open. Idempotent. */
  async end(): Promise<void> {
    this.#ended = true;
    this.#intake.end();
    this.#cursors.closeAll();
    const streams = [...this.#streams.values()];
    this.#streams.clear();
    await Promise.all(streams.map(async ({ stream }) => stream?.close()));
  }

  async #greet(jwt: string | undefined, bytes: number): Promise<void> {
    const release = this.#intake.take(bytes);
    const ended = this.#parts.begin("hrana/hello");
    const principal = this.#intake.hold(this.#authenticate(jwt, this.#principal));
    this.#principal = principal;
    try {
      this.#accepted = await principal;
      ended({ principal: this.#accepted, error: undefined });
      this.#send({ type: "hello_ok" });
    } catch (error) {
      ended({ principal: undefined, error: toKnown(error) });
      this.#send({ type: "hello_error", error: toHranaError(error) });
      this.refuse(CLOSE.policy, "the hello was refused");
    } finally {
      release();
    }
  }

  /** A later hello may bring a newer credential, of the same tenant, actor and role. */
  async #authenticate(
    jwt: string | undefined,
    before: Promise<TenantPrincipal> | undefined,
  ): Promise<TenantPrincipal> {
    const former = await before;
    const principal = await this.#parts.authenticate(jwt);
    const same =
      former === undefined ||
      (former.tenant === principal.tenant &&
        former.actor === principal.actor &&
        former.role === principal.role &&
        former.grant === principal.grant);
    if (same) return principal;
    throw kimberliteError("not_authorized", "another tenant, actor or role takes another connection");
  }

  async #answer(
    message: Exclude<ClientMessage, { type: "hello" }>,
    bytes: number,
    greeting: Promise<TenantPrincipal>,
  ): Promise<void> {
    const release = this.#intake.take(bytes);
    const { requestId } = message;
    const ended = this.#parts.begin(nameOf(message));
    let answer: ServerMessage;
    let error: unknown;
    try {
      if (message.type === "refused") throw message.error;
      answer = { type: "response_ok", requestId, response: await this.#handle(message.request, greeting) };
    } catch (thrown) {
      error = toKnown(thrown);
      answer = { type: "response_error", requestId, error: toHranaError(thrown) };
    }
    try {
      // Nothing goes out before the hello was answered; after a refusal nothing at all.
      const principal = await greeting;
      ended({ principal, error });
      if (answer.type === "response_ok") this.look();
      this.#send(answer);
    } catch (refused) {
      // The refusal was told where the hello is answered.
      ended({ principal: undefined, error: toKnown(refused) });
    } finally {
      release();
    }
  }

  /** What changes who is open is done as it comes; what runs waits for its stream. */
  async #handle(request: SocketRequest, greeting: Promise<TenantPrincipal>): Promise<SocketResponse> {
    switch (request.type) {
      case "open_stream":
        return this.#openStream(request.streamId, greeting);
      case "close_stream":
        return this.#closeStream(request.streamId);
      case "open_cursor": {
        const { streamId, cursorId, batch } = request;
        return this.#cursors.open(cursorId, this.#streams.get(streamId), (owner) => {
          const resolved = resolveBatch(batch, this.#store);
          return (before) => this.#entries(owner, resolved, before);
        });
      }
      case "close_cursor":
        return this.#cursors.close(request.cursorId);
      case "fetch_cursor":
        return this.#cursors.fetch(request, (work) => this.#inTurn(greeting, work));
      case "on_connection":
        return this.#onStore(request.request);
      case "on_stream": {
        const open = this.#streamOf(request.streamId);
        if (open.cursors > 0) throw invalid("a cursor is open on the stream");
        // Now: the client may close a text as soon as it has asked for it.
        const asked = resolveRequest(request.request, this.#store);
        const done = open.last.then(() =>
          this.#inTurn(greeting, async (note) => {
            if (open.stream === undefined) throw invalid("the stream did not open");
            return open.stream.answer(asked, note);
          }),
        );
        open.last = done.catch(() => undefined);
        return done;
      }
    }
  }

  #onStore(request: Extract<SocketRequest, { type: "on_connection" }>["request"]): SocketResponse {
    if (request.type === "close_sql") this.#store.close(request.sqlId);
    else {
      // A violation of the protocol: what comes next would run another text than the client means.
      if (this.#store.has(request.sqlId)) this.refuse(CLOSE.protocol, "the number of the SQL text is in use");
      this.#store.store(request.sqlId, request.sql);
    }
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
      const stream = this.#parts.openStream(principal, this.#store, () => this.#requireStanding());
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
      this.#cursors.closeOf(open);
      // In its turn: what was asked before it is done first, what is asked after it finds the stream closed.
      const closed = open.last.then(() => open.stream?.close());
      open.last = closed;
      await closed;
      if (this.#streams.get(id) === open) this.#streams.delete(id);
    }
    return { type: "close_stream" };
  }

  #streamOf(id: number): OpenStream {
    const open = this.#streams.get(id);
    if (open === undefined) throw invalid("no stream of this number is open");
    return open;
  }

  /** When few enough others run, for a credential that stands. */
  async #inTurn<T>(greeting: Promise<TenantPrincipal>, work: (note: NoteFailure) => Promise<T>): Promise<T> {
    const principal = await greeting;
    return this.#intake.inTurn(async () => {
      if (this.#ended) throw kimberliteError("closed", "the connection is closed");
      this.#requireStanding();
      this.#parts.admit();
      return work((error) => this.#parts.noteFailure(principal, error));
    });
  }

  /** @throws `unauthenticated`; then the connection ends */
  #requireStanding(): void {
    try {
      this.#parts.recheck(this.#accepted as TenantPrincipal);
    } catch (error) {
      // The answer still goes out; then the connection ends.
      setImmediate(() => this.#refuseCredential());
      throw error;
    }
  }

  async *#entries(
    owner: OpenStream,
    batch: HranaBatch,
    before: Promise<unknown>,
  ): AsyncGenerator<CursorEntry, void> {
    await before;
    if (owner.stream === undefined) throw invalid("the stream did not open");
    const principal = this.#accepted as TenantPrincipal;
    yield* owner.stream.entries(batch, (error) => this.#parts.noteFailure(principal, error));
  }

  #send(message: ServerMessage): void {
    if (this.#ended) return;
    const { socket, encoding, maxUnreadBytes } = this.#parts;
    socket.send(encoding.writeMessage(message));
    if (socket.unreadBytes() > maxUnreadBytes) this.refuse(CLOSE.policy, "the client does not read");
  }

  #refuseCredential(): void {
    this.refuse(CLOSE.policy, "the credential stands no more");
  }

  /** Says why and closes, once; nothing more is taken. */
  refuse(code: number, reason: string): void {
    if (this.#ended) return;
    this.#parts.socket.close(code, reason);
    void this.end();
  }
}

/** As a route: one of a few. */
function nameOf(message: Exclude<ClientMessage, { type: "hello" }>): string {
  if (message.type === "refused") return "hrana/refused";
  const { request } = message;
  const isInner = request.type === "on_stream" || request.type === "on_connection";
  return `hrana/${isInner ? request.request.type : request.type}`;
}
