/**
 * WebSockets of Hrana on the server's port: the handshake, and which version and encoding is spoken.
 *
 * Kept: another path than Hrana's is not upgraded; a message is bounded in bytes before it is read; a connection that says
 * no hello in time, or nothing at all for too long, is closed.
 */
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { FastifyInstance } from "fastify";
import { type WebSocket, WebSocketServer } from "ws";
import type { RequestOrigin } from "../auth/authenticator.ts";
import type { Principal, TenantPrincipal } from "../auth/principal.ts";
import { kimberliteError } from "../errors.ts";
import { requireTenant, tenantOfHost } from "./access.ts";
import type { HranaLimits } from "./limits.ts";
import type { Encoding } from "./protocol.ts";
import type { ServedHost } from "./served-host.ts";
import { openSession } from "./sessions.ts";
import { CLOSE, SocketConnection, type SocketPort } from "./socket-connection.ts";
import { SqlStream } from "./sql-stream.ts";

export interface SocketParts {
  readonly host: ServedHost;
  readonly limits: HranaLimits;
  readonly json: Encoding;
  readonly protobuf: Encoding;
}

/** Best first. */
const PROTOCOLS = ["hrana3-protobuf", "hrana3", "hrana2", "hrana1"];
const PATH = /^\/(?:tenants\/(\d{1,19})\/?)?(?:\?.*)?$/;
const MAX_REASON_BYTES = 120;

/** How often credentials of open connections are looked at, also of those that say nothing. */
const LOOK_EVERY_MS = 500;
/** More than this of answers that wait for the end of a turn are not held back. */
const MAX_GATHERED_BYTES = 64 * 1024;
/** A hello is small; what comes before it is from nobody. */
const MAX_BYTES_BEFORE_HELLO = 64 * 1024;

/** @returns what ends every connection, once what it asked is answered */
export function registerSockets(app: FastifyInstance, parts: SocketParts): () => void {
  const { host } = parts;
  const open = new Set<SocketConnection>();
  const sockets = new WebSocketServer({
    noServer: true,
    maxPayload: host.limits.maxBodyBytes,
    perMessageDeflate: false,
    clientTracking: false,
    autoPong: false,
    handleProtocols: (offered) => PROTOCOLS.find((name) => offered.has(name)) ?? false,
  });
  app.server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const path = PATH.exec(request.url ?? "");
    if (path === null) return refuseUpgrade(socket, 404);
    if (host.draining.aborted || host.isOverloaded() || host.isFull()) return refuseUpgrade(socket, 503);
    if (!offersKnown(request)) return refuseUpgrade(socket, 400);
    sockets.handleUpgrade(request, socket, head, (webSocket) => {
      const named = [path[1], tenantOfHost(request.headers.host)];
      const connection = serve(webSocket, request, { ...parts, named });
      open.add(connection);
      webSocket.once("close", () => open.delete(connection));
    });
  });
  const looking = setInterval(() => {
    for (const connection of open) connection.look();
  }, LOOK_EVERY_MS);
  looking.unref();
  return () => {
    clearInterval(looking);
    for (const connection of open) void connection.finish(CLOSE.restart, "the server is going down");
  };
}

/** Who offers nothing speaks the first version, which had no name at first. */
function offersKnown(request: IncomingMessage): boolean {
  const offered = request.headers["sec-websocket-protocol"];
  return offered === undefined || offered.split(",").some((name) => PROTOCOLS.includes(name.trim()));
}

function refuseUpgrade(socket: Duplex, status: number): void {
  socket.on("error", () => undefined);
  socket.end(`HTTP/1.1 ${status} Refused\r\ncontent-length: 0\r\nconnection: close\r\n\r\n`);
}

