/**
 * One stream of Hrana over HTTP (`HRANA_2`, JSON): statements on the tenant of a credential, transactions with them.
 *
 * Kept: integers are exact; a statement is sent once and never again, for it may have been done; the token goes into the
 * header of a request to the given address, is not sent on by a redirect, and stands in no error. A stream that the server
 * let go between two statements is opened anew, unless a transaction was open on it: then nothing runs until COMMIT, which
 * fails, or ROLLBACK.
 */
import { ERROR_CODES, type ErrorCode, type KimberliteError, kimberliteError } from "../errors.ts";

/** Integers are bigints, REALs numbers. */
export type HranaValue = null | bigint | number | string | Uint8Array;

export interface HranaStatement {
  readonly sql: string;
  /** By position, or by name with or without its sign. */
  readonly args?: readonly HranaValue[] | Readonly<Record<string, HranaValue>>;
}

export interface HranaResult {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly HranaValue[])[];
  readonly rowsAffected: number;
  readonly lastInsertRowid: bigint | undefined;
  /** In the tenant's log, of what was committed with it; undefined if nothing was. */
  readonly offset: bigint | undefined;
}

export interface HranaOptions {
  /** Such as `https://db.example.com`. */
  readonly url: string;
  readonly token: string;
  /** Milliseconds since any fixed moment. */
  readonly nowMs: () => number;
  readonly fetch?: typeof fetch;
}

/** A server keeps a stream for 10 s without a request. */
const KEPT_MS = 8_000;

/** Codes of SQLite that stand for one of the family; a longer one is found by its beginning. */
const FROM_SQLITE: readonly (readonly [string, ErrorCode])[] = [
  ["SQLITE_CONSTRAINT", "constraint_violation"],
  ["SQLITE_AUTH", "unsupported_sql"],
  ["SQLITE_READONLY", "read_only"],
  ["SQLITE_INTERRUPT", "statement_timeout"],
  ["SQLITE_TOOBIG", "value_too_large"],
  ["SQLITE_RANGE", "invalid_parameter"],
  ["SQLITE_FULL", "disk_full"],
  ["SQLITE_BUSY", "overloaded"],
  ["SQLITE_", "invalid_sql"],
];

type Json = Readonly<Record<string, unknown>>;

export class HranaStream {
  readonly #options: HranaOptions;
  #baton: string | undefined;
  #usedMs = 0;
  #autocommit = true;
  /** Why the transaction is gone that the caller may believe in. */
  #lost: KimberliteError | undefined;

  constructor(options: HranaOptions) {
    this.#options = { ...options, url: options.url.replace(/\/+$/, "") };
  }

  /** False while a transaction is open. */
  get autocommit(): boolean {
    return this.#autocommit;
  }

  /** @throws a `KimberliteError` with the code of the refusal; `overloaded` if the server cannot be reached */
  async execute(statement: HranaStatement): Promise<HranaResult> {
    this.#renew();
    if (this.#lost !== undefined) return this.#endLost(this.#lost, statement.sql);
    const [executed] = await this.#ask([{ type: "execute", stmt: toStmt(statement) }]);
    return toResult((executed as Json)["result"] as Json);
  }

  /** All statements as one transaction: what fails undoes them all. @throws as `execute` */
  async transaction(statements: readonly HranaStatement[]): Promise<HranaResult[]> {
    const last = statements.length;
    const after = (step: number): Json => ({ type: "ok", step });
    const steps = [
      { stmt: toStmt({ sql: "BEGIN IMMEDIATE" }) },
      ...statements.map((statement, index) => ({ stmt: toStmt(statement), condition: after(index) })),
      { stmt: toStmt({ sql: "COMMIT" }), condition: after(last) },
      {
        stmt: toStmt({ sql: "ROLLBACK" }),
        condition: {
          type: "and",
          conds: [
            after(0),
            { type: "not", cond: after(last + 1) },
            { type: "not", cond: { type: "is_autocommit" } },
          ],
        },
      },
    ];
    this.#renew();
    if (this.#lost !== undefined) throw this.#lost;
    const [batch] = await this.#ask([{ type: "batch", batch: { steps } }]);
    const outcome = (batch as Json)["result"] as {
      readonly step_results: readonly (Json | null)[];
      readonly step_errors: readonly (Json | null)[];
    };
    const failure = outcome.step_errors.find((error) => error !== null);
    if (failure !== undefined) throw toError(failure as Json);
    const results = outcome.step_results.slice(1, last + 2).map((result) => toResult(result as Json));
    const offset = results[last]?.offset;
    return results.slice(0, last).map((result) => ({ ...result, offset }));
  }

  /** Lets the stream go, and rolls back what is open on it. Never throws: the server does both by itself, later. */
  async close(): Promise<void> {
    if (this.#baton === undefined) return;
    await this.#send([{ type: "close" }]).catch(() => undefined);
    this.#baton = undefined;
  }

  /** @returns the responses, of which none is an error */
  async #ask(requests: readonly Json[]): Promise<readonly Json[]> {
    const within = !this.#autocommit;
    const answers = await this.#send([...requests, { type: "get_autocommit" }]).catch((error: unknown) => {
      if (within)
        this.#lost = kimberliteError("transaction_closed", "the transaction was lost with its stream");
      throw error;
    });
    const autocommit = answers.at(-1)?.["response"] as { readonly is_autocommit?: boolean } | undefined;
    this.#autocommit = autocommit?.is_autocommit ?? true;
    return answers.slice(0, -1).map((answer) => {
      if (answer["type"] === "error") throw toError(answer["error"] as Json);
      return answer["response"] as Json;
    });
  }

