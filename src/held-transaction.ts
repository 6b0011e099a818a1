/**
 * What a session holds over several calls: the tenant's writer, or a snapshot, in a lane, for a bounded time.
 *
 * Kept: it ends by itself past its time, and nothing of it stays; a caller that waits too long for the writer is told so
 * and holds nothing. A transaction is committed only when its caller says so while it is still there.
 */
import { kimberliteError } from "./errors.ts";
import { type LaneTransaction, OpenTransaction, withTimeLimit } from "./pipeline/lane-transaction.ts";
import type { SessionStep, StepOutcome } from "./projection/lane-protocol.ts";
import type { SessionPorts } from "./sql-session.ts";

export interface Held {
  /** True for a snapshot, which can be read in pages. */
  readonly reads: boolean;
  /** Why it is not there any more, though its caller did not end it. */
  readonly ended: Error | undefined;
  step(step: SessionStep): Promise<StepOutcome>;
  /** @returns the offset of its record; undefined if it changed nothing */
  commit(): Promise<bigint | undefined>;
  rollback(): Promise<void>;
}

type HoldPorts = Pick<SessionPorts, "context" | "hold" | "operate">;

/** Runs work over what is held, until its caller decides; rejected means rolled back. */
type Hold = (whileHeld: (transaction: LaneTransaction) => Promise<void>) => Promise<HoldEnd>;

type HoldEnd = { readonly offset: bigint | undefined } | undefined;

class HeldInLane implements Held {
  readonly #transaction: LaneTransaction;
  readonly #decision: PromiseWithResolvers<void>;
  readonly #done: Promise<HoldEnd>;
  #decided = false;
  readonly reads: boolean;
  ended: Error | undefined;

  private constructor(
    transaction: LaneTransaction,
    decision: PromiseWithResolvers<void>,
    done: Promise<HoldEnd>,
    reads: boolean,
  ) {
    this.reads = reads;
    this.#transaction = transaction;
    this.#decision = decision;
    this.#done = done;
    done.catch((error: unknown) => {
      if (!this.#decided) this.ended = error as Error;
    });
  }

  static async hold(hold: Hold, busyTimeoutMs: number, reads: boolean): Promise<HeldInLane> {
    const begun = Promise.withResolvers<LaneTransaction>();
    const decision = Promise.withResolvers<void>();
    decision.promise.catch(() => undefined);
    const done = hold(async (transaction) => {
      begun.resolve(transaction);
      await decision.promise;
    });
    done.catch((error: unknown) => begun.reject(error));
    const timer = setTimeout(() => {
      const error = busy();
      decision.reject(error);
      begun.reject(error);
    }, busyTimeoutMs);
    try {
      return new HeldInLane(await begun.promise, decision, done, reads);
    } finally {
      clearTimeout(timer);
    }
  }

  step(step: SessionStep): Promise<StepOutcome> {
    return this.#transaction.step(step);
  }

  async commit(): Promise<bigint | undefined> {
    this.#decided = true;
    this.#decision.resolve();
    return (await this.#done)?.offset;
  }

  async rollback(): Promise<void> {
    this.#decided = true;
    this.#decision.reject(kimberliteError("transaction_closed", "the transaction is rolled back"));
    await this.#done.catch(() => undefined);
  }
}

/** A transaction that holds the tenant's writer. */
export const HeldTransaction = {
  /** @throws `overloaded` (SQLite's `SQLITE_BUSY`) when another transaction does not end in time */
  begin({ context, hold, operate }: HoldPorts, foreignKeys: boolean): Promise<Held> {
    const { timeLimitMs } = hold;
    return HeldInLane.hold(
      (whileHeld) =>
        operate(
          (engine) => engine.pipeline.interact(context, whileHeld, { timeLimitMs, foreignKeys }),
          "once",
        ),
      hold.busyTimeoutMs,
      false,
    );
  },
};

/** A snapshot that is read over several calls. */
export const HeldRead = {
  begin({ hold, operate }: HoldPorts): Promise<Held> {
    const { timeLimitMs } = hold;
    return HeldInLane.hold(
      (whileHeld) =>
        operate(
          (engine) =>
            engine.holdSnapshot(async (lease) => {
              const open = new OpenTransaction(lease, {
                untilMs: performance.now() + timeLimitMs,
                nextOffset: engine.log.nextOffset,
              });
              try {
                await withTimeLimit(whileHeld(open), timeLimitMs);
              } finally {
                await open.end();
              }
              return undefined;
            }),
          "once",
        ),
      hold.busyTimeoutMs,
      true,
    );
  },
};

function busy(): Error {
  return kimberliteError("overloaded", "database is locked: another transaction is open", {
    detail: { sqlite: "SQLITE_BUSY" },
    retryAfterMs: 100,
  });
}
