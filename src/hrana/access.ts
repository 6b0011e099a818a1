/**
 * Who may open a stream, on whose database, and what it may do there.
 *
 * The tenant is the credential's. An address may name one too, as a label of the host (`7.db.example.org`) or a prefix of
 * the path (`/tenants/7/`); one that does not agree is refused, in words that tell nothing of it.
 */
import { isIP } from "node:net";
import { authorize, isAuthorized } from "../auth/authorize.ts";
import type { Principal, TenantPrincipal } from "../auth/principal.ts";
import { kimberliteError } from "../errors.ts";
import type { SessionAccess } from "../sql-session.ts";

/** The tenant's principal behind a request for its SQL. @throws `not_authorized` */
export function requireTenant(principal: Principal, named: readonly (string | undefined)[]): TenantPrincipal {
  if (principal.kind !== "tenant") throw notAuthorized();
  const own = String(principal.tenant);
  if (named.some((label) => label !== undefined && label !== own)) throw notAuthorized();
  authorize(principal, principal.grant === undefined ? "sql.read" : "shared.read", principal.tenant);
  return principal;
}

/** What a session of the principal may do; which statement does what, SQLite finds. */
export function accessOf(principal: TenantPrincipal): SessionAccess {
  if (isAuthorized(principal, "sql.schema", principal.tenant)) return "schema";
  return isAuthorized(principal, "sql.write", principal.tenant) ? "rows" : "read";
}

/** The tenant that a host names by its first label; undefined for an address, or a label that is no number. */
export function tenantOfHost(host: string | undefined): string | undefined {
  if (host === undefined || host.startsWith("[")) return undefined;
  const name = host.replace(/:\d*$/, "");
  if (isIP(name) !== 0) return undefined;
  return /^(\d{1,19})\../.exec(name)?.[1];
}

function notAuthorized(): Error {
  return kimberliteError("not_authorized", "the credential does not allow this");
}
