/**
 * The HTTP application without its routes: what holds for every request, whatever it asks for.
 *
 * Kept: every refusal is a problem with a code; a body is read only after its request was let in; a request's id is ours
 * unless the client gave a harmless one.
 */
import {
  createServer,
  type Server as HttpServer,
  type IncomingMessage,
  type RequestListener,
} from "node:http";
import {
  createServer as createSecureServer,
  type Server as HttpsServer,
  type ServerOptions as SecureServerOptions,
} from "node:https";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { SecureContextOptions } from "node:tls";
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import type { Principal } from "../auth/principal.ts";
import { kimberliteError } from "../errors.ts";
import type { Randomness } from "../host/randomness.ts";
import { parseJsonBody } from "../hrana/json-body.ts";
import type { Connections, Exchange } from "./connections.ts";
import { isHealthCheck } from "./health.ts";
import { PROBLEM_TYPE, rawProblem, toProblem } from "./problem.ts";
import type { ServerConfig } from "./settings.ts";
import { MIN_VERSION } from "./tls.ts";

declare module "fastify" {
  interface FastifyRequest {
    /** Who the request speaks for; null where nobody needs to be known. */
    principal: Principal | null;
    /** Null where it was refused before it was counted. */
    exchange: Exchange | null;
  }
}

export interface AppParts {
  readonly config: ServerConfig;
  readonly connections: Connections;
  readonly randomness: Randomness;
  /** Certificate and key; absent for a server in the clear. */
  readonly tls: SecureContextOptions | undefined;
  /** True when the server goes down. */
  readonly isDraining: () => boolean;
}

const HARMLESS_ID = /^[\w.:-]{1,64}$/;
const ID_BYTES = 12;
const CHECK_CONNECTIONS_MS = 1_000;

/** The application; a plugin adds its routes in a scope of its own. */
export function createApp(parts: AppParts): FastifyInstance {
  const { trustedProxies } = parts.config;
  const app = fastify({
    serverFactory: (handler) => makeHttpServer(handler as RequestListener, parts),
    bodyLimit: parts.config.limits.maxBodyBytes,
    genReqId: (request) => requestId(request as IncomingMessage, parts.randomness),
    requestIdHeader: false,
    return503OnClosing: false,
    forceCloseConnections: false,
    exposeHeadRoutes: false,
    trustProxy: trustedProxies.length === 0 ? false : [...trustedProxies],
    clientErrorHandler: (error, socket) => answerRaw(error, socket, parts),
    frameworkErrors: (error, request, reply) => answerProblem(error, request, reply),
    routerOptions: { maxParamLength: 512 },
  }) as unknown as FastifyInstance;
  app.decorateRequest("principal", null);
  app.decorateRequest("exchange", null);
  app.setErrorHandler((error, request, reply) => answerProblem(error, request, reply));
  app.setNotFoundHandler((request, reply) =>
    answerProblem(kimberliteError("route_not_found", "there is nothing at this path"), request, reply),
  );
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(
    "application/json",
    { parseAs: "buffer" },
    async (_request: FastifyRequest, body: Buffer) => parseJsonBody(body),
  );
  app.addHook("onSend", async (_request, reply) => {
    if (parts.isDraining()) void reply.header("connection", "close");
  });
  app.addHook("onRequest", async (request, reply) => letIn(request, reply, parts));
  return app;
}

async function letIn(request: FastifyRequest, reply: FastifyReply, parts: AppParts): Promise<void> {
  void reply.header("x-request-id", request.id);
  const { connections } = parts;
  request.exchange = connections.begin(request.raw.socket, { request: request.raw, answer: reply.raw });
  if (request.exchange.isLast) void reply.header("connection", "close");
  requireOneOfEach(request);
  if (isHealthCheck(request)) return;
  if (parts.isDraining()) {
    void reply.header("connection", "close");
    throw kimberliteError("draining", "the server is going down; try again on another connection");
  }
  if (connections.overfull) {
    void reply.header("connection", "close");
    throw kimberliteError("overloaded", "the server has too many connections", { retryAfterMs: 1_000 });
  }
}

function answerProblem(error: unknown, request: FastifyRequest, reply: FastifyReply): void {
  const { status, headers, body } = toProblem(error, request.id);
  void reply
    .code(status)
    .headers(headers)
    .header("content-type", PROBLEM_TYPE)
    .serializer(JSON.stringify)
    .send(body);
}

const SINGLE: ReadonlySet<string> = new Set(["host", "authorization"]);

