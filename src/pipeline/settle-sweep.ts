/**
 * Commits the projections whose transactions have been open for a while, a few at a time: one timer for the node, not
 * one a tenant.
 */

/** What can be settled: see `CommitPipeline.settleNow`. */
export interface Settleable {
  settleNow(): boolean;
}

const SWEEP_MS = 250;
const TURN_MS = 4;

export class SettleSweep {
  #waiting: Set<Settleable> = new Set();
  #timer: NodeJS.Timeout | undefined;

  /** Settles it within about `SWEEP_MS` to twice that, if nobody else does. */
  add(pipeline: Settleable): void {
    this.#waiting.add(pipeline);
    this.#timer ??= this.#schedule(SWEEP_MS);
  }

  /** Lets go of a pipeline that was stopped. */
  forget(pipeline: Settleable): void {
    this.#waiting.delete(pipeline);
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#waiting.clear();
  }

  #schedule(delayMs: number): NodeJS.Timeout {
    return setTimeout(() => this.#sweep(), delayMs).unref();
  }

  #sweep(): void {
    this.#timer = undefined;
    const startedMs = performance.now();
    for (const pipeline of this.#waiting) {
      if (performance.now() - startedMs > TURN_MS) break;
      this.#waiting.delete(pipeline);
      settle(pipeline);
    }
    if (this.#waiting.size > 0) this.#timer ??= this.#schedule(1);
  }
}

/** A pipeline that cannot commit stops itself and is opened anew; nothing acknowledged depends on it. */
function settle(pipeline: Settleable): void {
  try {
    pipeline.settleNow();
  } catch {
    // Its callers are told by the pipeline itself.
  }
}
