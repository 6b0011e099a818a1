/** One SQL feature as a table row: what is sent, what a query then gives, live, as it was, and rebuilt from the log. */
import { afterAll, beforeAll, expect, test } from "vitest";
import type { ErrorCode, SqlParams, TenantId } from "../../src/index.ts";
import { TestNode } from "../sim/test-node.ts";

/** A statement; one with parameters; or one that must fail, with the code. */
export type Step =
  | string
  | { readonly sql: string; readonly params: SqlParams }
  | { readonly sql: string; readonly fails: ErrorCode };

/** Queries with the rows that they must give, each row its values in order. */
export type Expected = Readonly<Record<string, readonly unknown[][]>>;

export interface Feature {
  readonly name: string;
  readonly steps: readonly Step[];
  readonly expect?: Expected;
}

async function send(node: TestNode, tenant: TenantId, step: Step): Promise<void> {
  if (typeof step === "string") await node.db.execute(tenant, step);
  else if ("params" in step) await node.db.execute(tenant, step.sql, step.params);
  else await expect(node.db.execute(tenant, step.sql), step.sql).rejects.toMatchObject({ code: step.fails });
}

async function check(node: TestNode, feature: Feature): Promise<void> {
  const tenant = await node.createTenant();
  for (const step of feature.steps) await send(node, tenant, step);
  for (const [sql, rows] of Object.entries(feature.expect ?? {})) {
    const live = await node.db.query(tenant, sql);
    expect(live.map(Object.values), sql).toEqual(rows);
    const again = await node.rebuilt(tenant, (db) => db.prepare(sql).all() as Record<string, unknown>[]);
    expect(again.map(Object.values), `rebuilt: ${sql}`).toEqual(live.map(Object.values));
  }
  expect(await node.rebuildDifferences(tenant)).toEqual([]);
}

/** Makes a test of each feature, on one node, each with a tenant of its own. */
export function testFeatures(features: readonly Feature[]): void {
  let node: TestNode;
  beforeAll(async () => {
    node = await TestNode.open({ maxOpenTenants: 4 });
  });
  afterAll(async () => {
    await node[Symbol.asyncDispose]();
  });
  for (const feature of features) test(feature.name, () => check(node, feature));
}

/** A table with four rows. */
export const PEOPLE: readonly string[] = [
  "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT, born INTEGER)",
  `INSERT INTO people (name, city, born) VALUES ('Ada', 'London', 1815), ('Alan', 'London', 1912),
   ('Grace', 'New York', 1906), ('Edsger', NULL, 1930)`,
];
