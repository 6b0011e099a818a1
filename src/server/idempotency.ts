/**
 * Requests that may be sent twice: whoever gives an `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header) gets
 * the first answer again and nothing is done again, also while the first is still under way.
 *
 * What was answered is kept in memory, for a time and in a number that are bounded for each caller, so that none can
 * push out another's. A restart forgets it: what was done before it then answers by itself, with a conflict or the same.
 * A refusal is not kept: the request is tried again.
 */
import { LRUCache } from "lru-cache";
import { kimberliteError } from "../errors.ts";

const KEEP_MS = 60 * 60 * 1_000;
const MAX_CALLERS = 1_000;
const MAX_KEYS_PER_CALLER = 100;

interface Kept {
  readonly fingerprint: string;
  readonly answer: Promise<unknown>;
}

export class IdempotentRequests {
  readonly #callers = new LRUCache<string, LRUCache<string, Kept>>({ max: MAX_CALLERS });

  /**
   * Does the work, unless the caller had it done under this key.
   *
   * @throws `idempotency_conflict` if the key stands for another request; what the work throws
   */
  run<T>(request: IdempotentRequest, work: () => Promise<T>): Promise<T> {
    const { caller, key, fingerprint } = request;
    let kept = this.#callers.get(caller);
    if (kept === undefined) {
      kept = new LRUCache({ max: MAX_KEYS_PER_CALLER, ttl: KEEP_MS });
      this.#callers.set(caller, kept);
    }
    const former = kept.get(key);
    if (former !== undefined) {
      if (former.fingerprint === fingerprint) return former.answer as Promise<T>;
      throw kimberliteError("idempotency_conflict", "the idempotency key was used for another request");
    }
    const answer = work();
    const ofCaller = kept;
    ofCaller.set(key, { fingerprint, answer });
    answer.catch(() => ofCaller.delete(key));
    return answer;
  }
}

export interface IdempotentRequest {
  /** Whose key it is. */
  readonly caller: string;
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
