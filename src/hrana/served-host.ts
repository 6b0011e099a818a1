/** What the protocols that are served need of the server that serves them. */
import type { RequestOrigin } from "../auth/authenticator.ts";
import type { Principal, TenantPrincipal } from "../auth/principal.ts";
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
   * Notes a failure that the principal is told within an answer that is none itself: counted by its code; of a bug the log
   * has its place; one that its role does not allow is for its tenant's audit stream.
   */
  noteFailure(principal: TenantPrincipal, error: unknown, origin: RequestOrigin): void;
  /** Begins a request over another protocol than HTTP; when it has ended it is counted, logged and traced as those are. */
  beginRequest(name: string, origin: RequestOrigin): (ended: RequestEnd) => void;
  /** True while the node is past what it can serve: who asks is told to come again. */
  isOverloaded(): boolean;
  /** True while it has more connections than it serves. */
  isFull(): boolean;
  /**
   * Counts a connection as its tenant's until `close` of its socket, once however often it is asked.
   *
   * @throws `quota_exceeded` with the policy `maxConcurrentConnections`
   */
  holdConnection(principal: Principal, socket: ConnectionSocket): void;
}

export interface RequestEnd {
  readonly principal: Principal | undefined;
  /** What it was refused with, or failed by; undefined if it did not. */
  readonly error: unknown;
}

/** What is needed of a socket to know when it ends, and to end it. */
export interface ConnectionSocket {
  /** True once it is closing or closed. */
  readonly destroyed: boolean;
  /** Bytes that were written and that the other side did not take yet. */
  readonly writableLength: number;
  once(event: "close", listener: () => void): unknown;
  destroy(): unknown;
}
