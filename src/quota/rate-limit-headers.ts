/**
 * What a refusal by quota says in HTTP headers: `Retry-After` (RFC 9110 §10.2.3), and `RateLimit` with
 * `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10). A policy has the name of its field in the quota.
 */
import type { KimberliteError } from "../errors.ts";

/** Seconds after which a place among concurrent operations may be free. */
const CONCURRENCY_RETRY_SECONDS = 1;

/** Headers for an error that a quota or rate limit raised; none for any other. */
export function rateLimitHeaders(error: KimberliteError): Record<string, string> {
  const { policy, limit } = error.detail;
  if (error.httpStatus !== 429 || typeof policy !== "string" || typeof limit !== "number") return {};
  if (error.code === "rate_limited") {
    const seconds = Math.max(1, Math.ceil((error.retryAfterMs ?? 0) / 1000));
    return {
      "retry-after": String(seconds),
      ratelimit: `"${policy}";r=0;t=${seconds}`,
      "ratelimit-policy": `"${policy}";q=${limit};w=1`,
    };
  }
  // Storage is not given back by waiting.
  if (policy.endsWith("Bytes")) return { "ratelimit-policy": `"${policy}";q=${limit};qu="content-bytes"` };
  // How many there may be of something is no unit of the draft's.
  if (!policy.startsWith("maxConcurrent")) return {};
  return {
    "retry-after": String(CONCURRENCY_RETRY_SECONDS),
    ratelimit: `"${policy}";r=0`,
    "ratelimit-policy": `"${policy}";q=${limit};qu="concurrent-requests"`,
  };
}
