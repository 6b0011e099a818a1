/**
 * The keys of issuers at hand: given ones as they are, published ones fetched, kept, and fetched anew.
 *
 * Keys are fetched when they are ten minutes old, and for a `kid` that is unknown, but not again within ten seconds of a
 * try: tokens with invented `kid`s make no flood of requests. While the issuer cannot be reached, keys are used for up to
 * an hour. Each registration has its own keys, also where two name the same place. Bounded: the least used go first, and so
 * many wait for one place at a time; whoever else comes is told to come again.
 */
import { createLocalJWKSet, errors, type FlattenedJWSInput, type JWSHeaderParameters } from "jose";
import { LRUCache } from "lru-cache";
import { kimberliteError } from "../errors.ts";
import type { Clock } from "../host/clock.ts";
import type { Issuer } from "./issuer.ts";
import type { FetchKeys } from "./jwks-fetch.ts";

type Select = ReturnType<typeof createLocalJWKSet>;
type SigningKey = Awaited<ReturnType<Select>>;

const FRESH_MS = 600_000;
const COOL_DOWN_MS = 10_000;
const STALE_MS = 3_600_000;
const MAX_ISSUERS = 1_000;
const MAX_WAITING = 100;

interface Kept {
  select?: Select;
  fetchedMs: number;
  triedMs: number;
  waiting: number;
  running?: Promise<void>;
}

export class IssuerKeys {
  readonly #fetch: FetchKeys;
  readonly #clock: Clock;
  readonly #kept: LRUCache<Issuer, Kept> = new LRUCache({ max: MAX_ISSUERS });

  constructor(fetch: FetchKeys, clock: Clock) {
    this.#fetch = fetch;
    this.#clock = clock;
  }

  /**
   * The one key that a token's header selects.
   *
   * @throws `issuer_unreachable`; of jose `JWKSNoMatchingKey` and `JWKSMultipleMatchingKeys`
   */
  async select(issuer: Issuer, header: JWSHeaderParameters, token: FlattenedJWSInput): Promise<SigningKey> {
    const kept = this.#kept.get(issuer) ?? this.#begin(issuer);
    if (issuer.jwksUri !== undefined && this.#now() - kept.fetchedMs >= FRESH_MS) {
      await this.#refresh(issuer, kept);
    }
    try {
      return await this.#keysOf(kept)(header, token);
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey) || issuer.jwksUri === undefined) throw error;
      if (this.#now() - kept.triedMs < COOL_DOWN_MS && kept.running === undefined) throw error;
      await this.#refresh(issuer, kept);
      return this.#keysOf(kept)(header, token);
    }
  }

  #begin(issuer: Issuer): Kept {
    const kept: Kept = {
      fetchedMs: Number.NEGATIVE_INFINITY,
      triedMs: Number.NEGATIVE_INFINITY,
      waiting: 0,
    };
    if (issuer.keys !== undefined) kept.select = toSelect(issuer.keys);
    this.#kept.set(issuer, kept);
    return kept;
  }

  #keysOf(kept: Kept): Select {
    const stale = this.#now() - kept.fetchedMs >= STALE_MS && kept.fetchedMs !== Number.NEGATIVE_INFINITY;
    if (kept.select !== undefined && !stale) return kept.select;
    throw this.#unreachable(kept);
  }

  #unreachable(kept: Kept): Error {
    const retryAfterMs = Math.max(1, Math.ceil(kept.triedMs + COOL_DOWN_MS - this.#now()));
    return kimberliteError("issuer_unreachable", "the keys of the token's issuer cannot be fetched for now", {
      retryAfterMs,
    });
  }

  /** Once for all who wait; a failure leaves the keys as they are. */
  async #refresh(issuer: Issuer, kept: Kept): Promise<void> {
    if (kept.running === undefined) {
      if (this.#now() - kept.triedMs < COOL_DOWN_MS) return;
      kept.triedMs = this.#now();
      kept.running = this.#fetchOnce(issuer, kept).finally(() => {
        delete kept.running;
      });
    }
    if (kept.waiting >= MAX_WAITING) throw this.#unreachable(kept);
    kept.waiting += 1;
    await kept.running.finally(() => {
      kept.waiting -= 1;
    });
  }

  async #fetchOnce(issuer: Issuer, kept: Kept): Promise<void> {
    try {
      const keys = await this.#fetch(new URL(issuer.jwksUri ?? ""));
      kept.select = toSelect(keys);
      kept.fetchedMs = this.#now();
    } catch {
      // Whatever the place did, there are no new keys; who needs them is told that they cannot be had.
    }
  }

  #now(): number {
    return this.#clock.monotonicMs();
  }
}

function toSelect(keys: NonNullable<Issuer["keys"]>): Select {
  return createLocalJWKSet({ keys: keys.map((key) => ({ ...key })) });
}
