/** What a statement gave, as it is shown. */
import type { ArraysResult, ExecuteResult } from "../operations.ts";
import { counted, dim, renderTable, rowObjects, toJson } from "./render.ts";

/** Over a server a write within a transaction that is open has no offset yet. */
export interface Outcome extends ArraysResult {
  readonly offsetUntold?: true;
}

/** Rows as arrays; of columns with one name each shows the last. */
export function toArrays(result: ExecuteResult): ArraysResult {
  return { ...result, rows: result.rows.map((row) => result.columns.map((column) => row[column] ?? null)) };
}

/** The result for machines: one object, on one line. */
export function statementJson(result: Outcome): string {
  const { rowsAffected, lastInsertRowid, offset } = result;
  const { columns, rows } = rowObjects(result.columns, result.rows);
  const wrote = offset !== undefined || result.offsetUntold === true;
  return toJson({
    columns,
    rows,
    rowsAffected,
    lastInsertRowid: wrote && rowsAffected > 0 ? lastInsertRowid : null,
    offset: offset ?? null,
  });
}

/** The result for people: a table if it has columns, and what a write did. */
export function statementText(result: Outcome): string {
  const lines: string[] = [];
  const reads = result.columns.length > 0;
  if (result.rows.length > 0) lines.push(renderTable(result.columns, result.rows));
  if (result.offset !== undefined) {
    const done =
      result.rowsAffected > 0 || reads ? `${counted(result.rowsAffected, "row")} affected` : "done";
    lines.push(dim(`${done}, offset ${result.offset}`));
  } else if (result.offsetUntold === true && (result.rowsAffected > 0 || !reads)) {
    lines.push(dim(result.rowsAffected > 0 ? `${counted(result.rowsAffected, "row")} affected` : "done"));
  } else lines.push(dim(reads ? counted(result.rows.length, "row") : "nothing changed"));
  return lines.join("\n");
}
