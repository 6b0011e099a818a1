/**
 * Batches, step by step. Of one whose results are taken in pages a step runs when those before it were taken, so that no more is held than one
 * page, or a result that is small.
 *
 * Kept: what one step holds is let go of before the next runs, and when the taker leaves in the middle.
 */
import type { Page } from "./projection/paged-read.ts";
import { resultBytes } from "./projection/values.ts";
import type { BatchOutcome, BatchPart, BatchStep, SessionResult, SessionStatement } from "./sql-session.ts";

/** A result, with the rows that were found, or that are found as they are taken. */
export interface PagedResult extends SessionResult {
  readonly pages?: { next(): Promise<Page>; close(): Promise<void> };
}

export interface PageRunner {
  readonly autocommit: () => boolean;
  /** All steps in one turn, if they can be; undefined if they must run one by one. */
  readonly atOnce?: () => Promise<readonly BatchOutcome[] | undefined>;
  readonly start: (statement: SessionStatement) => Promise<PagedResult>;
}

/** Steps one by one, whose results together are bounded; one that fails does not stop those after it. */
export async function runSteps(
  steps: readonly BatchStep[],
  runner: {
    readonly autocommit: () => boolean;
    readonly maxResultBytes: number;
    readonly run: (statement: SessionStatement, maxResultBytes: number) => Promise<SessionResult>;
  },
): Promise<readonly BatchOutcome[]> {
  const outcomes: BatchOutcome[] = [];
  let leftBytes = runner.maxResultBytes;
  for (const { when, statement, refused } of steps) {
    if (when?.({ outcomes, autocommit: runner.autocommit() }) === false) {
      outcomes.push(undefined);
      continue;
    }
    try {
      if (refused !== undefined) throw refused;
      const result = await runner.run(statement, leftBytes);
      leftBytes -= resultBytes(result.rows);
      outcomes.push({ result });
    } catch (error) {
      outcomes.push({ error: error as Error });
    }
  }
  return outcomes;
}

const NO_ROWS: readonly [] = [];

export async function* pagesOf(
  steps: readonly BatchStep[],
  runner: PageRunner,
): AsyncGenerator<BatchPart, void> {
  const found = await runner.atOnce?.();
  if (found !== undefined) return yield* partsOf(found);
  const outcomes: BatchOutcome[] = [];
  for (const [step, { when, statement, refused }] of steps.entries()) {
    if (when?.({ outcomes, autocommit: runner.autocommit() }) === false) {
      outcomes.push(undefined);
      continue;
    }
    try {
      if (refused !== undefined) throw refused;
      const { rows, pages, ...head } = await runner.start(statement);
      yield { kind: "begin", step, ...head };
      if (rows.length > 0) yield { kind: "rows", rows };
      if (pages !== undefined) yield* takeAll(pages);
      yield { kind: "end", ...head };
      outcomes.push({ result: { ...head, rows: NO_ROWS } });
    } catch (error) {
      outcomes.push({ error: error as Error });
      yield { kind: "error", step, error: error as Error };
    }
  }
}

async function* takeAll(pages: NonNullable<PagedResult["pages"]>): AsyncGenerator<BatchPart, void> {
  try {
    for (;;) {
      const { rows, done } = await pages.next();
      if (rows.length > 0) yield { kind: "rows", rows };
      if (done) return;
    }
  } finally {
    await pages.close();
  }
}

function* partsOf(outcomes: readonly BatchOutcome[]): Generator<BatchPart, void> {
  for (const [step, outcome] of outcomes.entries()) {
    if (outcome === undefined) continue;
    if ("error" in outcome) yield { kind: "error", step, error: outcome.error };
    else {
      const { rows, ...head } = outcome.result;
      yield { kind: "begin", step, ...head };
      if (rows.length > 0) yield { kind: "rows", rows };
      yield { kind: "end", ...head };
    }
  }
}
