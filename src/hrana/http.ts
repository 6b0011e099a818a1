/**
 * Hrana over HTTP: pipelines and cursors on streams that live between requests.
 *
 * Kept: a body is read only for a caller who is known and may read; the credential is asked again before each request of a
 * pipeline; a stream whose answer could not be delivered is closed with what it held.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { RequestOrigin } from "../auth/authenticator.ts";
import { bearerOf } from "../auth/bearer.ts";
import type { TenantPrincipal } from "../auth/principal.ts";
import { type KimberliteError, kimberliteError } from "../errors.ts";
import { resultBytes } from "../projection/values.ts";
import { rateLimitHeaders } from "../quota/rate-limit-headers.ts";
import { requireTenant, tenantOfHost } from "./access.ts";
import { toHranaError, toKnown } from "./hrana-error.ts";
import { cursorBody } from "./http-cursor.ts";
import type { HttpStream, HttpStreams } from "./http-streams.ts";
import { type HranaLimits, invalid } from "./limits.ts";
import type { Encoding, StreamRequest, StreamResponse, StreamResult } from "./protocol.ts";
import type { ServedHost } from "./served-host.ts";
import { openSession } from "./sessions.ts";
import { SqlStore } from "./sql-store.ts";
import { SqlStream } from "./sql-stream.ts";

export interface HttpParts {
  readonly host: ServedHost;
  readonly limits: HranaLimits;
  readonly streams: HttpStreams;
  readonly encoding: Encoding;
  /** First part of the paths: `v2`, `v3`, `v3-protobuf`. */
  readonly version: string;
}

const PREFIXES = ["", "/tenants/:tenant"];

/** Adds the routes of one version, bare and under a tenant's prefix, in a scope of their own. */
export function registerHttp(app: FastifyInstance, parts: HttpParts): void {
  void app.register(async (scope) => {
    const { encoding, version, host } = parts;
    const callers = new WeakMap<FastifyRequest, TenantPrincipal>();
    scope.removeAllContentTypeParsers();
    scope.addContentTypeParser("*", { parseAs: "buffer" }, async (request: FastifyRequest, body: Buffer) => {
      requireContentType(request, encoding.contentType);
      return body;
    });
    scope.setErrorHandler((error, _request, reply) => answerError(error, reply, encoding));
    const options = {
      bodyLimit: host.limits.maxBodyBytes,
      onRequest: async (request: FastifyRequest) => {
        callers.set(request, await authenticate(request, host));
      },
    };
    for (const prefix of PREFIXES) {
      scope.get(`${prefix}/${version}`, async (_request, reply) => reply.code(200).send());
      scope.post(`${prefix}/${version}/pipeline`, options, (request, reply) =>
        answerPipeline(askedBy(callers, request), reply, parts),
      );
      if (version === "v2") continue;
      scope.post(`${prefix}/${version}/cursor`, options, (request, reply) =>
        answerCursor(askedBy(callers, request), reply, parts),
      );
    }
  });
}

async function authenticate(request: FastifyRequest, host: ServedHost): Promise<TenantPrincipal> {
  const principal = await host.authenticate(bearerOf(request.headers.authorization), originOf(request));
  // Known from here on: what it is refused is its own tenant's to know.
  request.principal = principal;
  const { tenant } = request.params as { readonly tenant?: string };
  const caller = requireTenant(principal, [tenant, tenantOfHost(request.headers.host)]);
  host.holdConnection(caller, request.raw.socket);
  return caller;
}

function originOf(request: FastifyRequest): RequestOrigin {
  return { remoteAddress: request.ip, requestId: request.id };
}

/** What is asked, by whom and from where. */
interface Asked {
  readonly caller: TenantPrincipal;
  readonly origin: RequestOrigin;
  readonly body: Buffer;
}

function askedBy(callers: WeakMap<FastifyRequest, TenantPrincipal>, request: FastifyRequest): Asked {
  const caller = callers.get(request);
  if (caller === undefined) throw kimberliteError("unauthenticated", "no credential was given");
  if (!Buffer.isBuffer(request.body)) throw invalid("the request has no body");
  return { caller, origin: originOf(request), body: request.body };
}

/** A body without a type is taken for what the path says, as clients send it so. */
function requireContentType(request: FastifyRequest, expected: string): void {
  const given = request.headers["content-type"]?.split(";")[0]?.trim().toLowerCase();
  if (given === undefined || given === expected) return;
  throw kimberliteError("media_type_unsupported", `the content type here is ${expected}`);
}

async function answerPipeline(asked: Asked, reply: FastifyReply, parts: HttpParts): Promise<void> {
  const { encoding, host, streams } = parts;
  const { baton, requests } = encoding.readPipeline(asked.body);
  const stream = openStream(asked, baton, parts);
  let secret: Buffer | undefined;
  try {
    const { results, refusal, isRefused } = await answerAll(stream, requests, asked, parts);
    // Nothing that was found leaves for a credential that ended meanwhile.
    host.recheck(asked.caller);
    if (refusal !== undefined) {
      if (isRefused && baton === undefined) throw refusal;
      host.noteFailure(asked.caller, refusal, asked.origin);
      void reply.headers(rateLimitHeaders(refusal));
    }
    const next = stream.stream.closed || isGone(reply) ? undefined : streams.newBaton();
    secret = next?.secret;
    const answer = encoding.writePipeline({ baton: next?.batonOf(stream), results });
    void reply.code(200).header("content-type", encoding.contentType).send(answer);
  } finally {
    await streams.giveBack(stream, secret);
  }
}

