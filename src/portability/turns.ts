/** Long work in turns of the event loop, so that it holds no other tenant up. */
import { kimberliteError } from "../errors.ts";

const TURN_MS = 10;

/** Gives the others their turn when ours has lasted long enough. */
export class Turns {
  readonly #between: () => void;
  #startedMs: number = performance.now();

  /** @param between asked at each turn: what it throws ends the work */
  constructor(between: () => void) {
    this.#between = between;
  }

  get over(): boolean {
    return performance.now() - this.#startedMs > TURN_MS;
  }

  async next(): Promise<void> {
    await new Promise<void>((resolve) => setImmediate(resolve));
    this.#startedMs = performance.now();
    this.#between();
  }
}

/** @throws `aborted` */
export function refuseIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw kimberliteError("aborted", "the operation was ended by its signal");
}
