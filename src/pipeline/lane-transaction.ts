/** Transactions that are held open in a lane, for a bounded time. */
import { kimberliteError } from "../errors.ts";
import type { Lease } from "../projection/lanes.ts";
import type { StatementRequest, StatementResult } from "../projection/writer.ts";

/** The statements of a transaction that is held open. */
export interface LaneTransaction {
  run(requests: readonly StatementRequest[]): Promise<StatementResult[]>;
}

/** The calls of a transaction that is held open: refused once it ended, and ended only when none is running. */
export class OpenTransaction implements LaneTransaction {
  readonly #lease: Lease;
  readonly #untilMs: number;
  readonly #running: Set<Promise<unknown>> = new Set();
  #ended = false;

  /** @param untilMs when the transaction's time is over: no statement of it runs past that. */
  constructor(lease: Lease, untilMs: number) {
    this.#lease = lease;
    this.#untilMs = untilMs;
  }

  async run(requests: readonly StatementRequest[]): Promise<StatementResult[]> {
    if (this.#ended) throw kimberliteError("transaction_closed", "the transaction has ended");
    const leftMs = Math.max(1, Math.ceil(this.#untilMs - performance.now()));
    const running = this.#lease.run(requests.map((request) => ({ ...request, leftMs })));
    this.#running.add(running);
    try {
      return await running;
    } finally {
      this.#running.delete(running);
    }
  }

  async end(): Promise<void> {
    this.#ended = true;
    await Promise.allSettled(this.#running);
  }
}

/** @throws `transaction_timeout` when the work takes longer; it is not stopped by that. */
export async function withTimeLimit<T>(work: Promise<T>, timeLimitMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(
        kimberliteError("transaction_timeout", "the transaction was held open past its time limit", {
          detail: { timeLimitMs },
        }),
      );
    }, timeLimitMs);
  });
  try {
    return await Promise.race([work, limit]);
  } finally {
    clearTimeout(timer);
  }
}
