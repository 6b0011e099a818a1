/**
 * What a node says of the requests that it answers: one line of log, numbers, and a span of a trace each.
 *
 * Kept: what is said is chosen field by field from what the server knows itself: the route as it was registered, status,
 * time, error code, the tenant's and the credential's public ids. Of what a client sent there are ids
 * alone, of its request and of its token, and no message of
 * an error, for a bug's may quote anything. Refusals go to the audit stream besides.
 */
import {
  context,
  propagation,
  type Span,
  SpanKind,
  SpanStatusCode,
  type Tracer,
  trace,
} from "@opentelemetry/api";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { Logger } from "pino";
import type { Authenticator } from "../auth/authenticator.ts";
import { authorize } from "../auth/authorize.ts";
import { bearerOf } from "../auth/bearer.ts";
import type { Principal } from "../auth/principal.ts";
import { KimberliteError } from "../errors.ts";
import type { ServerMetrics } from "./metrics.ts";

export interface TelemetryParts {
  readonly authenticator: Authenticator;
  readonly metrics: ServerMetrics;
  /** True to answer `/metrics` without a credential, with numbers of the node alone. */
  readonly openMetrics: boolean;
  /** Absent for no log of requests. */
  readonly log: Logger | undefined;
}

/** What is remembered of a request until it is answered. */
interface Begun {
  readonly span: Span;
  error: unknown;
  ended: boolean;
}

const UNKNOWN_ROUTE = "unknown";
/** Asked so often by machines, or so small a part of asking, that a line for each says nothing. */
const QUIET: ReadonlySet<string> = new Set([
  "/healthz",
  "/readyz",
  "/metrics",
  ...["open_stream", "close_stream", "store_sql", "close_sql", "close_cursor"].map((name) => `hrana/${name}`),
]);

export function registerTelemetry(app: FastifyInstance, parts: TelemetryParts): void {
  const tracer = trace.getTracer("kimberlite");
  const begun = new WeakMap<FastifyRequest, Begun>();
  const begin = (request: FastifyRequest): Begun => {
    const known = begun.get(request);
    if (known !== undefined) return known;
    parts.metrics.begin();
    const fresh = { span: startSpan(tracer, request), error: undefined, ended: false };
    begun.set(request, fresh);
    return fresh;
  };
  app.addHook("onRequest", async (request, reply) => {
    begin(request);
    // Of one that leaves in the middle of its answer the framework says nothing.
    reply.raw.once("close", () => {
      if (!reply.raw.writableFinished) end(request, reply);
    });
  });
  app.addHook("onError", async (request, _reply, error) => {
    // One that was turned away at the door was not begun.
    begin(request).error = error;
    noteRefusal(request, error, parts.authenticator);
  });
  const end = (request: FastifyRequest, reply: FastifyReply | undefined): void => {
    const known = begun.get(request);
    if (known === undefined || known.ended) return;
    known.ended = true;
    endRequest({ request, reply, begun: known, parts });
  };
  app.addHook("onResponse", async (request, reply) => end(request, reply));
  app.addHook("onRequestAbort", async (request) => end(request, undefined));
  app.get("/metrics", async (request, reply) => {
    const tenants = await mayReadAll(request, parts);
    return reply
      .header("cache-control", "no-store")
      .type(parts.metrics.contentType)
      .send(await parts.metrics.text(tenants));
  });
}

/** True for an operator. @throws `unauthenticated`, `not_authorized` */
async function mayReadAll(request: FastifyRequest, parts: TelemetryParts): Promise<boolean> {
  const bearer = bearerOf(request.headers.authorization);
  if (bearer === undefined && parts.openMetrics) return false;
  request.principal = await parts.authenticator.authenticate(bearer, originOf(request));
  authorize(request.principal, "node.read", undefined);
  return true;
}

/** One whose client went away before its answer began has status 499. */
function endRequest(about: {
  readonly request: FastifyRequest;
  readonly reply: FastifyReply | undefined;
  readonly begun: Begun;
  readonly parts: TelemetryParts;
}): void {
  const { request, reply, begun, parts } = about;
  report(parts, {
    requestId: request.id,
    method: request.method,
    route: routeOf(request),
    status: reply?.raw.headersSent === true ? reply.statusCode : 499,
    ms: reply?.elapsedTime ?? 0,
    address: request.ip,
    principal: request.principal ?? undefined,
    ...begun,
  });
}

