/**
 * Authentication: what was presented becomes a principal, or is refused without a reason that a guesser could use.
 *
 * API keys are looked up by their public id and compared in constant time. Tokens are verified under the one
 * registration that they name; a verified one is remembered by its digest for up to a minute. Failures are backed off by
 * address and by the credential that was claimed, whether or not there is one, so that one tenant's failures never hold up
 * another and the wait tells nobody what there is; and are noted for the audit stream.
 * A token or key is kept nowhere, in no message and no record.
 */
import { hash } from "node:crypto";
import { LRUCache } from "lru-cache";
import { kimberliteError } from "../errors.ts";
import type { Clock } from "../host/clock.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import { API_KEY_PREFIX, type ApiKeyRecord, endOf, isSecretOf, parseApiKey } from "./api-key.ts";
import type { Authenticator, RequestOrigin } from "./authenticator.ts";
import { BackOff } from "./back-off.ts";
import type { FailureReason } from "./failure.ts";
import type { Incident } from "./incidents.ts";
import type { Issuer } from "./issuer.ts";
import type { IssuerKeys } from "./issuer-keys.ts";
import type { FetchKeys } from "./jwks-fetch.ts";
import type { Credential, Principal } from "./principal.ts";

/** What is known of credentials, from memory: answers are of this very moment. */
export interface Credentials {
  apiKey(id: string): ApiKeyRecord | undefined;
  issuer(tenant: TenantId, issuer: string): Issuer | undefined;
  /** False for a tenant that does not exist, is being erased or was. */
  exists(tenant: TenantId): boolean;
  noteUse(id: string): void;
  noteIncident(incident: Incident): void;
}

export interface AuthenticationParts {
  readonly credentials: Credentials;
  /** Issuers of the node's configuration. */
  readonly nodeIssuers: readonly Issuer[];
  readonly fetchKeys: FetchKeys;
  readonly clock: Clock;
}

const MAX_TOKEN = 8_192;
const MAX_ADDRESS = 64;
const MAX_ABOUT = 100;
const MAX_CLAIMED = 200;
const REMEMBER_MS = 60_000;
const MAX_REMEMBERED = 10_000;

interface Refused {
  readonly refused: FailureReason;
  /** What was named, before it was known whether there is one; absent for what names nothing. */
  readonly claimed?: string;
  readonly tenant?: TenantId | undefined;
  /** Public id of the credential, if it exists. */
  readonly credential?: string;
}

/** What reads tokens. */
interface TokenReader {
  readonly readClaimedIssuer: typeof import("./jwt.ts").readClaimedIssuer;
  readonly verifyToken: typeof import("./jwt.ts").verifyToken;
  readonly keys: IssuerKeys;
}

type Outcome = { readonly principal: Principal } | Refused;

/** What a principal stands on. */
interface Standing {
  readonly issuer: Issuer;
  readonly principal: Principal;
}

export class Authentication implements Authenticator {
  readonly #parts: AuthenticationParts;
  #tokens: Promise<TokenReader> | undefined;
  readonly #nodeIssuers: ReadonlyMap<string, Issuer>;
  readonly #backOff: BackOff = new BackOff();
  readonly #remembered: LRUCache<string, Standing>;
  readonly #standings: WeakMap<Principal, Issuer> = new WeakMap();