interface Answers {
  readonly results: readonly StreamResult[];
  /** The first one by a quota, which is not noted yet. */
  readonly refusal: KimberliteError | undefined;
  /** True if there is nothing else to tell: then it is the answer, as of any other request over HTTP. */
  readonly isRefused: boolean;
}

async function answerAll(
  { stream }: HttpStream,
  requests: readonly StreamRequest[],
  { caller, origin }: Asked,
  { host, limits }: HttpParts,
): Promise<Answers> {
  let refusal: KimberliteError | undefined;
  let failedOtherwise = false;
  const note = (error: unknown): void => {
    const known = toKnown(error);
    failedOtherwise ||= known.httpStatus !== 429;
    if (refusal === undefined && known.httpStatus === 429) refusal = known;
    else host.noteFailure(caller, error, origin);
  };
  const results: StreamResult[] = [];
  let bytes = 0;
  for (const request of requests) {
    host.recheck(caller);
    try {
      if (bytes > limits.maxResultBytes && request.type !== "close") throw tooLarge(limits);
      const response = await stream.answer(request, note);
      results.push({ type: "ok", response });
      if (response.type === "execute" || response.type === "batch") bytes += sizeOf(response);
    } catch (error) {
      note(error);
      results.push({ type: "error", error: toHranaError(error) });
    }
  }
  return { results, refusal, isRefused: !failedOtherwise && !results.some(didSomething) };
}

function didSomething(result: StreamResult): boolean {
  if (result.type === "error" || result.response.type === "close") return false;
  if (result.response.type !== "batch") return true;
  return result.response.outcomes.some((step) => step !== undefined && "result" in step);
}

async function answerCursor(asked: Asked, reply: FastifyReply, parts: HttpParts): Promise<FastifyReply> {
  const { encoding, host, streams } = parts;
  const { caller, origin } = asked;
  const { baton, batch } = encoding.readCursor(asked.body);
  const stream = openStream(asked, baton, parts);
  const body = cursorBody({
    stream,
    batch,
    encoding,
    streams,
    recheck: () => host.recheck(caller),
    note: (error) => host.noteFailure(caller, error, origin),
  });
  // What could not be delivered is closed; the framework does nothing with an answer for whom nobody waits any more.
  const leave = (): void => {
    if (reply.raw.writableFinished) return;
    body.destroy();
    void streams.giveBack(stream, undefined);
  };
  if (isGone(reply)) leave();
  else reply.raw.once("close", leave);
  // Returned, for the framework takes a promise of nothing for an empty answer.
  return reply.code(200).header("content-type", encoding.cursorContentType).send(body);
}

/** The stream of the baton, or a new one. */
function openStream(
  { caller, origin }: Asked,
  baton: string | undefined,
  { host, limits, streams }: HttpParts,
): HttpStream {
  if (baton !== undefined) return streams.take(baton, caller);
  return streams.open(
    caller,
    (stands) => new SqlStream(openSession(host, caller, { limits, origin, stands }), new SqlStore(limits)),
  );
}

/** Bytes of the rows of a response. */
function sizeOf(response: StreamResponse): number {
  if (response.type === "execute") return resultBytes(response.result.rows);
  if (response.type !== "batch") return 0;
  return response.outcomes.reduce(
    (sum, step) => sum + (step !== undefined && "result" in step ? resultBytes(step.result.rows) : 0),
    0,
  );
}

function tooLarge({ maxResultBytes }: HranaLimits): Error {
  return kimberliteError("result_too_large", "the results of the pipeline are too large; use a cursor", {
    detail: { maxBytes: maxResultBytes },
  });
}

/** True if nobody is there to be answered. */
function isGone(reply: FastifyReply): boolean {
  return reply.raw.destroyed || reply.raw.socket?.destroyed === true;
}

function answerError(error: unknown, reply: FastifyReply, encoding: Encoding): void {
  const known = toKnown(error);
  const headers: Record<string, string> = { ...rateLimitHeaders(known) };
  if (known.code === "unauthenticated") headers["www-authenticate"] = 'Bearer realm="kimberlite"';
  if (known.retryAfterMs !== undefined && headers["retry-after"] === undefined) {
    headers["retry-after"] = String(Math.max(1, Math.ceil(known.retryAfterMs / 1000)));
  }
  const { code, message } = toHranaError(known);
  void reply
    .code(known.httpStatus)
    .headers(headers)
    .header("content-type", encoding.contentType)
    // As bytes: of a string the framework would change the content type, by which clients know an error.
    .send(Buffer.from(encoding.writeError({ code, message })));
}
