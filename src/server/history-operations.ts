/**
 * Time travel over HTTP: a tenant's rows as they were. What is now is read and written over Hrana, which has no word for a
 * moment.
 *
 * Kept: it only reads; moments that are asked for at a time are bounded, for each is a file; quotas count it as any query.
 */
import { type Static, Type } from "typebox";
import { kimberliteError } from "../errors.ts";
import type { Moment } from "../pipeline/time-travel.ts";
import type { SqlParams } from "../projection/values.ts";
import { CLOSED, type Operation, operation } from "./operation.ts";
import { toInput, toTyped } from "./typed-value.ts";
import { TypedValueSchema } from "./typed-value-schema.ts";

const ParamsSchema = Type.Union([
  Type.Array(TypedValueSchema, { maxItems: 32_766 }),
  Type.Record(Type.String({ maxLength: 255 }), TypedValueSchema, { maxProperties: 32_766 }),
]);

const query = operation({
  id: "history.query",
  method: "POST",
  path: "/v1/tenants/{tenant}/history/query",
  action: "sql.read",
  summary: "Reads the tenant's rows by SQL as they were at an offset of its log, or at a time",
  unkept: true,
  body: Type.Object(
    {
      sql: Type.String({ minLength: 1, maxLength: 1_000_000 }),
      params: Type.Optional(ParamsSchema),
      at: Type.String({
        pattern: "^([0-9]{1,19}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,9})?Z)$",
        description: "offset of the last record that counts; or a time (RFC 3339, UTC), to the millisecond",
      }),
    },
    CLOSED,
  ),
  answer: Type.Object(
    { columns: Type.Array(Type.String()), rows: Type.Array(Type.Array(TypedValueSchema)) },
    CLOSED,
  ),
  errors: [
    "invalid_sql",
    "read_only",
    "offset_out_of_range",
    "offset_trimmed",
    "result_too_large",
    "statement_timeout",
  ],
  run: async ({ db, by }, { tenant, body: { sql, params = [], at } }) => {
    const { columns, rows } = await db.executeArrays(tenant, sql, toParams(params), {
      ...by,
      at: toMoment(at),
    });
    return { columns, rows: rows.map((row) => row.map(toTyped)) };
  },
});

function toParams(params: Static<typeof ParamsSchema>): SqlParams {
  if (Array.isArray(params)) return params.map(toInput);
  return Object.fromEntries(Object.entries(params).map(([name, value]) => [name, toInput(value)]));
}

/** @throws `invalid_argument` for a day or an hour that there is not */
function toMoment(text: string): Moment {
  if (!text.includes("T")) return BigInt(text);
  const time = new Date(text);
  if (Number.isNaN(time.getTime()))
    throw kimberliteError("invalid_argument", "`at` is no time that there is");
  return time;
}

export const HISTORY_OPERATIONS: readonly Operation[] = [query];
