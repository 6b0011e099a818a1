/**
 * Errors as they leave over HTTP: problem details (RFC 9457) with the codes of `docs/errors.md`.
 *
 * Kept: nothing of the request's body, of SQL, of rows or of a bug's message is in an answer. What is no error of ours
 * is `internal`, and is said to the operator's log alone.
 */
import type { FastifyError } from "fastify";
import { ERROR_CODES, type ErrorCode, KimberliteError, kimberliteError } from "../errors.ts";
import { rateLimitHeaders } from "../quota/rate-limit-headers.ts";
import { type JsonValue, toJsonValue } from "./json-value.ts";

export const PROBLEM_TYPE = "application/problem+json";

/** Seconds after which a caller may try again whom the server turned away for its own sake. */
const BUSY_RETRY_SECONDS = 1;

/** The body of a refusal. */
export interface Problem {
  /** `urn:kimberlite:error:` and the code. */
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly code: ErrorCode;
  /** The request's id, for finding it in the server's log and the audit stream. */
  readonly instance: string;
  readonly retryAfterMs?: number;
  /** Ids, counts and sizes that belong to the code. */
  readonly data?: Readonly<Record<string, JsonValue>>;
}

export interface ProblemAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Problem;
}

/** The answer to a request that failed with `error`. */
export function toProblem(error: unknown, requestId: string): ProblemAnswer {
  const known = toKimberliteError(error);
  const { code, message, retryAfterMs, httpStatus } = known;
  const data = toJsonValue(known.detail) as Record<string, JsonValue>;
  const body: Problem = {
    type: `urn:kimberlite:error:${code}`,
    title: ERROR_CODES[code].meaning,
    status: httpStatus,
    detail: message,
    code,
    instance: requestId,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs: Math.ceil(retryAfterMs) }),
    ...(Object.keys(data).length === 0 ? {} : { data }),
  };
  return { status: httpStatus, headers: headersOf(known), body };
}

function headersOf(error: KimberliteError): Record<string, string> {
  const headers: Record<string, string> = { ...rateLimitHeaders(error) };
  if (error.code === "unauthenticated") headers["www-authenticate"] = 'Bearer realm="kimberlite"';
  if (headers["retry-after"] === undefined && (error.action === "retry" || error.httpStatus === 503)) {
    const seconds = Math.ceil((error.retryAfterMs ?? 0) / 1000);
    headers["retry-after"] = String(Math.max(seconds, BUSY_RETRY_SECONDS));
  }
  return headers;
}

/** The error of the family that says what happened: Fastify's and Node's own are translated, a bug is `internal`. */
function toKimberliteError(error: unknown): KimberliteError {
  if (error instanceof KimberliteError) return error;
  const { code, statusCode, validation, validationContext } = (error ?? {}) as Partial<FastifyError>;
  if (validation !== undefined) {
    const { instancePath, message = "is not valid" } = validation[0] ?? {};
    const where = `${validationContext ?? "request"}${(instancePath ?? "").replaceAll("/", ".")}`;
    return kimberliteError("invalid_argument", `${where} ${message}`);
  }
  const translated = FRAMEWORK_ERRORS[code ?? ""];
  if (translated !== undefined) return kimberliteError(translated.code, translated.message);
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    return kimberliteError("invalid_argument", "the request is malformed");
  }
  return kimberliteError("internal", "the server failed to answer; this is a bug", { cause: error });
}

const FRAMEWORK_ERRORS: Readonly<Record<string, { readonly code: ErrorCode; readonly message: string }>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: {
    code: "request_too_large",
    message: "the body is larger than the server takes",
  },
  FST_ERR_CTP_INVALID_MEDIA_TYPE: {
    code: "media_type_unsupported",
    message: "the content type is not served",
  },
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: {
    code: "invalid_argument",
    message: "the body has another length than Content-Length says",
  },
  HPE_HEADER_OVERFLOW: { code: "request_too_large", message: "the headers are larger than the server takes" },
  HPE_CHUNK_EXTENSIONS_OVERFLOW: {
    code: "request_too_large",
    message: "the chunks' extensions are too large",
  },
  ERR_HTTP_REQUEST_TIMEOUT: { code: "request_timeout", message: "the request did not arrive in time" },
};

/** A whole HTTP/1.1 answer for a connection whose request could not be parsed; it is closed after. */
export function rawProblem(error: unknown, requestId: string): string {
  const code = (error as { code?: unknown }).code;
  const known =
    error instanceof KimberliteError || (typeof code === "string" && Object.hasOwn(FRAMEWORK_ERRORS, code));
  const cause = known ? error : kimberliteError("invalid_argument", "the request is not HTTP/1.1");
  const { status, headers, body } = toProblem(cause, requestId);
  const text = JSON.stringify(body);
  const lines = Object.entries({
    ...headers,
    "content-type": PROBLEM_TYPE,
    "content-length": String(Buffer.byteLength(text)),
    connection: "close",
  }).map(([name, value]) => `${name}: ${value}`);
  return `HTTP/1.1 ${status} ${REASONS[status] ?? "Refused"}\r\n${lines.join("\r\n")}\r\n\r\n${text}`;
}

const REASONS: Readonly<Record<number, string>> = {
  400: "Bad Request",
  405: "Method Not Allowed",
  408: "Request Timeout",
  413: "Content Too Large",
};
