/**
 * How hard it is made to go on guessing: after a few failures with one credential from one address, each further failure
 * is answered with a time to wait, which doubles.
 *
 * Only failures are answered so: what is right is let in at once, whatever came before it. A secret has 256 random bits,
 * which nobody guesses, so a lock would hold off no attacker; but anyone who knows a key's id, which is public, or sits
 * behind the same proxy, could turn it on its owner. What is kept is bounded; the oldest is forgotten first.
 */
import { LRUCache } from "lru-cache";

const FREE_FAILURES = 5;
const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 60_000;
const FORGET_AFTER_MS = 600_000;
const MAX_SUBJECTS = 10_000;

interface Streak {
  readonly failures: number;
  readonly lastMs: number;
}

export class BackOff {
  readonly #streaks: LRUCache<string, Streak> = new LRUCache({ max: MAX_SUBJECTS });

  /** Counts a failure. @returns how long to wait before the next try; 0 while there were few */
  fail(subject: string, nowMs: number): number {
    const known = this.#streaks.get(subject);
    const fresh = known !== undefined && nowMs - known.lastMs < FORGET_AFTER_MS;
    const failures = (fresh ? known.failures : 0) + 1;
    this.#streaks.set(subject, { failures, lastMs: nowMs });
    const over = failures - FREE_FAILURES;
    return over <= 0 ? 0 : Math.min(FIRST_WAIT_MS * 2 ** (over - 1), LONGEST_WAIT_MS);
  }

  get size(): number {
    return this.#streaks.size;
  }
}