/** Whoever stands between may have read another than we would. @throws `invalid_argument` (RFC 9112 §3.2) */
function requireOneOfEach({ raw }: FastifyRequest): void {
  const { rawHeaders, httpVersion } = raw;
  let hosts = 0;
  let credentials = 0;
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = (rawHeaders[at] as string).toLowerCase();
    if (!SINGLE.has(name)) continue;
    if (name === "host") hosts += 1;
    else credentials += 1;
  }
  if (hosts > 1 || credentials > 1) {
    throw kimberliteError("invalid_argument", "a header that may come once came twice");
  }
  if (hosts === 0 && httpVersion === "1.1") {
    throw kimberliteError("invalid_argument", "the request has no Host");
  }
}

/** Connections that are being answered what ends them. */
const ending: WeakSet<Socket> = new WeakSet();

/**
 * Of a request that is no HTTP, or did not arrive in time. What was asked before it on the connection is answered first:
 * else a client would take this for the answer to something that is being done.
 */
function answerRaw(error: Error, socket: Socket, { connections, randomness }: AppParts): void {
  if ((error as NodeJS.ErrnoException).code === "ECONNRESET" || !socket.writable) return socket.destroySoon();
  if (ending.has(socket)) return;
  ending.add(socket);
  socket.pause();
  const underWay = connections.underWay(socket);
  const whole = underWay.filter(({ isWhole }) => isWhole);
  // What was answered in part already cannot be answered again.
  const answered = underWay.some(({ isWhole, isAnswered }) => !isWhole && isAnswered);
  let left = whole.length;
  const answer = (): void => {
    if (left > 0) return;
    if (socket.writable && !answered) socket.end(rawProblem(error, newId(randomness)));
    socket.destroySoon();
  };
  for (const exchange of whole) {
    exchange.whenOver(() => {
      left -= 1;
      answer();
    });
  }
  answer();
}

/** A request that asks for a tunnel, which there is none of. */
function refuseTunnel(socket: Duplex, randomness: Randomness): void {
  socket.on("error", () => undefined);
  const error = kimberliteError("method_not_allowed", "the server makes no tunnels");
  socket.end(rawProblem(error, newId(randomness)));
}

function makeHttpServer(handler: RequestListener, parts: AppParts): HttpServer | HttpsServer {
  const { limits } = parts.config;
  const options = {
    maxHeaderSize: limits.maxHeaderBytes,
    headersTimeout: limits.headersTimeoutMs,
    requestTimeout: limits.requestTimeoutMs,
    keepAliveTimeout: limits.keepAliveTimeoutMs,
    connectionsCheckingInterval: CHECK_CONNECTIONS_MS,
    // Asked for by `letIn`, whose refusal has a code.
    requireHostHeader: false,
    noDelay: true,
    // A client that is gone without a word is noticed also while it waits for an answer.
    keepAlive: true,
  };
  const server =
    parts.tls === undefined
      ? createServer(options, handler)
      : createSecureServer({ ...options, ...secured(parts.tls, limits.headersTimeoutMs) }, handler);
  server.timeout = limits.idleTimeoutMs;
  server.on("timeout", (socket: Socket) => {
    // Silent because we are at work is not silent.
    const working = parts.connections.underWay(socket).some((one) => one.isWhole && !one.isAnswered);
    if (!working) socket.destroy();
  });
  // Those between the two limits are told to come again; past the second nothing is left to tell them with.
  server.maxConnections = limits.maxConnections * 2;
  // Nothing but `100-continue` is expected of anyone; what else a client expects is as if it were not said.
  server.on("checkExpectation", handler);
  server.on("connect", (_request: IncomingMessage, socket: Duplex) => refuseTunnel(socket, parts.randomness));
  server.on(parts.tls === undefined ? "connection" : "secureConnection", (socket: Socket) =>
    parts.connections.add(socket),
  );
  return server;
}

/** With authorities of clients, whoever shows no certificate of theirs is not let in. */
function secured(tls: SecureContextOptions, handshakeTimeout: number): SecureServerOptions {
  const mutual = tls.ca === undefined ? {} : { requestCert: true, rejectUnauthorized: true };
  return { ...tls, ...mutual, minVersion: MIN_VERSION, handshakeTimeout };
}

function requestId(request: IncomingMessage, randomness: Randomness): string {
  const given = request.headers["x-request-id"];
  return typeof given === "string" && HARMLESS_ID.test(given) ? given : newId(randomness);
}

function newId(randomness: Randomness): string {
  return randomness.bytes(ID_BYTES).toString("base64url");
}
