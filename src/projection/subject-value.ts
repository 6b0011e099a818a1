/**
 * Whose row is it? The value of the declared column, in one binary form: integers and reals of the same value are one
 * subject, as they are one value to SQL; text and blobs are compared byte for byte, whatever the column's collation.
 */
import type { Change } from "../log/record.ts";
import { decodeImage } from "./image.ts";
import type { SqlValue } from "./values.ts";

type RowChange = Extract<Change, { kind: "row" }>;

/** The form of a value; undefined for NULL, which is nobody. */
export function subjectOf(value: SqlValue): Buffer | undefined {
  if (value === null) return undefined;
  if (typeof value === "string") return Buffer.from(`t${value}`);
  if (value instanceof Uint8Array) return Buffer.concat([Buffer.from("b"), value]);
  return Buffer.from(`n${typeof value === "number" && Number.isInteger(value) ? BigInt(value) : value}`);
}

/** The change with the subject that its row belongs to, by the place of the declared column; two if it changed hands. */
export function bySubject(change: RowChange, column: number): RowChange[] {
  const { before, after } = change;
  const from = ownerIn(before, column);
  const to = ownerIn(after, column);
  const same = from === undefined || to === undefined ? from === to : from.equals(to);
  if (before === null || after === null || same) return [owned(change, from ?? to)];
  return [owned({ ...change, after: null }, from), owned({ ...change, before: null }, to)];
}

function owned(change: RowChange, subject: Buffer | undefined): RowChange {
  return subject === undefined ? change : { ...change, subject };
}

function ownerIn(image: Uint8Array | null, column: number): Buffer | undefined {
  return image === null ? undefined : subjectOf(decodeImage(image)[column] ?? null);
}
