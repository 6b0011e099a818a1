/**
 * Issuers of JWTs: who may mint tokens, for which tenant, and how they are checked.
 *
 * A tenant's issuer is known under the tenant and its `iss` together: a token names both, and is verified under the keys
 * of that registration alone. So two tenants may use one identity provider, and neither's keys make a token of the
 * other. An issuer of the node's own configuration may name any tenant, or those that it is limited to.
 */
import { kimberliteError } from "../errors.ts";
import { parseCount, parseOptions } from "../tenant/call-options.ts";
import type { Duration } from "../tenant/duration.ts";
import { TenantId } from "../tenant/tenant-id.ts";
import { type PublicJwk, parseStaticKeys } from "./jwk.ts";
import { type JwksPolicy, parseJwksUri } from "./jwks-uri.ts";
import type { TenantRole } from "./principal.ts";

/** The argument of `registerIssuer`. Either `jwksUri` or `keys`. */
export interface IssuerConfig {
  /** The `iss` of its tokens, exactly. */
  readonly issuer: string;
  /** What the `aud` of its tokens must hold. */
  readonly audience: string;
  /** Where its public keys are: https, no redirects. Fetched when needed, kept, and fetched anew for an unknown `kid`. */
  readonly jwksUri?: string;
  /** Its public keys themselves: Ed25519, P-256, or RSA of 2,048 bits and more. */
  readonly keys?: readonly PublicJwk[];
  /** The most that a token of it may be; `admin` unless given. */
  readonly maxRole?: TenantRole;
  /** What a token without a role is; without this it is refused. */
  readonly defaultRole?: TenantRole;
  /** Longest time from now to a token's `exp`; a day unless given. */
  readonly maxLife?: Duration;
}

/** An issuer of the node's own configuration. */
export interface NodeIssuerConfig extends IssuerConfig {
  /** Tenants that it may name; all unless given. */
  readonly tenants?: readonly TenantId[];
  /** True if its tokens may have the role `operator`; they then name no tenant. */
  readonly operators?: boolean;
}

/** What is known of an issuer. */
export interface IssuerDescription {
  readonly issuer: string;
  readonly audience: string;
  readonly jwksUri?: string;
  readonly keys?: readonly PublicJwk[];
  readonly maxRole: TenantRole;
  readonly defaultRole?: TenantRole;
  readonly maxLifeMs: number;
}

/** An issuer as tokens are checked against it. */
export interface Issuer extends IssuerDescription {
  /** Absent for the node's. */
  readonly tenant?: TenantId;
  readonly tenants?: ReadonlySet<TenantId>;
  readonly operators: boolean;
}

/** An issuer that a tenant registered. */
export interface RegisteredIssuer extends IssuerDescription {
  readonly tenant: TenantId;
  readonly createdAtUs: bigint;
  readonly createdBy: string;
}

export const TENANT_ROLES: readonly TenantRole[] = ["reader", "writer", "admin"];

const MAX_ISSUER = 140;
const DAY_MS = 86_400_000;
const MAX_LIFE_MS = 366 * DAY_MS;
const PRINTABLE = /^[\x21-\x7e]+$/;

/** @throws `invalid_argument` */
export function parseIssuer(config: IssuerConfig, policy: JwksPolicy): IssuerDescription {
  const { jwksUri, keys, maxRole = "admin", defaultRole, maxLife, ...names } = parseOptions(config);
  if ((jwksUri === undefined) === (keys === undefined)) {
    throw kimberliteError("invalid_argument", "an issuer has either jwksUri or keys");
  }
  const role = parseTenantRole(maxRole);
  if (defaultRole !== undefined && rankOf(parseTenantRole(defaultRole)) > rankOf(role)) {
    throw kimberliteError("invalid_argument", "defaultRole is no more than maxRole");
  }
  return Object.freeze({
    issuer: parseName(names.issuer, "issuer"),
    audience: parseName(names.audience, "audience"),
    ...(jwksUri === undefined ? {} : { jwksUri: parseJwksUri(jwksUri, policy).href }),
    ...(keys === undefined ? {} : { keys: parseStaticKeys(keys) }),
    maxRole: role,
    ...(defaultRole === undefined ? {} : { defaultRole }),
    maxLifeMs: parseCount(maxLife === undefined ? DAY_MS : maxLife?.ms, {
      name: "maxLife in ms",
      min: 1,
      max: MAX_LIFE_MS,
    }),
  });
}

/** @throws `invalid_argument` */
export function parseNodeIssuer(config: NodeIssuerConfig, policy: JwksPolicy): Issuer {
  const { tenants, operators = false } = parseOptions(config);
  if (typeof operators !== "boolean" || (tenants !== undefined && !Array.isArray(tenants))) {
    throw kimberliteError("invalid_argument", "operators is true or false, tenants a list");
  }
  return Object.freeze({
    ...parseIssuer(config, policy),
    operators,
    ...(tenants === undefined ? {} : { tenants: new Set(tenants.map((tenant) => TenantId(tenant))) }),
  });
}

/** @throws `invalid_argument` */
export function parseTenantRole(role: unknown): TenantRole {
  const known = TENANT_ROLES.find((one) => one === role);
  if (known === undefined) throw kimberliteError("invalid_argument", "a role is reader, writer or admin");
  return known;
}

export function rankOf(role: TenantRole): number {
  return TENANT_ROLES.indexOf(role);
}

function parseName(value: unknown, name: string): string {
  if (typeof value === "string" && value.length <= MAX_ISSUER && PRINTABLE.test(value)) return value;
  throw kimberliteError("invalid_argument", `${name} is 1 to ${MAX_ISSUER} printable ASCII characters`);
}
