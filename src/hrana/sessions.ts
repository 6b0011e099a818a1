/** The session behind a stream: on the caller's own tenant, with what its role may do, or on what its grant shares. */
import type { RequestOrigin } from "../auth/authenticator.ts";
import type { TenantPrincipal } from "../auth/principal.ts";
import type { SqlSession } from "../sql-session.ts";
import { accessOf } from "./access.ts";
import type { HranaLimits } from "./limits.ts";
import type { ServedHost } from "./served-host.ts";

export interface SessionAbout {
  readonly limits: HranaLimits;
  /** Of the request that opens it: its id is in the records of what the session does. */
  readonly origin: RequestOrigin;
  /** Asked before each statement. @throws once the credential stands no more */
  readonly stands: () => void;
}

/** @throws `tenant_not_found`, `tenant_suspended`, `not_authorized` */
export function openSession(host: ServedHost, caller: TenantPrincipal, about: SessionAbout): SqlSession {
  const { limits, origin, stands } = about;
  const { transactionTimeLimitMs, busyTimeoutMs, maxResultBytes } = limits;
  const common = { actor: caller.actor, correlationId: origin.requestId, maxResultBytes, stands };
  if (caller.grant !== undefined) {
    try {
      return host.db.sharedSession(caller.tenant, caller.grant, common);
    } catch (error) {
      // A token may name any grant; that it named none of its tenant's is for the tenant to know.
      host.noteRefusal(caller, "shared.read", origin);
      throw error;
    }
  }
  return host.db.session(caller.tenant, {
    ...common,
    access: accessOf(caller),
    transactionTimeLimitMs,
    busyTimeoutMs,
  });
}
