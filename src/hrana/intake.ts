/**
 * What a connection has taken and not answered yet: bounded in requests and in bytes. Past that, and while it is not known
 * who asks, nothing more is read from it.
 */

export interface IntakeLimits {
  readonly maxRequests: number;
  readonly maxBytes: number;
  /** Requests that run at once; the others wait their turn. */
  readonly maxRunning: number;
}

export interface Tap {
  pause(): void;
  resume(): void;
}

export class Intake {
  readonly #limits: IntakeLimits;
  readonly #tap: Tap;
  #requests = 0;
  #bytes = 0;
  #held = 0;
  #running = 0;
  readonly #turns: (() => void)[] = [];
  readonly #idle: (() => void)[] = [];
  #paused = false;
  #ended = false;

  constructor(limits: IntakeLimits, tap: Tap) {
    this.#limits = limits;
    this.#tap = tap;
  }

  /** Counts a message until the returned function is called. */
  take(bytes: number): () => void {
    this.#requests += 1;
    this.#bytes += bytes;
    this.#update();
    return () => {
      this.#requests -= 1;
      this.#bytes -= bytes;
      this.#update();
      if (this.#requests === 0) for (const wake of this.#idle.splice(0)) wake();
    };
  }

  /** Reads nothing until the work is done. */
  async hold<T>(work: Promise<T>): Promise<T> {
    this.#held += 1;
    this.#update();
    try {
      return await work;
    } finally {
      this.#held -= 1;
      this.#update();
    }
  }

  /** Runs work when few enough others run. */
  async inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running >= this.#limits.maxRunning && !this.#ended) {
      await new Promise<void>((resolve) => this.#turns.push(resolve));
    } else this.#running += 1;
    try {
      return await work();
    } finally {
      // Its turn is the next one's, if there is one.
      const next = this.#turns.shift();
      if (next === undefined) this.#running -= 1;
      else next();
    }
  }

  /** Resolves when everything that was taken is answered. */
  async idle(): Promise<void> {
    if (this.#requests > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  /** Lets everything that waits go on, to find that the connection is over. */
  end(): void {
    this.#ended = true;
    for (const turn of this.#turns.splice(0)) {
      this.#running += 1;
      turn();
    }
  }

  #update(): void {
    const { maxRequests, maxBytes } = this.#limits;
    const full = this.#held > 0 || this.#requests >= maxRequests || this.#bytes >= maxBytes;
    if (full === this.#paused) return;
    this.#paused = full;
    if (full) this.#tap.pause();
    else this.#tap.resume();
  }
}
