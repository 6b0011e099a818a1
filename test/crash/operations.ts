/**
 * What the callers of a crash test do, and what each operation must leave behind: all of it or nothing.
 *
 * Every operation follows from the seed, the tenant, the caller and its number, so that the process that is killed and
 * the one that checks agree on it without a word. Callers touch rows of their own only and wait for each answer: when
 * the process dies, each has at most one operation under way.
 */
import { seeded } from "../../src/testing/seeded.ts";

export const TENANTS = [1, 2, 3] as const;
export const CALLERS = 4;
/** The caller that also changes the schema, rotates keys and creates tenants. */
export const OPERATOR = 0;

export type Operation =
  | { readonly kind: "insert"; readonly bytes: number }
  | { readonly kind: "update" }
  | { readonly kind: "transaction"; readonly items: number; readonly amount: number }
  | { readonly kind: "held"; readonly items: number; readonly amount: number }
  | { readonly kind: "append"; readonly events: number }
  | { readonly kind: "table" }
  | { readonly kind: "rotate" }
  | { readonly kind: "tenant" };

export interface Place {
  readonly seed: number;
  readonly tenant: number;
  readonly caller: number;
  readonly n: number;
}

export function operationAt({ seed, tenant, caller, n }: Place): Operation {
  const chance = seeded(seed * 7_919 + tenant * 104_729 + caller * 1_299_709 + n * 15_485_863);
  chance.below(2);
  if (caller === OPERATOR) {
    const rare = chance.below(60);
    if (rare === 0) return { kind: "table" };
    if (rare === 1) return { kind: "rotate" };
    if (rare === 2 && tenant === 1) return { kind: "tenant" };
    if (rare === 3) return { kind: "held", items: 1 + chance.below(3), amount: chance.below(1_000) };
  }
  const common = chance.below(10);
  if (common < 3) return { kind: "insert", bytes: chance.oneIn(20) ? 6_000 : chance.below(200) };
  if (common < 5) return { kind: "update" };
  if (common < 8) return { kind: "transaction", items: 1 + chance.below(5), amount: chance.below(1_000) };
  return { kind: "append", events: 1 + chance.below(3) };
}

/** What one operation left in its tenant; zeros if nothing. */
export interface Effects {
  readonly items: number;
  readonly ledger: number;
  readonly updates: number;
  readonly events: number;
  readonly tables: number;
}

export const NO_EFFECTS: Effects = { items: 0, ledger: 0, updates: 0, events: 0, tables: 0 };

export function effectsOf(operation: Operation): Effects {
  switch (operation.kind) {
    case "insert":
      return { ...NO_EFFECTS, items: 1 };
    case "update":
      return { ...NO_EFFECTS, updates: 1 };
    case "transaction":
    case "held":
      return { ...NO_EFFECTS, items: operation.items, ledger: 2, updates: 1 };
    case "append":
      return { ...NO_EFFECTS, events: operation.events };
    case "table":
      return { ...NO_EFFECTS, tables: 1, items: 1 };
    case "rotate":
    case "tenant":
      return NO_EFFECTS;
  }
}

/** Id of the tenant that operation `n` creates. */
export function createdTenant(n: number): number {
  return 10_000 + n;
}
