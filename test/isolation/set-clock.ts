/** A clock that runs, and is set by hand. */
import type { Clock } from "../../src/host/clock.ts";

export class SetClock implements Clock {
  #offsetUs = 0n;
  wallTimeUs(): bigint {
    return BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) + this.#offsetUs;
  }
  monotonicMs(): number {
    return performance.now();
  }
  move(byUs: bigint): void {
    this.#offsetUs += byUs;
  }
}
