/**
 * The port between a server and what knows credentials.
 *
 * A principal comes from here alone. What was authenticated once does not stand for ever: a server that keeps a
 * connection, stream or cursor open asks `recheck` at each request and each fetch.
 */
import type { Principal } from "./principal.ts";

/** Where a request came from; for back-off and audit. */
export interface RequestOrigin {
  /** Address of the peer, or what a trusted proxy says it is. */
  readonly remoteAddress: string;
  readonly requestId: string;
}

export interface Authenticator {
  /**
   * Checks what came as `Authorization: Bearer …` (without the word), or undefined if nothing came.
   *
   * The message of a refusal is the same for every reason, so that it tells a guesser nothing.
   *
   * @throws `unauthenticated`; `rate_limited` with `retryAfterMs` in its place after many failures; `issuer_unreachable`,
   * retryable, if the keys of a token's issuer cannot be had for now
   */
  authenticate(bearer: string | undefined, origin: RequestOrigin): Promise<Principal>;

  /**
   * Refuses a principal whose credential has expired, was revoked, or whose tenant or issuer is gone since. Answers from
   * memory, in the same turn.
   *
   * @throws `unauthenticated`
   */
  recheck(principal: Principal): void;

  /** Notes that the principal was refused something, for the audit stream of its own tenant: counted, then recorded. */
  noteRefusal(principal: Principal, action: string, origin: RequestOrigin): void;
}
