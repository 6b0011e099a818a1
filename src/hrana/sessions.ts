/** The session behind a stream: on the caller's own tenant, with what its role may do. */
import type { TenantPrincipal } from "../auth/principal.ts";
import { kimberliteError } from "../errors.ts";
import type { SqlSession } from "../sql-session.ts";
import { accessOf } from "./access.ts";
import type { HranaLimits } from "./limits.ts";
import type { ServedHost } from "./served-host.ts";

/** @throws `tenant_not_found`, `tenant_suspended`, `not_authorized` */
export function openSession(host: ServedHost, caller: TenantPrincipal, limits: HranaLimits): SqlSession {
  if (caller.grant !== undefined) {
    throw kimberliteError("not_authorized", "a credential of a grant reads nothing of its own tenant");
  }
  const { transactionTimeLimitMs, busyTimeoutMs, maxResultBytes } = limits;
  return host.db.session(caller.tenant, {
    actor: caller.actor,
    access: accessOf(caller),
    transactionTimeLimitMs,
    busyTimeoutMs,
    maxResultBytes,
  });
}
