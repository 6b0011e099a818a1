/**
 * I-2 and I-3 against `kill -9`: a process under load is killed at named instants and at random ones, again and again
 * on one data directory; after each death everything acknowledged is there, everything else is wholly there or wholly
 * absent, the logs verify, and in the end every projection equals the one that is built anew from its log.
 *
 * A failure prints its seed and leaves the directory. KIMBERLITE_SOAK=1 kills many times more, from a new seed;
 * KIMBERLITE_SEED sets it.
 */
import { describe, expect, it } from "vitest";
import { seeded } from "../../src/testing/seeded.ts";
import { type CallerState, type Expectation, settle, type TenantReport } from "./check.ts";
import { Patient } from "./driver.ts";
import { CALLERS, effectsOf, operationAt, TENANTS } from "./operations.ts";
import { NAMED_PLANS } from "./plan.ts";

const SOAK = process.env["KIMBERLITE_SOAK"] !== undefined;
const SEED = Number(process.env["KIMBERLITE_SEED"] ?? (SOAK ? Date.now() % 1_000_000 : 1));
const ROUNDS = SOAK ? 40 : 2;
/** Two directories at a time: the processes wait for the disk more than they compute. */
const RANDOM_PAIRS = SOAK ? 60 : 3;
const DEATHS_A_DIRECTORY = 25;
const LIMIT_MS = SOAK ? 3_600_000 : 240_000;

/** @returns how many operations were acknowledged */
async function dieAtRandom(seed: number): Promise<number> {
  const chance = seeded(seed);
  const patient = new Patient(seed);
  let acknowledged = 0;
  for (let death = 0; death < DEATHS_A_DIRECTORY; death += 1) {
    if (chance.oneIn(6)) patient.forgetProjection(TENANTS[chance.below(TENANTS.length)] as number);
    // Some die before they have opened.
    const lifeMs = chance.oneIn(5) ? -1 - chance.below(250) : chance.below(400);
    acknowledged += (await patient.live({ lifeMs })).acknowledged;
  }
  await patient.finish();
  return acknowledged;
}

describe("a process that is killed", () => {
  for (let round = 0; round < ROUNDS; round += 1) {
    const seed = SEED + round;
    it(
      `keeps what it acknowledged at every named instant (seed ${seed})`,
      async () => {
        const chance = seeded(seed);
        const patient = new Patient(seed);
        await patient.live({ lifeMs: 300 });
        let planned = 0;
        for (const { most, ...plan } of NAMED_PLANS) {
          if (plan.name.startsWith("catch-up"))
            patient.forgetProjection(TENANTS[chance.below(TENANTS.length)] as number);
          const death = await patient.live({ plan: { ...plan, nth: 1 + chance.below(most) }, lifeMs: 1_500 });
          if (death.planned) planned += 1;
        }
        await patient.finish();
        expect(planned).toBeGreaterThan(NAMED_PLANS.length / 2);
      },
      LIMIT_MS,
    );
  }

  for (let index = 0; index < RANDOM_PAIRS; index += 1) {
    const seeds = [SEED + 1_000 + 2 * index, SEED + 1_001 + 2 * index];
    it(
      `keeps what it acknowledged at random instants (seeds ${seeds.join(" and ")})`,
      async () => {
        const acknowledged = await Promise.all(seeds.map(dieAtRandom));
        expect(Math.min(...acknowledged)).toBeGreaterThan(0);
      },
      LIMIT_MS,
    );
  }

  it(
    "goes on with a rebuild that was killed between two of its commits",
    async () => {
      const patient = new Patient(SEED);
      await patient.live({ lifeMs: 100 });
      await patient.addWideTable();
      patient.forgetProjection(1);
      // Each time one transaction further, or none.
      for (const when of ["before", "after", "before", "after"] as const) {
        const failpoint = `catch-up-${when}-commit` as const;
        const death = await patient.live({
          plan: { name: failpoint, phase: "open", failpoint, nth: 1 },
          lifeMs: 50,
        });
        expect(death, failpoint).toEqual({ planned: true, acknowledged: 0 });
      }
      await patient.finish();
    },
    LIMIT_MS,
  );
});

describe("the checker", () => {
  /** What a tenant holds whose callers did `counts` operations each. */
  function faithful(expected: Expectation, counts: readonly number[]): TenantReport {
    const items: [number, number, number][] = [];
    const ledger: [number, number, number, number][] = [];
    const events: [string, number, number, number][] = [];
    const tables: [number, number][] = [];
    const counters = counts.map((count, caller) => {
      const raisers: number[] = [];
      for (let n = 0; n < count; n += 1) {
        const effects = effectsOf(operationAt({ ...expected, caller, n }));
        if (effects.items > 0) items.push([caller, n, effects.items]);
        if (effects.ledger > 0) ledger.push([caller, n, effects.ledger, 0]);
        if (effects.tables > 0) tables.push([caller, n]);
        if (effects.updates > 0) raisers.push(n);
        for (let index = 0; index < effects.events; index += 1)
          events.push([String(events.length), caller, n, index]);
      }
      return [caller, raisers.length, raisers.at(-1) ?? -1] as const;
    });
    const total = items.reduce((sum, [, , count]) => sum + count, 0);
    return {
      tenant: expected.tenant,
      size: "0",
      verified: true,
      items,
      ledger,
      counters,
      total,
      events,
      tables,
    };
  }

  function expectation(next: number, underWay: boolean): Expectation {
    const callers: CallerState[] = Array.from({ length: CALLERS }, () => ({ next, underWay }));
    return { seed: 5, tenant: 1, callers };
  }

  const DONE = 40;

  it("is content with what was done, with or without what was under way", () => {
    for (const there of [0, 1]) {
      const expected = expectation(DONE, true);
      expect(settle(expected, faithful(expected, Array(CALLERS).fill(DONE + there)))).toEqual([]);
    }
  });

  it.each<[string, (report: TenantReport) => TenantReport]>([
    [
      "a lost row",
      (report) => ({
        ...report,
        items: report.items.slice(1),
        total: report.total - (report.items[0]?.[2] ?? 0),
      }),
    ],
    [
      "half a transaction",
      (report) => ({
        ...report,
        ledger: report.ledger.map((row, index) => (index === 3 ? [row[0], row[1], 1, 5] : row)),
      }),
    ],
    [
      "a lost update",
      (report) => ({
        ...report,
        counters: report.counters.map(([caller, raised, last]) => [caller, raised - 1, last]),
      }),
    ],
    ["a lost event", (report) => ({ ...report, events: report.events.slice(0, -1) })],
    [
      "a repeated event",
      (report) => ({
        ...report,
        events: [...report.events, report.events.at(-1) as TenantReport["events"][number]],
      }),
    ],
    [
      "a gap in a stream",
      (report) => ({
        ...report,
        events: report.events.map(([offset, ...rest]) => [String(Number(offset) + 1), ...rest]),
      }),
    ],
    [
      "a row that nobody wrote",
      (report) => ({ ...report, items: [...report.items, [0, DONE + 7, 1]], total: report.total + 1 }),
    ],
    ["a trigger that was undone alone", (report) => ({ ...report, total: report.total - 1 })],
    ["a log that does not verify", (report) => ({ ...report, verified: false })],
  ])("finds %s", (_, plant) => {
    const expected = expectation(DONE, false);
    expect(settle(expected, plant(faithful(expected, Array(CALLERS).fill(DONE))))).not.toEqual([]);
  });
});