  /** A stream that may be gone is not asked any more. */
  #renew(): void {
    if (this.#baton !== undefined && this.#options.nowMs() - this.#usedMs < KEPT_MS) return;
    this.#baton = undefined;
    if (this.#autocommit) return;
    this.#autocommit = true;
    this.#lost = kimberliteError(
      "transaction_timeout",
      "the transaction was open for too long; it is rolled back",
    );
  }

  #endLost(lost: KimberliteError, sql: string): HranaResult {
    const [, word] = /^\s*(commit|end|rollback)(?:\s+transaction)?\s*;?\s*$/i.exec(sql) ?? [];
    if (word !== undefined) this.#lost = undefined;
    if (word?.toLowerCase() !== "rollback") throw lost;
    return { columns: [], rows: [], rowsAffected: 0, lastInsertRowid: undefined, offset: undefined };
  }

  async #send(requests: readonly Json[]): Promise<readonly Json[]> {
    const { url, token, nowMs, fetch: send = fetch } = this.#options;
    const baton = this.#baton ?? null;
    // What is open on a stream whose answer does not come is rolled back by the server.
    this.#baton = undefined;
    this.#autocommit = true;
    const response = await send(`${url}/v2/pipeline`, {
      method: "POST",
      redirect: "error",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify({ baton, requests }),
    }).catch((cause: unknown) => {
      throw kimberliteError("overloaded", "the server cannot be reached, or ended the connection", { cause });
    });
    const text = await response.text().catch((cause: unknown) => {
      throw kimberliteError(
        "overloaded",
        "the server did not finish its answer; it may have done what it was asked",
        {
          cause,
        },
      );
    });
    const answer = parseAnswer(text);
    if (!response.ok) throw toRefusal(response, answer);
    const results = answer?.["results"];
    if (!Array.isArray(results) || results.length !== requests.length) throw notHrana();
    this.#baton = typeof answer?.["baton"] === "string" ? answer["baton"] : undefined;
    this.#usedMs = nowMs();
    return results as readonly Json[];
  }
}

function parseAnswer(text: string): Json | undefined {
  try {
    const parsed: unknown = JSON.parse(text);
    return typeof parsed === "object" && parsed !== null ? (parsed as Json) : undefined;
  } catch {
    return undefined;
  }
}

function notHrana(): KimberliteError {
  return kimberliteError("route_not_found", "what answers there is no server of Hrana");
}

function toRefusal(response: Response, answer: Json | undefined): KimberliteError {
  const seconds = Number(response.headers.get("retry-after") ?? Number.NaN);
  const retry = Number.isFinite(seconds) ? { retryAfterMs: seconds * 1_000 } : {};
  if (typeof answer?.["code"] === "string") return toError(answer, retry);
  if (response.status === 429 || response.status >= 502) {
    return kimberliteError("overloaded", `the server answered ${response.status}`, retry);
  }
  return notHrana();
}

/** The error as it was at the server. */
function toError(error: Json, more: { readonly retryAfterMs?: number } = {}): KimberliteError {
  const code = textOf(error["code"], "");
  const message = textOf(error["message"], "the server refused");
  if (Object.hasOwn(ERROR_CODES, code)) return kimberliteError(code as ErrorCode, message, more);
  const [, known = "internal"] = FROM_SQLITE.find(([start]) => code.startsWith(start)) ?? [];
  const detail = code.startsWith("SQLITE_") ? { detail: { sqlite: code } } : {};
  return kimberliteError(known as ErrorCode, message, { ...detail, ...more });
}

function textOf(value: unknown, otherwise: string): string {
  return typeof value === "string" ? value : otherwise;
}

function toStmt({ sql, args = [] }: HranaStatement): Json {
  if (Array.isArray(args)) return { sql, args: args.map(encode), want_rows: true };
  const named = Object.entries(args as Readonly<Record<string, HranaValue>>);
  return { sql, named_args: named.map(([name, value]) => ({ name, value: encode(value) })), want_rows: true };
}

/** @throws `route_not_found` for what is no result */
function toResult(result: Json): HranaResult {
  try {
    return parseResult(result);
  } catch {
    throw notHrana();
  }
}

function parseResult(result: Json): HranaResult {
  const { cols, rows, affected_row_count, last_insert_rowid, replication_index } = result as {
    readonly cols: readonly { readonly name: string | null }[];
    readonly rows: readonly (readonly Json[])[];
    readonly affected_row_count: number;
    readonly last_insert_rowid: string | null;
    readonly replication_index?: string | null;
  };
  return {
    columns: cols.map(({ name }) => name ?? ""),
    rows: rows.map((row) => row.map(decode)),
    rowsAffected: affected_row_count,
    lastInsertRowid: last_insert_rowid === null ? undefined : BigInt(last_insert_rowid),
    offset: typeof replication_index === "string" ? BigInt(replication_index) : undefined,
  };
}

function encode(value: HranaValue): Json {
  if (value === null) return { type: "null" };
  if (typeof value === "bigint") return { type: "integer", value: String(value) };
  if (typeof value === "string") return { type: "text", value };
  if (typeof value === "number") {
    // JSON has none.
    if (!Number.isFinite(value)) throw kimberliteError("invalid_parameter", "a number must be finite here");
    return { type: "float", value };
  }
  const binary = Array.from(value, (byte) => String.fromCharCode(byte)).join("");
  return { type: "blob", base64: btoa(binary) };
}

function decode(given: Json): HranaValue {
  switch (given["type"]) {
    case "null":
      return null;
    case "integer":
      return BigInt(given["value"] as string);
    case "float":
      return Number(given["value"]);
    case "text":
      return String(given["value"]);
    case "blob":
      return Uint8Array.from(atob(given["base64"] as string), (character) => character.charCodeAt(0));
    default:
      throw notHrana();
  }
}
