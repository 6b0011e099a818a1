/** Transactions that are held open in a lane, for a bounded time. */
import { kimberliteError } from "../errors.ts";
import type { SessionStep, StepOutcome, SubjectErased } from "../projection/lane-protocol.ts";
import type { Lease } from "../projection/lanes.ts";
import type { StatementRequest, StatementResult } from "../projection/writer.ts";

/** The statements of a transaction that is held open. */
export interface LaneTransaction {
  /** One step, whose failure leaves the transaction open unless the outcome says otherwise. */
  step(step: SessionStep): Promise<StepOutcome>;
  run(requests: readonly StatementRequest[]): Promise<StatementResult[]>;
  /** Notes, in the transaction, that a subject is erased. */
  eraseSubject(erased: SubjectErased): Promise<void>;
}

/** The calls of a transaction that is held open: refused once it ended, and ended only when none is running. */
export class OpenTransaction implements LaneTransaction {
  readonly #lease: Lease;
  readonly #untilMs: number;
  /** Of the record that it will be: the tenant's writer is its alone. */
  readonly #nextOffset: bigint;
  readonly #running: Set<Promise<unknown>> = new Set();
  #ended = false;

  /** @param at `untilMs` is when the transaction's time is over: no statement of it runs past that. */
  constructor(lease: Lease, at: { readonly untilMs: number; readonly nextOffset: bigint }) {
    this.#lease = lease;
    this.#untilMs = at.untilMs;
    this.#nextOffset = at.nextOffset;
  }

  async run(requests: readonly StatementRequest[]): Promise<StatementResult[]> {
    const leftMs = this.#leftMs();
    return this.#call(() => this.#lease.run(requests.map((request) => ({ ...request, leftMs }))));
  }

  async step(step: SessionStep): Promise<StepOutcome> {
    const leftMs = this.#leftMs();
    const bounded =
      step.kind === "run"
        ? { ...step, request: { ...step.request, leftMs } }
        : step.kind === "next-page"
          ? { ...step, mostMs: Math.min(step.mostMs, leftMs) }
          : step;
    return this.#call(() => this.#lease.step(bounded));
  }

  eraseSubject(erased: SubjectErased): Promise<void> {
    return this.#call(() => this.#lease.eraseSubject(erased, this.#nextOffset));
  }

  #leftMs(): number {
    return Math.max(1, Math.ceil(this.#untilMs - performance.now()));
  }

  async #call<T>(begin: () => Promise<T>): Promise<T> {
    if (this.#ended) throw kimberliteError("transaction_closed", "the transaction has ended");
    const running = begin();
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
