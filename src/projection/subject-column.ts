/** Which column of a table may say whose a row is: the decision on a declaration of subjects. */
import { kimberliteError } from "../errors.ts";
import type { Bookkeeping } from "./bookkeeping.ts";
import type { CapturedTable } from "./capture.ts";
import type { SqliteDatabase } from "./sqlite.ts";
import { quoteName } from "./tables.ts";

/**
 * The stream and column to declare; undefined if they are declared already.
 *
 * @throws `stream_not_found`, `invalid_argument`, `unsupported_sql`, `constraint_violation` for a table with rows
 */
export function findSubjectColumn(
  from: {
    readonly db: SqliteDatabase;
    readonly bookkeeping: Bookkeeping;
    readonly tables: ReadonlyMap<number, CapturedTable>;
  },
  table: string,
  column: string,
): { readonly stream: number; readonly column: string } | undefined {
  const { db, bookkeeping, tables } = from;
  const row = bookkeeping.streamNamed(table);
  if (row?.kind !== "table") throw kimberliteError("stream_not_found", "there is no such table");
  const captured = tables.get(row.id);
  if (captured === undefined || captured.shape.shadow)
    throw kimberliteError("unsupported_sql", "subjects are declared on ordinary tables");
  const { shape, stream } = captured;
  const name = shape.columns.find((one) => one.toLowerCase() === column.toLowerCase());
  if (name === undefined) throw kimberliteError("invalid_argument", "the table stores no such column");
  const present = bookkeeping.subjectColumns().find((one) => one.stream === stream);
  if (present?.column === name) return undefined;
  if (present !== undefined)
    throw kimberliteError("invalid_argument", "the subjects of the table are declared by another column");
  if (db.prepare(`SELECT 1 FROM main.${quoteName(shape.name)} LIMIT 1`).get() === undefined)
    return { stream, column: name };
  throw kimberliteError("constraint_violation", "subjects are declared on a table without rows", {
    detail: { constraint: "empty table" },
  });
}
