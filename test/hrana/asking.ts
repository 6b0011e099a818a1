/** Pipelines of Hrana over HTTP, in JSON, by hand. */
import type { Served } from "./served.ts";
import { tokenOf } from "./served.ts";
import type { Said } from "./sockets.ts";

export interface Result {
  readonly type: string;
  readonly error?: { readonly code: string; readonly message: string };
  readonly response?: { readonly type: string; readonly result?: StmtResult & BatchResult & Described };
}

export interface StmtResult {
  readonly cols: { readonly name: string; readonly decltype: string | null }[];
  readonly rows: { readonly type: string; readonly value?: unknown }[][];
  readonly affected_row_count: number;
  readonly last_insert_rowid: string | null;
  readonly replication_index?: string;
}

export interface BatchResult {
  readonly step_results: (StmtResult | null)[];
  readonly step_errors: ({ readonly code: string } | null)[];
}

export interface Described {
  readonly params: { readonly name: string | null }[];
}

export interface Answer {
  readonly status: number;
  readonly baton: string | null;
  readonly base_url: string | null;
  readonly code?: string;
  readonly results: Result[];
}

export class Asker {
  readonly #served: Served;

  constructor(served: Served) {
    this.#served = served;
  }

  async pipeline(requests: object[], baton: string | null = null): Promise<Answer> {
    const response = await fetch(`${this.#served.url}/v3/pipeline`, {
      method: "POST",
      headers: { authorization: `Bearer ${tokenOf(1)}`, "content-type": "application/json" },
      body: JSON.stringify({ baton, requests }),
    });
    return { status: response.status, ...((await response.json()) as Omit<Answer, "status">) };
  }

  /** On a stream of its own. */
  async ask(...requests: object[]): Promise<Result[]> {
    const { results } = await this.pipeline([...requests, { type: "close" }]);
    return results.slice(0, -1);
  }
}

export const execute = (sql: string, more: object = {}): object => ({
  type: "execute",
  stmt: { sql, ...more },
});

/** The code of each error, else the type. */
export const codesOf = (said: readonly (Said | Result)[]): string[] =>
  said.map(({ type, error }) => error?.code ?? type);

/** The first value of the first row. */
export const firstValue = (result: Result | undefined): unknown =>
  result?.response?.result?.rows[0]?.[0]?.value;

/** A text that finds rows of about 1 KB each. */
export const manyRows = (count: number): string =>
  `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ${count}) SELECT i, hex(zeroblob(500)) FROM n`;