/** A request that was answered, over whatever protocol. */
export interface Answered {
  readonly requestId: string;
  readonly method: string;
  readonly route: string;
  readonly status: number;
  readonly ms: number;
  readonly address: string;
  readonly principal: Principal | undefined;
  readonly span: Span;
  /** What it was refused with, or failed by. */
  readonly error: unknown;
}

/** Counts it, ends its span and writes its line. */
export function report(parts: Pick<TelemetryParts, "metrics" | "log">, answered: Answered): void {
  const { requestId, method, route, status, ms, address, principal, span, error } = answered;
  const code = codeOf(error, status);
  const tenant = principal?.kind === "tenant" ? principal.tenant : undefined;
  parts.metrics.end({ method, route, status, seconds: ms / 1000, tenant, code });
  endSpan(span, { status, tenant, code });
  if (QUIET.has(route) && status < 400) return;
  const level = status >= 500 ? "error" : "info";
  parts.log?.[level]({
    requestId,
    method,
    route,
    status,
    ms: Math.round(ms * 1000) / 1000,
    address,
    ...(tenant === undefined ? {} : { tenant: tenant.toString() }),
    ...(principal === undefined ? {} : { credential: principal.credential.id }),
    ...(code === undefined ? {} : { code }),
    ...(status >= 500 && code === "internal" ? { bug: describeBug(error) } : {}),
  });
}

function startSpan(tracer: Tracer, request: FastifyRequest): Span {
  const parent = propagation.extract(context.active(), request.headers);
  const route = routeOf(request);
  const { method } = request;
  return tracer.startSpan(
    `${method} ${route}`,
    {
      kind: SpanKind.SERVER,
      attributes: {
        "http.request.method": method,
        "http.route": route,
        "kimberlite.request_id": request.id,
      },
    },
    parent,
  );
}

function endSpan(
  span: Span,
  about: { readonly status: number; readonly tenant: bigint | undefined; readonly code: string | undefined },
): void {
  const { status, tenant, code } = about;
  span.setAttribute("http.response.status_code", status);
  if (tenant !== undefined) span.setAttribute("kimberlite.tenant", tenant.toString());
  if (code !== undefined) span.setAttribute("error.type", code);
  if (status >= 500) span.setStatus({ code: SpanStatusCode.ERROR });
  span.end();
}

/** Refused though it is known who asked: that is for the audit stream of its tenant. */
function noteRefusal(request: FastifyRequest, error: unknown, authenticator: Authenticator): void {
  if (!(error instanceof KimberliteError) || error.code !== "not_authorized") return;
  const { principal } = request;
  if (principal === null) return;
  const { action } = error.detail;
  authenticator.noteRefusal(
    principal,
    typeof action === "string" ? action : routeOf(request),
    originOf(request),
  );
}

function originOf(request: FastifyRequest): { readonly remoteAddress: string; readonly requestId: string } {
  return { remoteAddress: request.ip, requestId: request.id };
}

function routeOf(request: FastifyRequest): string {
  return request.routeOptions.url ?? UNKNOWN_ROUTE;
}

function codeOf(error: unknown, status: number): string | undefined {
  if (error instanceof KimberliteError) return error.code;
  if (status >= 500) return "internal";
  if (status === 404) return "route_not_found";
  return status >= 400 ? "refused" : undefined;
}

/** Kind and place of a bug. Its message is left out, for it may quote what was being worked on. */
export function describeBug(error: unknown): { readonly name: string; readonly at: readonly string[] } {
  const cause = error instanceof KimberliteError && error.cause !== undefined ? error.cause : error;
  if (!(cause instanceof Error)) return { name: typeof cause, at: [] };
  const at = (cause.stack ?? "").split("\n").filter((line) => /^ {4}at /.test(line));
  return { name: cause.name.slice(0, 100), at: at.slice(0, 20).map((line) => line.trim()) };
}
