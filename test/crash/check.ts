/** Compares what a database holds after a crash with what was acknowledged before it. */
import { type Effects, effectsOf, NO_EFFECTS, operationAt } from "./operations.ts";

/** What one tenant was found to hold, by `caller` and `n`. */
export interface TenantReport {
  readonly tenant: number;
  readonly size: string;
  readonly verified: boolean;
  readonly reason?: string | undefined;
  readonly items: readonly (readonly [caller: number, n: number, count: number])[];
  readonly ledger: readonly (readonly [caller: number, n: number, count: number, sum: number])[];
  /** How often each caller's counter was raised, and by which operation last. */
  readonly counters: readonly (readonly [caller: number, raised: number, last: number])[];
  /** What a trigger counted of the items. */
  readonly total: number;
  /** One entry an event, in the order of the stream. */
  readonly events: readonly (readonly [offset: string, caller: number, n: number, index: number])[];
  readonly tables: readonly (readonly [caller: number, n: number])[];
}

/** What is known of a caller: operations below `next` were acknowledged, and `next` may be under way. */
export interface CallerState {
  next: number;
  underWay: boolean;
}

export interface Expectation {
  readonly seed: number;
  readonly tenant: number;
  readonly callers: readonly CallerState[];
}

/** Faults in words; empty when the report keeps every promise. Settles what was under way: it is there, or it is not. */
export function settle(expected: Expectation, report: TenantReport): string[] {
  const faults: string[] = [];
  const say = (text: string): void => void faults.push(`tenant ${report.tenant}: ${text}`);
  if (!report.verified) say(`its log does not verify: ${report.reason}`);
  const items = report.items.reduce((sum, [, , count]) => sum + count, 0);
  if (items !== report.total) say(`a trigger counted ${report.total} items of ${items}`);
  const found = gather(report, say);
  countUpdates(expected, report, { found, say });
  expected.callers.forEach((state, caller) => {
    for (let n = 0; n < state.next; n += 1) {
      const wanted = effectsOf(operationAt({ ...expected, caller, n }));
      const name = `operation ${caller}/${n}`;
      if (!sameEffects(wanted, found.take(caller, n)))
        say(`${name} was acknowledged and is not wholly there`);
    }
    if (state.underWay) settleLast(expected, { caller, state, found: found.take(caller, state.next), say });
  });
  for (const name of found.rest()) say(`operation ${name} was never begun`);
  return faults;
}

function settleLast(
  expected: Expectation,
  last: {
    readonly caller: number;
    readonly state: CallerState;
    readonly found: Effects;
    readonly say: (text: string) => void;
  },
): void {
  const { caller, state, found } = last;
  const wanted = effectsOf(operationAt({ ...expected, caller, n: state.next }));
  const there = sameEffects(wanted, found);
  if (!there && !sameEffects(NO_EFFECTS, found)) {
    last.say(`operation ${caller}/${state.next} is half there: ${JSON.stringify(found)}`);
  }
  // An append is repeated under its idempotency key, whether it is there or not: it must come out once.
  state.underWay = there && wanted.events > 0;
  if (there && !state.underWay) state.next += 1;
}

type Counts = { -readonly [K in keyof Effects]: Effects[K] };

/** A counter says how many operations raised it, and which was the last: told apart here by what was acknowledged. */
function countUpdates(
  expected: Expectation,
  report: TenantReport,
  to: { readonly found: Found; readonly say: (text: string) => void },
): void {
  expected.callers.forEach((state, caller) => {
    const raisers: number[] = [];
    for (let n = 0; n <= state.next; n += 1) {
      if (n === state.next && !state.underWay) continue;
      if (effectsOf(operationAt({ ...expected, caller, n })).updates > 0) raisers.push(n);
    }
    const [, raised, last] = report.counters.find(([of]) => of === caller) ?? [caller, 0, -1];
    for (const n of raisers.slice(0, raised)) to.found.at(caller, n).updates = 1;
    const lastRaiser = raisers[raised - 1] ?? -1;
    if (raised > raisers.length || last !== lastRaiser)
      to.say(`counter ${caller} says ${raised} up to ${last}, not up to ${lastRaiser}`);
  });
}

interface Found {
  at(caller: number, n: number): Counts;
  take(caller: number, n: number): Effects;
  rest(): string[];
}

function gather(report: TenantReport, say: (text: string) => void): Found {
  const found = new Map<string, Counts>();
  const at = (caller: number, n: number): Counts => {
    const key = `${caller}/${n}`;
    const counts = found.get(key) ?? { ...NO_EFFECTS };
    found.set(key, counts);
    return counts;
  };
  for (const [caller, n, count] of report.items) at(caller, n).items += count;
  for (const [caller, n, count, sum] of report.ledger) {
    at(caller, n).ledger += count;
    if (sum !== 0) say(`the ledger of ${caller}/${n} does not balance`);
  }
  for (const [caller, n] of report.tables) at(caller, n).tables += 1;
  report.events.forEach(([offset, caller, n, index], place) => {
    const counts = at(caller, n);
    if (offset !== String(place)) say(`event ${place} has the offset ${offset}`);
    if (counts.events !== index) say(`events of ${caller}/${n} are out of order`);
    counts.events += 1;
  });
  return {
    at,
    take: (caller, n) => {
      const counts = found.get(`${caller}/${n}`);
      found.delete(`${caller}/${n}`);
      return counts ?? NO_EFFECTS;
    },
    rest: () => [...found.keys()],
  };
}

function sameEffects(a: Effects, b: Effects): boolean {
  return (Object.keys(a) as (keyof Effects)[]).every((name) => a[name] === b[name]);
}