function serve(
  webSocket: WebSocket,
  request: IncomingMessage,
  parts: SocketParts & { readonly named: readonly (string | undefined)[] },
): SocketConnection {
  const { host, limits, named } = parts;
  const isBinary = webSocket.protocol === "hrana3-protobuf";
  const origin = {
    remoteAddress: request.socket.remoteAddress ?? "",
    requestId: host.randomness.bytes(12).toString("base64url"),
  };
  const authenticate = async (jwt: string | undefined): Promise<TenantPrincipal> => {
    const presented = await host.authenticate(jwt, origin);
    const principal = requireTenantOrNote(presented, { host, named, origin });
    host.holdConnection(principal, request.socket);
    return principal;
  };
  const connection = new SocketConnection({
    socket: portOf(webSocket, gatherWrites(request.socket)),
    encoding: isBinary ? parts.protobuf : parts.json,
    limits,
    maxUnreadBytes: host.limits.maxUnreadBytes,
    maxWaitingBytes: host.limits.maxBodyBytes,
    authenticate,
    recheck: (principal) => host.recheck(principal),
    admit: () => requireRoom(host),
    openStream: (principal, store, stands) =>
      new SqlStream(openSession(host, principal, { limits, origin, stands }), store),
    begin: (name) => host.beginRequest(name, origin),
    noteFailure: (principal, error) => host.noteFailure(principal, error, origin),
  });
  const stopWatching = watch(webSocket, { connection, limits, idleTimeoutMs: host.limits.idleTimeoutMs });
  webSocket.on("message", (data: Buffer, binary: boolean) => {
    if (binary === isBinary) connection.receive(data);
    else connection.refuse(CLOSE.unsupported, "the frame is not of the encoding that was agreed");
  });
  webSocket.on("error", () => webSocket.terminate());
  webSocket.on("close", () => {
    stopWatching();
    void connection.end();
  });
  boundBeforeHello(webSocket, request.socket, connection);
  return connection;
}

/** One that is refused though it is known is for its own tenant's audit stream. */
function requireTenantOrNote(
  principal: Principal,
  about: {
    readonly host: ServedHost;
    readonly named: readonly (string | undefined)[];
    readonly origin: RequestOrigin;
  },
): TenantPrincipal {
  try {
    return requireTenant(principal, about.named);
  } catch (error) {
    about.host.noteRefusal(principal, "hrana", about.origin);
    throw error;
  }
}

function requireRoom(host: ServedHost): void {
  if (!host.isOverloaded()) return;
  throw kimberliteError("overloaded", "the node is past what it can serve", { retryAfterMs: 1_000 });
}

/** Of one that has not said hello, no more is taken than a hello has. */
function boundBeforeHello(webSocket: WebSocket, socket: Socket, connection: SocketConnection): void {
  let bytes = 0;
  const count = (data: Buffer): void => {
    bytes += data.length;
    if (connection.greeted) socket.off("data", count);
    else if (bytes > MAX_BYTES_BEFORE_HELLO) webSocket.terminate();
  };
  socket.on("data", count);
}

/**
 * Sends what one turn of the event loop answers in as few system calls as it takes: clients ask for a statement in several
 * messages at once, and their answers come together too.
 *
 * @returns to be called before each message
 */
function gatherWrites(socket: Socket): () => void {
  let gathering = false;
  const release = (): void => {
    gathering = false;
    socket.uncork();
  };
  return () => {
    // What is large enough goes out by itself.
    if (gathering || socket.writableLength > MAX_GATHERED_BYTES) return;
    gathering = true;
    socket.cork();
    setImmediate(release);
  };
}

function portOf(webSocket: WebSocket, beforeSend: () => void): SocketPort {
  return {
    send: (data) => {
      beforeSend();
      webSocket.send(data, () => undefined);
    },
    unreadBytes: () => webSocket.bufferedAmount,
    pause: () => webSocket.pause(),
    resume: () => webSocket.resume(),
    close: (code, reason) => {
      webSocket.close(code, reason.slice(0, MAX_REASON_BYTES));
      // One that does not answer the closing handshake, or takes nothing at all, is cut off.
      setTimeout(() => webSocket.terminate(), 1_000).unref();
    },
  };
}

/** Ends a connection that does not say hello, that is silent too long, or that takes nothing of what waits for it. */
function watch(
  webSocket: WebSocket,
  about: {
    readonly connection: SocketConnection;
    readonly limits: HranaLimits;
    readonly idleTimeoutMs: number;
  },
): () => void {
  const { connection, limits, idleTimeoutMs } = about;
  const hello = setTimeout(() => {
    if (!connection.greeted) webSocket.terminate();
  }, limits.helloTimeoutMs);
  let isAlive = true;
  let unread = 0;
  const alive = (): void => {
    isAlive = true;
  };
  webSocket.on("message", alive);
  webSocket.on("pong", alive);
  webSocket.on("ping", (data: Buffer) => {
    // Who does not read gets no answers, or they would pile up.
    if (webSocket.bufferedAmount < MAX_BYTES_BEFORE_HELLO) webSocket.pong(data);
  });
  const beat = setInterval(() => {
    const waiting = webSocket.bufferedAmount;
    const stalled = waiting > 0 && waiting >= unread && unread > 0;
    if (!isAlive || stalled) return webSocket.terminate();
    isAlive = false;
    unread = waiting;
    webSocket.ping();
  }, idleTimeoutMs / 2);
  return () => {
    clearTimeout(hello);
    clearInterval(beat);
  };
}
