/**
 * Random scripts against three databases: the live projection, plain SQLite, and the projection built again from the
 * log. All must agree, at the end and at earlier offsets.
 *
 * Runs a slice by default. `KIMBERLITE_SOAK=1` runs for long, from another seed each time; `KIMBERLITE_SEED` repeats one.
 */
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { TenantId } from "../../src/index.ts";
import { type DatabaseImage, differences, imageOf } from "./compare-databases.ts";
import { describeError, describeResult, type Outcome, Reference } from "./reference.ts";
import { type Call, type Script, type ScriptOptions, scripts } from "./sql-script.ts";
import { TestNode } from "./test-node.ts";

const SOAK = process.env["KIMBERLITE_SOAK"] === "1";
const SEED = Number(process.env["KIMBERLITE_SEED"] ?? (SOAK ? Date.now() % 2 ** 31 : 20_260_101));
const LIMIT_MS = SOAK ? 30 * 60_000 : 30_000;

let node: TestNode;

beforeAll(async () => {
  node = await TestNode.open({ maxOpenTenants: 4 });
});

afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

class Abandoned extends Error {}

async function send(tenant: TenantId, call: Call): Promise<Outcome> {
  const { db } = node;
  const outcome: string[] = [];
  try {
    if (call.kind === "single") outcome.push(describeResult(call.sql, await db.execute(tenant, call.sql)));
    else if (call.kind === "list") {
      const results = await db.transaction(tenant, call.statements);
      outcome.push(...results.map((result, at) => describeResult(call.statements[at] as string, result)));
    } else await sendCallback(tenant, call, outcome);
  } catch (error) {
    outcome.push(error instanceof Abandoned ? "abandoned" : describeError(error));
  }
  return outcome;
}

async function sendCallback(
  tenant: TenantId,
  call: Extract<Call, { kind: "callback" }>,
  outcome: string[],
): Promise<void> {
  await node.db.transaction(tenant, async (transaction) => {
    for (const sql of call.statements) {
      try {
        outcome.push(describeResult(sql, await transaction.execute(sql)));
      } catch (error) {
        outcome.push(describeError(error));
      }
    }
    if (call.abandon) throw new Abandoned();
  });
}

/** SQLite's statistics count rows of ours too, and where it keeps them is its own affair. */
function withoutStatistics(image: DatabaseImage): DatabaseImage {
  return new Map([...image].filter(([section]) => section !== "sqlite_stat1"));
}

/** DROP TABLE is refused while a deferred foreign key is violated, for its replay could not know; SQLite would wait. */
function isStricter(call: Call, outcome: Outcome, expected: Outcome): boolean {
  if (call.kind === "single" || !call.statements.some((sql) => sql.startsWith("DROP TABLE"))) return false;
  return outcome.some((line, at) => line !== expected[at] && line.endsWith("FOREIGN KEY constraint failed"));
}

interface Seen {
  readonly untilOffset: bigint;
  readonly image: DatabaseImage;
}

async function look(tenant: TenantId): Promise<Seen> {
  const image = await node.liveImage(tenant);
  return { untilOffset: await node.inspect(tenant, (engine) => engine.log.nextOffset), image };
}

async function play(script: Script, reference: Reference | undefined): Promise<void> {
  const tenant = await node.createTenant();
  const seen: Seen[] = [];
  for (const [at, step] of script.entries()) {
    const outcomes = await Promise.all(step.map((call) => send(tenant, call)));
    if (reference !== undefined) {
      const expected = step.map((call) => reference.call(call));
      const pairs = step.map(
        (call, index) => [call, outcomes[index] as Outcome, expected[index] as Outcome] as const,
      );
      fc.pre(!pairs.some((pair) => isStricter(...pair)));
      expect(outcomes, `outcomes of step ${at}`).toEqual(expected);
    }
    if (at % 7 === 6) seen.push(await look(tenant));
  }
  const last = await look(tenant);
  expect(last.image.get("integrity_check")).toEqual(['"ok"']);
  if (reference !== undefined) {
    const plain = withoutStatistics(imageOf(reference.db));
    expect(differences(withoutStatistics(last.image), plain), "live and plain SQLite").toEqual([]);
  }
  for (const { untilOffset, image } of [...seen, last]) {
    const rebuilt = await node.rebuiltImage(tenant, untilOffset);
    expect(differences(image, rebuilt), `live and rebuilt at ${untilOffset}`).toEqual([]);
  }
}

function check(options: ScriptOptions, run: (script: Script) => Promise<void>): Promise<void> {
  return fc.assert(fc.asyncProperty(scripts(options), run), {
    seed: SEED,
    numRuns: 1_000_000,
    interruptAfterTimeLimit: LIMIT_MS,
    endOnFailure: false,
  });
}

const TEST_LIMIT_MS = LIMIT_MS + 10 * 60_000;

test("live, plain and rebuilt databases agree on outcomes and rows", { timeout: TEST_LIMIT_MS }, async () => {
  await check({ chance: false, maxSteps: 25 }, async (script) => {
    const reference = new Reference();
    try {
      await play(script, reference);
    } finally {
      reference.db.close();
    }
  });
});

test("what chance and the clock gave is rebuilt as it was", { timeout: TEST_LIMIT_MS }, async () => {
  await check({ chance: true, maxSteps: 25 }, (script) => play(script, undefined));
});
