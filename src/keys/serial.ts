/** One thing at a time, in the order asked for. */

/** Runs works one after another; one that fails does not stop the next. */
export class Serial {
  #last: Promise<unknown> = Promise.resolve();
  #waiting = 0;

  /** True when nothing runs or waits. */
  get idle(): boolean {
    return this.#waiting === 0;
  }

  /** Runs `work` after all earlier ones have ended; settles as `work` does. */
  run<T>(work: () => Promise<T>): Promise<T> {
    this.#waiting += 1;
    const done = this.#last.then(work).finally(() => {
      this.#waiting -= 1;
    });
    this.#last = done.catch(() => undefined);
    return done;
  }
}
