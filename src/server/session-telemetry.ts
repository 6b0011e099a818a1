/**
 * What a node says of requests that are none of HTTP, and of failures within an answer: the same numbers, lines and spans
 * as of the others (`telemetry.ts`), and no more in them.
 */
import { SpanKind, trace } from "@opentelemetry/api";
import type { Authenticator, RequestOrigin } from "../auth/authenticator.ts";
import type { TenantPrincipal } from "../auth/principal.ts";
import { KimberliteError } from "../errors.ts";
import type { RequestEnd, ServedHost } from "../hrana/served-host.ts";
import { describeBug, report, type TelemetryParts } from "./telemetry.ts";

type Parts = Pick<TelemetryParts, "metrics" | "log"> & { readonly authenticator: Authenticator };

export function sessionTelemetry(parts: Parts): Pick<ServedHost, "beginRequest" | "noteFailure"> {
  const tracer = trace.getTracer("kimberlite");
  return {
    beginRequest(name: string, origin: RequestOrigin) {
      const startedMs = performance.now();
      parts.metrics.begin();
      const span = tracer.startSpan(`WS ${name}`, {
        kind: SpanKind.SERVER,
        attributes: {
          "http.request.method": "WS",
          "http.route": name,
          "kimberlite.request_id": origin.requestId,
        },
      });
      return ({ principal, error }: RequestEnd) => {
        const known = error instanceof KimberliteError ? error.httpStatus : 500;
        report(parts, {
          requestId: origin.requestId,
          method: "WS",
          route: name,
          status: error === undefined ? 200 : known,
          ms: performance.now() - startedMs,
          address: origin.remoteAddress,
          principal,
          span,
          error,
        });
        if (principal?.kind === "tenant") noteRefusal(parts.authenticator, principal, error, origin);
      };
    },
    noteFailure(principal: TenantPrincipal, error: unknown, origin: RequestOrigin) {
      const code = error instanceof KimberliteError ? error.code : "internal";
      parts.metrics.fail(code);
      noteRefusal(parts.authenticator, principal, error, origin);
      if (code !== "internal") return;
      parts.log?.error({
        requestId: origin.requestId,
        address: origin.remoteAddress,
        tenant: principal.tenant.toString(),
        credential: principal.credential.id,
        code,
        bug: describeBug(error),
      });
    },
  };
}

/** What the role of the principal does not allow; what a grant does not is recorded where it is read under. */
function noteRefusal(
  authenticator: Authenticator,
  principal: TenantPrincipal,
  error: unknown,
  origin: RequestOrigin,
): void {
  if (!(error instanceof KimberliteError) || principal.grant !== undefined) return;
  const { code, detail } = error;
  if (code === "read_only" && principal.role === "reader") {
    authenticator.noteRefusal(principal, "sql.write", origin);
  } else if (code === "not_authorized") {
    const { action } = detail;
    authenticator.noteRefusal(principal, typeof action === "string" ? action : "sql.schema", origin);
  }
}