  constructor(parts: AuthenticationParts) {
    this.#parts = parts;
    this.#nodeIssuers = new Map(parts.nodeIssuers.map((issuer) => [issuer.issuer, issuer]));
    this.#remembered = new LRUCache({
      max: MAX_REMEMBERED,
      ttl: REMEMBER_MS,
      perf: { now: () => parts.clock.monotonicMs() },
    });
  }

  async authenticate(bearer: string | undefined, origin: RequestOrigin): Promise<Principal> {
    if (bearer === undefined) throw unauthenticated();
    const outcome = this.#readKey(bearer) ?? (await this.#readToken(bearer));
    const address = origin.remoteAddress.slice(0, MAX_ADDRESS);
    if ("principal" in outcome) return outcome.principal;
    throw this.#refuse(outcome, { ...origin, remoteAddress: address });
  }

  recheck(principal: Principal): void {
    const { credential } = principal;
    const nowUs = this.#parts.clock.wallTimeUs();
    const expired = credential.expiresAtUs !== undefined && nowUs >= credential.expiresAtUs;
    if (!expired && this.#stands(principal, nowUs)) return;
    throw unauthenticated();
  }

  noteRefusal(principal: Principal, action: string, origin: RequestOrigin): void {
    // An enrolment's tenant has no log yet, and a refusal does not begin one.
    const own = principal.kind === "tenant" && principal.enrolment !== true;
    this.#parts.credentials.noteIncident({
      tenant: own ? principal.tenant : undefined,
      action: "auth.refuse",
      about: action.slice(0, MAX_ABOUT),
      actor: principal.actor,
      credential: principal.credential.id,
      remoteAddress: origin.remoteAddress.slice(0, MAX_ADDRESS),
      requestId: origin.requestId,
    });
  }

  #stands(principal: Principal, nowUs: bigint): boolean {
    const { credentials } = this.#parts;
    if (principal.kind === "tenant" && !credentials.exists(principal.tenant)) return false;
    if (principal.credential.kind === "api_key") {
      const record = credentials.apiKey(principal.credential.id);
      return record !== undefined && endOf(record, nowUs) === undefined;
    }
    const issuer = this.#standings.get(principal);
    return issuer !== undefined && this.#isCurrent(issuer);
  }

  #isCurrent(issuer: Issuer): boolean {
    if (issuer.tenant === undefined) return this.#nodeIssuers.get(issuer.issuer) === issuer;
    return this.#parts.credentials.issuer(issuer.tenant, issuer.issuer) === issuer;
  }

  /** Undefined for what is no API key. */
  #readKey(bearer: string): Outcome | undefined {
    if (typeof bearer !== "string" || bearer.length > MAX_TOKEN) return { refused: "too_large" };
    if (!bearer.startsWith(API_KEY_PREFIX)) return undefined;
    const presented = parseApiKey(bearer);
    if (presented === undefined) return { refused: "malformed" };
    const { credentials, clock } = this.#parts;
    const record = credentials.apiKey(presented.id);
    const right = isSecretOf(record, presented.hash);
    const claimed = presented.id;
    if (record === undefined) return { refused: "unknown_key", claimed };
    // An enrolment's tenant has no log yet, and failures do not begin one.
    const tenant = record.enrolment === true ? undefined : record.tenant;
    const about = { tenant, credential: record.id, claimed };
    if (!right) return { refused: "wrong_secret", ...about };
    const end = endOf(record, clock.wallTimeUs());
    if (end !== undefined) return { refused: end, ...about };
    if (record.tenant !== undefined && !credentials.exists(record.tenant)) {
      return { refused: "tenant_gone", claimed };
    }
    credentials.noteUse(record.id);
    return { principal: principalOf(record) };
  }

  /** The library of tokens is loaded for the first one: a process that only opens data directories sees none. */
  async #loadTokens(): Promise<TokenReader> {
    const { fetchKeys, clock } = this.#parts;
    const { readClaimedIssuer, verifyToken } = await import("./jwt.ts");
    const { IssuerKeys: Keys } = await import("./issuer-keys.ts");
    return { readClaimedIssuer, verifyToken, keys: new Keys(fetchKeys, clock) };
  }

  async #readToken(bearer: string): Promise<Outcome> {
    this.#tokens ??= this.#loadTokens();
    const { readClaimedIssuer, verifyToken, keys } = await this.#tokens;
    const claimed = readClaimedIssuer(bearer);
    if (claimed === undefined) return { refused: "malformed" };
    const { credentials, clock } = this.#parts;
    const { tenant } = claimed;
    const issuer =
      this.#nodeIssuers.get(claimed.issuer) ??
      (tenant === undefined ? undefined : credentials.issuer(tenant, claimed.issuer));
    const named = `${tenant ?? "-"} ${claimed.issuer}`.slice(0, MAX_CLAIMED);
    if (issuer === undefined) return { refused: "unknown_issuer", claimed: named };
    const digest = hash("sha256", bearer, "base64url");
    const nowUs = clock.wallTimeUs();
    const remembered = this.#recall(digest, nowUs);
    if (remembered !== undefined) return { principal: remembered };
    const verified = await verifyToken(bearer, { issuer, keys, nowUs });
    const about = {
      claimed: named,
      ...(issuer.tenant === undefined ? {} : { tenant: issuer.tenant, credential: issuer.issuer }),
    };
    if ("refused" in verified) return { refused: verified.refused, ...about };
    const { token } = verified;
    if (token.tenant !== undefined && !credentials.exists(token.tenant)) {
      return { refused: "tenant_gone", claimed: named };
    }
    // Removed while its keys were fetched.
    if (!this.#isCurrent(issuer)) return { refused: "unknown_issuer", claimed: named };
    const credential: Credential = {
      kind: "jwt",
      id: token.jti ?? digest.slice(0, 16),
      expiresAtUs: token.expiresAtUs,
    };
    const actor = `${token.subject}@${issuer.issuer}`;
    const principal: Principal = Object.freeze(
      token.role === "operator" || token.tenant === undefined
        ? { kind: "operator", actor, credential }
        : {
            kind: "tenant",
            tenant: token.tenant,
            role: token.role,
            actor,
            credential,
            ...(token.grant === undefined ? {} : { grant: token.grant }),
          },
    );
    this.#standings.set(principal, issuer);
    this.#remembered.set(digest, { issuer, principal });
    return { principal };
  }

  #recall(digest: string, nowUs: bigint): Principal | undefined {
    const { issuer, principal } = this.#remembered.get(digest) ?? {};
    if (issuer === undefined || principal === undefined) return undefined;
    const expired = nowUs >= (principal.credential.expiresAtUs ?? 0n);
    return !expired && this.#stands(principal, nowUs) ? principal : undefined;
  }

  #refuse({ refused, tenant, credential, claimed }: Refused, origin: RequestOrigin): Error {
    const { credentials, clock } = this.#parts;
    const nowMs = clock.monotonicMs();
    credentials.noteIncident({
      tenant,
      action: "auth.fail",
      about: refused,
      actor: "unauthenticated",
      credential,
      ...origin,
    });
    const subject = `${origin.remoteAddress} ${claimed ?? ""}`;
    const waitMs = this.#backOff.fail(subject, nowMs);
    if (waitMs === 0) return unauthenticated();
    return kimberliteError("rate_limited", "too many failed authentications; wait before the next", {
      detail: { policy: "authentication" },
      retryAfterMs: waitMs,
    });
  }
}

function principalOf(record: ApiKeyRecord): Principal {
  const { id, tenant, role, grant, enrolment, expiresAtUs } = record;
  const credential: Credential = {
    kind: "api_key",
    id,
    ...(expiresAtUs === undefined ? {} : { expiresAtUs }),
  };
  const actor = `key:${id}`;
  if (role === "operator" || tenant === undefined) return { kind: "operator", actor, credential };
  return {
    kind: "tenant",
    tenant,
    role,
    actor,
    credential,
    ...(grant === undefined ? {} : { grant }),
    ...(enrolment === undefined ? {} : { enrolment }),
  };
}

/** One message for all reasons. */
function unauthenticated(): Error {
  return kimberliteError("unauthenticated", "the credential is missing or not valid");
}
