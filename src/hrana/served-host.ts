/** What the protocols that are served need of the server that serves them. */
import type { RequestOrigin } from "../auth/authenticator.ts";
import type { Principal } from "../auth/principal.ts";
import type { Clock } from "../host/clock.ts";
import type { Randomness } from "../host/randomness.ts";
import type { Kimberlite } from "../kimberlite.ts";

/** Limits that hold for every protocol. */
export interface ServedLimits {
  /** Most bytes of a request's body, or of a message. */
  readonly maxBodyBytes: number;
  /** Most bytes that wait for a client that does not read; then its connection is closed. */
  readonly maxUnreadBytes: number;
  /** How long a connection may be silent. */
  readonly idleTimeoutMs: number;
}

export interface ServedHost {
  readonly db: Kimberlite;
  readonly clock: Clock;
  readonly randomness: Randomness;
  readonly limits: ServedLimits;
  /** Aborted when the server begins to go down: finish or roll back what is open, and tell clients to come again. */
  readonly draining: AbortSignal;
  /** Checks a credential. @throws as `Authenticator.authenticate` */
  authenticate(bearer: string | undefined, origin: RequestOrigin): Promise<Principal>;
  /** Refuses a principal that stands no more; asked at each request and each fetch. @throws `unauthenticated` */
  recheck(principal: Principal): void;
  /** Notes that the principal was refused something, for its own tenant's audit stream. */
  noteRefusal(principal: Principal, action: string, origin: RequestOrigin): void;
  /**
   * Counts a connection as its tenant's until `close` of its socket, once however often it is asked.
   *
   * @throws `quota_exceeded` with the policy `maxConcurrentConnections`
   */
  holdConnection(principal: Principal, socket: ConnectionSocket): void;
}

/** What is needed of a socket to know when it ends, and to end it. */
export interface ConnectionSocket {
  /** True once it is closing or closed. */
  readonly destroyed: boolean;
  once(event: "close", listener: () => void): unknown;
  destroy(): unknown;
}
