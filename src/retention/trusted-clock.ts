/**
 * Time that retention may rely on: it neither goes back nor jumps ahead with the machine's clock.
 *
 * While the process runs it goes with the monotonic clock. From one run to the next it goes on from what was recorded:
 * with the wall clock as far as that moved since, but by no more than `maxGapMs`. So a clock that is set a year ahead
 * ends no retention, and one that is set back makes no record older than it is, but for an hour.
 *
 * Survives: a clock set back or ahead, while running or between two runs; a process killed before it recorded. Not held
 * off: who moves the clock in small steps over many restarts, or changes the program.
 */
import type { Clock } from "../host/clock.ts";

/** What is recorded of time, in microseconds since 1970-01-01T00:00:00Z. */
export interface RecordedTime {
  readonly trustedUs: bigint;
  readonly wallUs: bigint;
}

/** Clocks are put right by seconds all the time; that is not what retention is held against. */
const SLACK_US = 3_600_000_000n;

export class TrustedClock implements Clock {
  readonly #host: Clock;
  readonly #maxGapUs: bigint;
  #startUs: bigint | undefined;
  #startMonotonicMs = 0;

  constructor(host: Clock, maxGapMs: number) {
    this.#host = host;
    this.#maxGapUs = BigInt(maxGapMs) * 1000n;
  }

  /**
   * Goes on from what was recorded; without a record it begins with the wall clock.
   *
   * @returns by how much the wall clock is ahead (positive) or behind (negative) of what is trusted now.
   */
  begin(recorded: RecordedTime | undefined): bigint {
    const wallUs = this.#host.wallTimeUs();
    this.#startMonotonicMs = this.#host.monotonicMs();
    this.#startUs = recorded === undefined ? wallUs : this.#resume(recorded, wallUs);
    return wallUs - this.#startUs;
  }

  /** The trusted time. Before `begin` it is the wall clock's. */
  trustedUs(): bigint {
    if (this.#startUs === undefined) return this.#host.wallTimeUs();
    return this.#startUs + BigInt(Math.floor((this.#host.monotonicMs() - this.#startMonotonicMs) * 1000));
  }

  /** The wall clock, but never an hour or more before the trusted time. */
  wallTimeUs(): bigint {
    const wallUs = this.#host.wallTimeUs();
    const trustedUs = this.trustedUs();
    return wallUs > trustedUs - SLACK_US ? wallUs : trustedUs;
  }

  monotonicMs(): number {
    return this.#host.monotonicMs();
  }

  /** What is to be recorded now. */
  record(): RecordedTime {
    return { trustedUs: this.trustedUs(), wallUs: this.#host.wallTimeUs() };
  }

  #resume(recorded: RecordedTime, wallUs: bigint): bigint {
    const movedUs = wallUs - recorded.wallUs;
    if (movedUs <= 0n) return recorded.trustedUs;
    return recorded.trustedUs + (movedUs < this.#maxGapUs ? movedUs : this.#maxGapUs);
  }
}
