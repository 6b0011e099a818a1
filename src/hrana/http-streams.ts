/**
 * Streams over HTTP, which live between requests and are found again by their baton.
 *
 * A baton is the stream's id and a secret, both random; each answer gives another secret, and a secret is good for one
 * request of the same principal. What is wrong with one is never told apart: unknown, used, expired, another's.
 * Bounded in number for each tenant and in all; a stream that is idle too long is closed, and its transaction rolled back.
 */
import { timingSafeEqual } from "node:crypto";
import type { TenantPrincipal } from "../auth/principal.ts";
import { kimberliteError } from "../errors.ts";
import type { Clock } from "../host/clock.ts";
import type { Randomness } from "../host/randomness.ts";
import type { HranaLimits } from "./limits.ts";
import type { SqlStream } from "./sql-stream.ts";

const ID_BYTES = 16;
const SECRET_BYTES = 32;
const BATON_CHARACTERS = 64;
const SWEEP_MS = 500;

export interface HttpStream {
  readonly id: string;
  readonly principal: TenantPrincipal;
  readonly stream: SqlStream;
}

interface Kept extends HttpStream {
  /** Of the request that came last, whose credential may be newer. */
  principal: TenantPrincipal;
  /** Undefined while a request is under way. */
  secret: Buffer | undefined;
  idleSinceMs: number;
}

export interface HttpStreamParts {
  readonly limits: HranaLimits;
  readonly clock: Clock;
  readonly randomness: Randomness;
  /** Asked for every stream by the clock, so that what it holds ends with its credential. @throws `unauthenticated` */
  readonly recheck: (principal: TenantPrincipal) => void;
}

export class HttpStreams {
  readonly #parts: HttpStreamParts;
  readonly #streams: Map<string, Kept> = new Map();
  readonly #ofTenant: Map<bigint, number> = new Map();
  readonly #sweep: NodeJS.Timeout;
  #closed = false;

  constructor(parts: HttpStreamParts) {
    this.#parts = parts;
    this.#sweep = setInterval(() => this.#look(), SWEEP_MS);
    this.#sweep.unref();
  }

  get size(): number {
    return this.#streams.size;
  }

  /** Makes a stream, which counts until it is given back for good. @throws `quota_exceeded` (policy `maxConcurrentStreams`), `overloaded`, `draining` */
  open(principal: TenantPrincipal, make: (stands: () => void) => SqlStream): HttpStream {
    const { limits, randomness } = this.#parts;
    if (this.#closed) throw kimberliteError("draining", "the server is going down; try again elsewhere");
    const held = this.#ofTenant.get(principal.tenant) ?? 0;
    if (held >= limits.maxStreamsPerTenant) {
      throw kimberliteError("quota_exceeded", "the tenant has too many streams open", {
        detail: {
          tenant: principal.tenant,
          policy: "maxConcurrentStreams",
          limit: limits.maxStreamsPerTenant,
        },
      });
    }
    if (this.#streams.size >= limits.maxStreams) {
      throw kimberliteError("overloaded", "the server has too many streams open", { retryAfterMs: 1_000 });
    }
    const id = randomness.bytes(ID_BYTES).toString("base64url");
    const stands = (): void => this.#parts.recheck(kept.principal);
    const kept: Kept = { id, principal, stream: make(stands), secret: undefined, idleSinceMs: 0 };
    this.#streams.set(id, kept);
    this.#ofTenant.set(principal.tenant, held + 1);
    return kept;
  }

  /** The stream that a baton stands for, for one request. @throws `baton_invalid` */
  take(baton: string, principal: TenantPrincipal): HttpStream {
    const [id, secret] = parseBaton(baton);
    const kept = this.#streams.get(id);
    const expected = kept?.secret ?? Buffer.alloc(SECRET_BYTES);
    const matches = timingSafeEqual(expected, secret);
    if (kept?.secret === undefined || !matches || !isSame(kept.principal, principal)) throw batonInvalid();
    kept.secret = undefined;
    kept.principal = principal;
    return kept;
  }

  /** The baton under which a stream will be found once its request has ended. */
  newBaton(): { readonly secret: Buffer; readonly batonOf: (stream: HttpStream) => string } {
    const secret = this.#parts.randomness.bytes(SECRET_BYTES);
    return { secret, batonOf: ({ id }) => `${id}.${secret.toString("base64url")}` };
  }

  /** Gives a stream back after a request, to be found under the secret; without one, or closed, it ends. */
  async giveBack({ id }: HttpStream, secret: Buffer | undefined): Promise<void> {
    const kept = this.#streams.get(id);
    if (kept === undefined) return;
    if (secret === undefined || kept.stream.closed || this.#closed) return this.#end(kept);
    kept.secret = secret;
    kept.idleSinceMs = this.#parts.clock.monotonicMs();
  }

  /** Ends every stream that no request uses; the others end with their request. */
  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#sweep);
    const idle = [...this.#streams.values()].filter(({ secret }) => secret !== undefined);
    await Promise.all(idle.map((kept) => this.#end(kept)));
  }

  /** Ends what is idle too long, and what lost its credential: also a cursor whose client does not read, with its snapshot. */
  #look(): void {
    const now = this.#parts.clock.monotonicMs();
    for (const kept of this.#streams.values()) {
      const idleMs = kept.secret === undefined ? 0 : now - kept.idleSinceMs;
      if (idleMs > this.#parts.limits.streamIdleMs || !this.#stands(kept.principal)) void this.#end(kept);
    }
  }

  #stands(principal: TenantPrincipal): boolean {
    try {
      this.#parts.recheck(principal);
      return true;
    } catch {
      return false;
    }
  }

  async #end(kept: Kept): Promise<void> {
    if (!this.#streams.delete(kept.id)) return;
    kept.secret = undefined;
    const { tenant } = kept.principal;
    const left = (this.#ofTenant.get(tenant) ?? 1) - 1;
    if (left === 0) this.#ofTenant.delete(tenant);
    else this.#ofTenant.set(tenant, left);
    await kept.stream.close();
  }
}

function parseBaton(baton: string): [string, Buffer] {
  if (baton.length > BATON_CHARACTERS + 16) throw batonInvalid();
  const [id = "", text = ""] = baton.split(".");
  const secret = Buffer.from(text, "base64url");
  // One secret has one spelling: the last character has bits that do not count.
  if (secret.length !== SECRET_BYTES || `${id}.${secret.toString("base64url")}` !== baton)
    throw batonInvalid();
  return [id, secret];
}

/** The same tenant, actor and rights; its credential may be a newer one. */
function isSame(a: TenantPrincipal, b: TenantPrincipal): boolean {
  return a.tenant === b.tenant && a.actor === b.actor && a.role === b.role && a.grant === b.grant;
}

function batonInvalid(): Error {
  return kimberliteError(
    "baton_invalid",
    "the baton names no open stream of the caller's: it is unknown, used already, or expired",
  );
}
