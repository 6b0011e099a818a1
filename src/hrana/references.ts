/**
 * What a request refers to: texts that were stored, and earlier steps of its batch.
 *
 * Kept: it is looked up when the request comes, for clients close a text as soon as they have sent what refers to it; a
 * batch that refers to what is not there is refused whole, before any of it runs.
 */
import { invalid } from "./limits.ts";
import type { BatchCond, HranaBatch, SqlReference, StreamRequest } from "./protocol.ts";
import type { SqlStore } from "./sql-store.ts";

/** The request with its texts in it. @throws `invalid_argument` */
export function resolveRequest(request: StreamRequest, store: SqlStore): StreamRequest {
  switch (request.type) {
    case "execute":
      return { ...request, stmt: resolved(request.stmt, store) };
    case "batch":
      return { ...request, batch: resolveBatch(request.batch, store) };
    case "sequence":
    case "describe":
      return resolved(request, store);
    default:
      return request;
  }
}

/** The batch with its texts in it. @throws `invalid_argument` also for a condition on a step that is not before its own */
export function resolveBatch(batch: HranaBatch, store: SqlStore): HranaBatch {
  return batch.map(({ condition, stmt }, index) => {
    if (condition !== undefined) requireEarlier(condition, index);
    return { condition, stmt: resolved(stmt, store) };
  });
}

function resolved<T extends SqlReference>(given: T, store: SqlStore): T {
  return { ...given, sql: store.resolve(given), sqlId: undefined };
}

function requireEarlier(condition: BatchCond, index: number): void {
  switch (condition.type) {
    case "ok":
    case "error":
      if (condition.step >= index) throw invalid(`the condition of step ${index} is on no step before it`);
      return;
    case "not":
      return requireEarlier(condition.cond, index);
    case "and":
    case "or":
      for (const each of condition.conds) requireEarlier(each, index);
  }
}
