/**
 * Who a request speaks for, once its credential was checked.
 *
 * A principal is made by authentication alone, and never from what a request says of itself. The tenant of a
 * principal is the only tenant that it can name; an operator runs the node and reads no tenant's data.
 */
import type { TenantId } from "../tenant/tenant-id.ts";

/** Roles within a tenant: `reader` reads, `writer` also writes rows and events, `admin` also changes schema and governs. */
export type TenantRole = "reader" | "writer" | "admin";

/** What was presented. Its id is public: it names the key or token in the audit stream. */
export interface Credential {
  readonly kind: "api_key" | "jwt";
  readonly id: string;
  /** Microseconds since 1970; absent when it does not expire. */
  readonly expiresAtUs?: bigint;
}

export interface TenantPrincipal {
  readonly kind: "tenant";
  readonly tenant: TenantId;
  readonly role: TenantRole;
  /** Recorded as the actor of what it does. */
  readonly actor: string;
  readonly credential: Credential;
  /** The token is scoped to this grant: it reads what the grant shares, and nothing of its own tenant. */
  readonly grant?: string;
  /** Made by an operator for a tenant that has nothing yet: it makes the tenant's first key, once, and does nothing else. */
  readonly enrolment?: true;
}

export interface OperatorPrincipal {
  readonly kind: "operator";
  readonly actor: string;
  readonly credential: Credential;
}

export type Principal = TenantPrincipal | OperatorPrincipal;
