/** What the admin API takes and answers, as the library would. */
import { KimberliteError, kimberliteError } from "../errors.ts";
import type { Kimberlite } from "../kimberlite.ts";
import { type TypedValue, toValue } from "../server/typed-value.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import type { Outcome } from "./statement.ts";

/** What a method of the library gives. */
export type Answer<Name extends keyof Kimberlite> = Kimberlite[Name] extends (
  ...given: never[]
) => infer Result
  ? Awaited<Result>
  : never;

/** The parameter of the path. */
export function of(id: TenantId): { readonly params: { readonly tenant: string } } {
  return { params: { tenant: String(id) } };
}

/** Rows that were only read, as a directory would have given them. */
export function toReadOutcome(answer: {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly TypedValue[])[];
}): Outcome {
  return {
    columns: answer.columns,
    rows: answer.rows.map((row) => row.map(toValue)),
    rowsAffected: 0,
    lastInsertRowid: undefined,
    offset: undefined,
  };
}

/** The actor is the token's, which the server knows. */
export function why(options: { readonly reason?: string | undefined } | undefined): {
  readonly reason?: string;
} {
  return options?.reason === undefined ? {} : { reason: options.reason };
}

/** @throws `unsupported` */
export function requireNoReason(
  options: { readonly reason?: string | undefined } | undefined,
  what: string,
): void {
  if (options?.reason === undefined) return;
  throw kimberliteError("unsupported", `over a server no reason is recorded with ${what}`);
}

/**
 * An answer as the library gives it: times (`…Us`) and what is named are bigints again.
 *
 * @throws `route_not_found` for what no server of this version says
 */
export function revive<T>(answer: unknown, names: readonly string[]): T {
  try {
    return revived(answer, names) as T;
  } catch (error) {
    if (error instanceof KimberliteError) throw error;
    throw kimberliteError("route_not_found", "what answers there speaks another version", { cause: error });
  }
}

function revived(value: unknown, names: readonly string[]): unknown {
  if (Array.isArray(value)) return value.map((item) => revived(item, names));
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).map(([name, field]: [string, unknown]) => {
    // What an event says in its detail is its own.
    if (name === "detail") return [name, field];
    const whole = typeof field === "string" && (name.endsWith("Us") || names.includes(name));
    return [name, whole ? BigInt(field) : revived(field, names)];
  });
  return Object.fromEntries(entries);
}
