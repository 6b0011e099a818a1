/**
 * Requests that may be sent twice: whoever gives an `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header) gets
 * the first answer again and nothing is done again, also while the first is still under way.
 *
 * What was answered is kept in memory, for a time and in a number that are bounded for each tenant, so that none can
 * push out another's by itself, however many credentials it has. A restart forgets it: what was done before it then
 * answers by itself, with a conflict or the same. A refusal is not kept: the request is tried again. *Not* kept are
 * answers of operations that only read, which are as large as what they read.
 */
import { LRUCache } from "lru-cache";
import { kimberliteError } from "../errors.ts";
import type { Clock } from "../host/clock.ts";

const KEEP_MS = 60 * 60 * 1_000;
const MAX_OWNERS = 10_000;
const MAX_KEYS_PER_OWNER = 200;

interface Kept {
  readonly fingerprint: string;
  readonly answer: Promise<unknown>;
}

/** What one tenant, or the operators together, had done. */
interface Owned {
  /** Not done yet: bounded by the requests that one may have under way, and never pushed out. */
  readonly running: Map<string, Kept>;
  readonly done: LRUCache<string, Kept>;
}

export class IdempotentRequests {
  readonly #clock: Clock;
  readonly #owners: LRUCache<string, Owned>;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#owners = new LRUCache({ max: MAX_OWNERS });
  }

  /**
   * Does the work, unless it was done or is being done under this key.
   *
   * @throws `idempotency_conflict` if the key stands for another request; what the work throws
   */
  run<T>(request: IdempotentRequest, work: () => Promise<T>): Promise<T> {
    const { owner, key, fingerprint } = request;
    const owned = this.#owners.get(owner) ?? this.#begin(owner);
    const former = owned.running.get(key) ?? owned.done.get(key);
    if (former !== undefined) {
      if (former.fingerprint === fingerprint) return former.answer as Promise<T>;
      throw kimberliteError("idempotency_conflict", "the idempotency key was used for another request");
    }
    const kept = { fingerprint, answer: work() };
    owned.running.set(key, kept);
    void kept.answer
      .then(() => owned.done.set(key, kept))
      .catch(() => undefined)
      .finally(() => owned.running.delete(key));
    return kept.answer;
  }

  #begin(owner: string): Owned {
    const done = new LRUCache<string, Kept>({
      max: MAX_KEYS_PER_OWNER,
      ttl: KEEP_MS,
      ttlResolution: 0,
      perf: { now: () => this.#clock.monotonicMs() },
    });
    const owned = { running: new Map<string, Kept>(), done };
    this.#owners.set(owner, owned);
    return owned;
  }
}

export interface IdempotentRequest {
  /** Whose bound it counts in: a tenant's, or the operators'. */
  readonly owner: string;
  /** With who asks in it, so that no other one's is met. */
  readonly key: string;
  /** Tells one request from another. */
  readonly fingerprint: string;
}

/** The key of a header, with or without the quotes of the draft. @throws `invalid_argument` */
export function parseIdempotencyKey(header: string | readonly string[] | undefined): string | undefined {
  if (header === undefined) return undefined;
  const [, quoted, bare] =
    /^(?:"([\x20\x21\x23-\x5b\x5d-\x7e]{1,255})"|([\x21\x23-\x7e]{1,255}))$/.exec(
      typeof header === "string" ? header : "",
    ) ?? [];
  const key = quoted ?? bare;
  if (key !== undefined) return key;
  throw kimberliteError("invalid_argument", "an idempotency key is 1 to 255 printable characters");
}
