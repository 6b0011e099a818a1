/**
 * JWTs (RFC 7519, RFC 8725): what a token claims, and whether its issuer's keys vouch for it.
 *
 * What a token says of itself only selects the registration that it is checked under. `exp` and `aud` must be there; no
 * clock skew is allowed, so a token that expired a second ago is refused. Headers that bring a key or name a place of one
 * (`jwk`, `jku`, `x5c`, `x5u`) are not looked at. The algorithm is one of a list that has neither `none` nor anything
 * symmetric, and a key serves the algorithm of its own kind alone.
 */
import { decodeJwt, errors, type JWTPayload, jwtVerify } from "jose";
import { type KimberliteError, RetryError } from "../errors.ts";
import { TenantId } from "../tenant/tenant-id.ts";
import type { FailureReason } from "./failure.ts";
import { type Issuer, rankOf, TENANT_ROLES } from "./issuer.ts";
import type { IssuerKeys } from "./issuer-keys.ts";
import { ALGORITHMS } from "./jwk.ts";
import type { TenantRole } from "./principal.ts";

/** Claims of ours: which tenant, and as what. */
const TENANT_CLAIM = "kimberlite_tenant";
const ROLE_CLAIM = "kimberlite_role";
const GRANT_CLAIM = "kimberlite_grant";

const MAX_KID = 200;
const MAX_SUBJECT = 100;
const PRINTABLE = /^[\x20-\x7e]+$/;
const COMPACT = /^[\w-]+\.[\w-]+\.[\w-]+$/;
const TOKEN_TYPES: readonly unknown[] = [undefined, "JWT", "jwt", "at+jwt", "application/at+jwt"];

/** What an unverified token says that selects its registration. */
export interface ClaimedIssuer {
  readonly issuer: string;
  /** Absent for a token of an operator. */
  readonly tenant: TenantId | undefined;
}

/** What a verified token allows. */
export interface VerifiedToken {
  readonly tenant: TenantId | undefined;
  readonly role: TenantRole | "operator";
  readonly subject: string;
  readonly grant: string | undefined;
  readonly jti: string | undefined;
  readonly expiresAtUs: bigint;
}

export type Verified = { readonly token: VerifiedToken } | { readonly refused: FailureReason };

/** Undefined for what is no signed token, or does not say who issued it. */
export function readClaimedIssuer(token: string): ClaimedIssuer | undefined {
  if (!COMPACT.test(token)) return undefined;
  let payload: JWTPayload;
  try {
    payload = decodeJwt(token);
  } catch {
    return undefined;
  }
  const { iss } = payload;
  const claimed = payload[TENANT_CLAIM];
  if (typeof iss !== "string") return undefined;
  if (claimed === undefined) return { issuer: iss, tenant: undefined };
  const tenant = parseTenantClaim(claimed);
  return tenant === undefined ? undefined : { issuer: iss, tenant };
}

/** @throws `issuer_unreachable` */
export async function verifyToken(
  token: string,
  about: { readonly issuer: Issuer; readonly keys: IssuerKeys; readonly nowUs: bigint },
): Promise<Verified> {
  const { issuer, keys, nowUs } = about;
  const nowMs = Number(nowUs / 1000n);
  try {
    const { payload } = await jwtVerify(
      token,
      (header, input) => {
        if (!isSoundHeader(header)) throw new errors.JWSInvalid("header");
        return keys.select(issuer, header, input);
      },
      {
        algorithms: [...ALGORITHMS],
        issuer: issuer.issuer,
        audience: issuer.audience,
        requiredClaims: ["exp", "sub"],
        clockTolerance: 0,
        currentDate: new Date(nowMs),
      },
    );
    return readPayload(payload, issuer, nowMs);
  } catch (error) {
    return { refused: reasonOf(error) };
  }
}

function readPayload(payload: JWTPayload, issuer: Issuer, nowMs: number): Verified {
  const { sub = "", exp = 0, iat, jti } = payload;
  if (exp * 1000 - nowMs > issuer.maxLifeMs) return { refused: "life_too_long" };
  // Of a time between two seconds the library looks at the whole ones.
  if (exp * 1000 <= nowMs) return { refused: "expired" };
  if (iat !== undefined && iat * 1000 > nowMs) return { refused: "not_yet_valid" };
  if (sub.length === 0 || sub.length > MAX_SUBJECT || !PRINTABLE.test(sub)) return { refused: "bad_claims" };
  const rest = {
    subject: sub,
    expiresAtUs: BigInt(Math.floor(exp * 1000)) * 1000n,
    jti: typeof jti === "string" && jti.length <= MAX_SUBJECT && PRINTABLE.test(jti) ? jti : undefined,
  };
  const role = payload[ROLE_CLAIM] ?? issuer.defaultRole;
  const tenant = parseTenantClaim(payload[TENANT_CLAIM]);
  if (role === "operator") {
    if (!issuer.operators || payload[TENANT_CLAIM] !== undefined) return { refused: "role_not_allowed" };
    return { token: { ...rest, tenant: undefined, role, grant: undefined } };
  }
  const known = TENANT_ROLES.find((one) => one === role);
  const grant = payload[GRANT_CLAIM];
  if (known === undefined || tenant === undefined) return { refused: "bad_claims" };
  if (grant !== undefined && typeof grant !== "string") return { refused: "bad_claims" };
  if (rankOf(known) > rankOf(issuer.maxRole)) return { refused: "role_not_allowed" };
  if (!mayName(issuer, tenant)) return { refused: "tenant_not_allowed" };
  return { token: { ...rest, tenant, role: known, grant } };
}

/** A tenant's issuer names that tenant; the node's, those that it is limited to. */
function mayName(issuer: Issuer, tenant: TenantId): boolean {
  if (issuer.tenant !== undefined) return issuer.tenant === tenant;
  return issuer.tenants?.has(tenant) ?? true;
}

function isSoundHeader(header: { readonly kid?: unknown; readonly typ?: unknown }): boolean {
  const { kid, typ } = header;
  if (kid !== undefined && (typeof kid !== "string" || kid.length > MAX_KID)) return false;
  return TOKEN_TYPES.includes(typ);
}

function parseTenantClaim(claim: unknown): TenantId | undefined {
  if (typeof claim !== "string" && typeof claim !== "number") return undefined;
  try {
    return TenantId(claim);
  } catch {
    return undefined;
  }
}

const REASONS: Readonly<Record<string, FailureReason>> = {
  ERR_JWT_EXPIRED: "expired",
  ERR_JOSE_ALG_NOT_ALLOWED: "algorithm_not_allowed",
  ERR_JOSE_NOT_SUPPORTED: "algorithm_not_allowed",
  ERR_JWS_SIGNATURE_VERIFICATION_FAILED: "wrong_signature",
  ERR_JWKS_NO_MATCHING_KEY: "unknown_signing_key",
  ERR_JWKS_MULTIPLE_MATCHING_KEYS: "unknown_signing_key",
};

/** @throws what says that nobody can tell for now, and bugs */
function reasonOf(error: unknown): FailureReason {
  if (isRetry(error)) throw error;
  if (error instanceof errors.JWTClaimValidationFailed) {
    if (error.claim === "aud") return "wrong_audience";
    return error.claim === "nbf" ? "not_yet_valid" : "bad_claims";
  }
  if (error instanceof errors.JOSEError) return REASONS[error.code] ?? "malformed";
  // A key of one kind under an algorithm of another.
  if (error instanceof TypeError) return "algorithm_not_allowed";
  throw error;
}

function isRetry(error: unknown): error is KimberliteError {
  return error instanceof RetryError;
}
