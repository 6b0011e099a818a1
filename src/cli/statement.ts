/** One statement: run it, and show what it gave. */
import type { Kimberlite } from "../kimberlite.ts";
import type { ArraysResult, ExecuteResult } from "../operations.ts";
import type { Moment } from "../pipeline/time-travel.ts";
import type { SqlParams } from "../projection/values.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import { counted, dim, renderTable, rowObjects, toJson } from "./render.ts";

/** Where statements go. */
export interface Target {
  readonly db: Kimberlite;
  readonly tenant: TenantId;
  readonly actor: string;
  readonly at?: Moment | undefined;
}

export async function runStatement(target: Target, sql: string, params?: SqlParams): Promise<ArraysResult> {
  const { db, tenant, actor, at } = target;
  return db.executeArrays(tenant, sql, params, at === undefined ? { actor } : { actor, at });
}

/** Rows as arrays; of columns with one name each shows the last. */
export function toArrays(result: ExecuteResult): ArraysResult {
  return { ...result, rows: result.rows.map((row) => result.columns.map((column) => row[column] ?? null)) };
}

/** The result for machines: one object, on one line. */
export function statementJson(result: ArraysResult): string {
  const { rowsAffected, lastInsertRowid, offset } = result;
  const { columns, rows } = rowObjects(result.columns, result.rows);
  const wrote = offset !== undefined;
  return toJson({
    columns,
    rows,
    rowsAffected,
    lastInsertRowid: wrote && rowsAffected > 0 ? lastInsertRowid : null,
    offset: offset ?? null,
  });
}

/** The result for people: a table if it has columns, and what a write did. */
export function statementText(result: ArraysResult): string {
  const lines: string[] = [];
  const reads = result.columns.length > 0;
  if (result.rows.length > 0) lines.push(renderTable(result.columns, result.rows));
  if (result.offset !== undefined) {
    const done =
      result.rowsAffected > 0 || reads ? `${counted(result.rowsAffected, "row")} affected` : "done";
    lines.push(dim(`${done}, offset ${result.offset}`));
  } else lines.push(dim(reads ? counted(result.rows.length, "row") : "nothing changed"));
  return lines.join("\n");
}
