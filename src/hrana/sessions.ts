/** The session behind a stream: on the caller's own tenant, with what its role may do, or on what its grant shares. */
import type { TenantPrincipal } from "../auth/principal.ts";
import type { SqlSession } from "../sql-session.ts";
import { accessOf } from "./access.ts";
import type { HranaLimits } from "./limits.ts";
import type { ServedHost } from "./served-host.ts";

/** @throws `tenant_not_found`, `tenant_suspended`, `not_authorized` */
export function openSession(host: ServedHost, caller: TenantPrincipal, limits: HranaLimits): SqlSession {
  const { transactionTimeLimitMs, busyTimeoutMs, maxResultBytes } = limits;
  if (caller.grant !== undefined) {
    return host.db.sharedSession(caller.tenant, caller.grant, { actor: caller.actor, maxResultBytes });
  }
  return host.db.session(caller.tenant, {
    actor: caller.actor,
    access: accessOf(caller),
    transactionTimeLimitMs,
    busyTimeoutMs,
    maxResultBytes,
  });
}
