/**
 * Turns of shared reads: each reader has one at a time, and all readers together a few, so that whoever reads what is
 * shared takes neither every lane nor the owner's own.
 */
import { kimberliteError } from "../errors.ts";
import type { TenantId } from "../tenant/tenant-id.ts";

/** Of the six lanes. */
const MAX_AT_A_TIME = 2;
const MAX_WAITING = 1_000;

interface Waiting {
  readonly reader: TenantId;
  readonly go: () => void;
}

export class ReaderTurns {
  readonly #running: Set<TenantId> = new Set();
  #waiting: Waiting[] = [];

  /** Runs the work when it is the reader's turn. @throws `overloaded` when too many wait */
  async run<T>(reader: TenantId, work: () => Promise<T>): Promise<T> {
    if (this.#waiting.length >= MAX_WAITING) {
      throw kimberliteError("overloaded", "too many reads of what is shared wait; try again", {
        retryAfterMs: 100,
      });
    }
    await new Promise<void>((go) => {
      this.#waiting.push({ reader, go });
      this.#next();
    });
    try {
      return await work();
    } finally {
      this.#running.delete(reader);
      this.#next();
    }
  }

  /** The first who waits and has no turn already. */
  #next(): void {
    while (this.#running.size < MAX_AT_A_TIME) {
      const index = this.#waiting.findIndex(({ reader }) => !this.#running.has(reader));
      const [next] = index < 0 ? [] : this.#waiting.splice(index, 1);
      if (next === undefined) return;
      this.#running.add(next.reader);
      next.go();
    }
  }
}
