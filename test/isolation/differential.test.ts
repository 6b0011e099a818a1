/**
 * I-1: everything that a tenant sees is what it would see alone, whatever another tenant does, has or suffers beside
 * it, before and after a restart.
 */
import * as fs from "node:fs";
import { beforeAll, describe, expect, it } from "vitest";
import { Kimberlite, type KimberliteError, type OpenOptions, TenantId } from "../../src/index.ts";
import { CALLS, methodsOf } from "../bad-input/calls.ts";
import { Scratch } from "./scratch.ts";
import { OTHER as B, FROZEN, firstHalf, type Line, STREAM, secondHalf, TABLE } from "./transcript.ts";

const A = TenantId(1);
const SEVENS = TenantId(777_777);
const OPTIONS: Partial<OpenOptions> = { clock: FROZEN, limits: { timeLimitMs: 400 } };
/** No call of the tenant may wait for the other one's statement, queue or transaction. */
const SLOWEST_MS = 5_000;

let alone: { readonly first: Line[]; readonly second: Line[]; readonly restarted: Line[] };

/** Starts something beside the tenant that is watched, and gives what ends it. */
type Neighbour = (db: Kimberlite, scratch: Scratch) => Promise<() => Promise<void>>;

/** Runs the script for A, in one life and in two, with something going on beside it. */
async function run(beside: Neighbour, lifetimes: "one" | "two" = "two"): Promise<typeof alone> {
  await using scratch = new Scratch();
  const lives = async (restart: boolean, id: TenantId): Promise<Line[][]> => {
    let db = await scratch.open(OPTIONS);
    let stop = await beside(db, scratch);
    await db.createTenant({ id, name: "Hospital A" });
    const first = await firstHalf(db, id);
    if (restart) {
      await stop();
      await db.close();
      db = await scratch.open(OPTIONS);
      stop = await beside(db, scratch);
    }
    const second = await secondHalf(db, id);
    await stop();
    await db.close();
    return [first, second];
  };
  const [first = [], second = []] = await lives(false, A);
  if (lifetimes === "one") return { first, second, restarted: alone.restarted };
  fs.rmSync(scratch.dataDir, { recursive: true });
  const [, restarted = []] = await lives(true, A);
  return { first, second, restarted };
}

beforeAll(async () => {
  alone = await run(async () => async () => undefined);
});

/** The other tenant, with the same names, ids and keys, created if this is its first life. */
async function other(db: Kimberlite): Promise<void> {
  if ((await db.listTenants()).some(({ id }) => id === B)) return;
  await db.createTenant({ id: B, name: "Hospital A" });
  await firstHalf(db, B);
}

/** Repeats work until it is stopped; what it throws is the other tenant's own affair. */
function repeat(work: (round: number) => Promise<unknown>): () => Promise<void> {
  let going = true;
  const loop = (async () => {
    for (let round = 0; going; round += 1) {
      await work(round).catch(() => undefined);
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
  })();
  return async () => {
    going = false;
    await loop;
  };
}

async function streamOf(db: Kimberlite): Promise<never> {
  return (await db.streams(B)).find(({ name }) => name === STREAM)?.id as never;
}

const SLOW = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

const BESIDE: Readonly<Record<string, Neighbour>> = {
  "writes and reads under the same names, ids and keys": async (db) => {
    await other(db);
    const stream = await streamOf(db);
    const stops = [
      repeat((n) => db.insert(B, TABLE, { name: `n${n}`, n: n % 100 })),
      repeat((n) => db.append(B, stream, [{ n }], { idempotencyKey: `key ${n}` })),
      repeat(() => db.query(B, `SELECT * FROM ${TABLE}`)),
      repeat((n) =>
        db.transaction(B, [`DELETE FROM ${TABLE} WHERE id = ${n}`, n % 3 === 0 ? "NONSENSE" : "SELECT 1"]),
      ),
      repeat((n) => db.execute(B, n % 2 === 0 ? "CREATE TABLE u (a)" : "DROP TABLE u")),
    ];
    return async () => void (await Promise.all(stops.map((stop) => stop())));
  },
  "is suspended and resumed, rotates keys and is verified": async (db) => {
    await other(db);
    const stop = repeat(async (n) => {
      await db.suspendTenant(B);
      await db.query(B, "SELECT 1").catch(() => undefined);
      await db.resumeTenant(B);
      if (n % 5 === 0) await db.rotateDek(B);
      if (n % 7 === 0) await db.rotateKek(B);
      await db.verifyTenant(B);
      await db.checkpoint(B);
    });
    return stop;
  },
  "is at every one of its quotas": async (db) => {
    await other(db);
    await db.setQuota(B, { maxLogBytes: 10, maxProjectionBytes: 10, maxOpsPerSec: 1, maxConcurrentOps: 1 });
    const stops = [
      repeat((n) => db.insert(B, TABLE, { name: `x${n}` })),
      repeat(() => db.query(B, "SELECT 1")),
    ];
    return async () => void (await Promise.all(stops.map((stop) => stop())));
  },
  "runs statements without an end": async (db) => {
    await other(db);
    const stops = Array.from({ length: 3 }, (_, n) => repeat(() => db.query(B, `${SLOW} WHERE ${n} = ${n}`)));
    stops.push(repeat(() => db.execute(B, `INSERT INTO ${TABLE} (n) ${SLOW}`)));
    return async () => void (await Promise.all(stops.map((stop) => stop())));
  },
  "holds its writer and fills its queue": async (db) => {
    await other(db);
    let release: () => void = () => undefined;
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    const held = db.transaction(B, () => released, { timeLimitMs: 60_000 }).catch(() => undefined);
    const queued = Array.from({ length: 100_100 }, () =>
      db.execute(B, "SELECT 1").catch((error: KimberliteError) => error.code),
    );
    return async () => {
      release();
      await held;
      expect(
        (await Promise.all(queued)).filter((outcome) => outcome === "overloaded").length,
      ).toBeGreaterThan(0);
    };
  },
  "lost its log, its projection and its keys": async (db, scratch) => {
    await other(db).catch(() => undefined);
    for (const folder of ["log", "projection"])
      fs.rmSync(scratch.path("tenants", "2", folder), { recursive: true, force: true });
    fs.rmSync(scratch.keys(2), { force: true });
    const stops = [
      repeat((n) => db.insert(B, TABLE, { name: `x${n}` })),
      repeat(() => db.query(B, `SELECT * FROM ${TABLE}`)),
      repeat(() => db.rotateKek(B)),
      repeat(() => db.verifyTenant(B)),
    ];
    return async () => void (await Promise.all(stops.map((stop) => stop())));
  },
};

describe("a tenant beside another that", () => {
  it.each(Object.keys(BESIDE))(
    "%s sees what it sees alone",
    async (name) => {
      const beside = BESIDE[name];
      if (beside === undefined) throw new Error("no such neighbour");
      // To fill a queue takes seconds, so that neighbour gets one lifetime.
      const disturbed = await run(beside, name.includes("queue") ? "one" : "two");
      expect(
        Math.max(...disturbed.first.concat(disturbed.second).map(({ tookMs }) => tookMs())),
      ).toBeLessThan(SLOWEST_MS);
      expect(disturbed.first).toEqual(alone.first);
      expect(disturbed.second).toEqual(alone.second);
      expect(disturbed.restarted).toEqual(alone.restarted);
    },
    120_000,
  );
});

describe("the script", () => {
  it("calls every operation that is addressed to a tenant", () => {
    const called = new Set([...alone.first, ...alone.second].map(({ method }) => method));
    // The operator's: they name no tenant, or are what the test itself is made with.
    const nodes = new Set([
      "createTenant",
      "listTenants",
      "verifierKey",
      "stats",
      "close",
      "rotateMasterKey",
      "nodeAudit",
      "importTenant",
      "backup",
      "backups",
      "restoreTenant",
      "createOperatorKey",
      "listOperatorKeys",
      "revokeOperatorKey",
      "authenticator",
    ]);
    expect(methodsOf(Kimberlite).filter((method) => !nodes.has(method) && !called.has(method))).toEqual([]);
    expect(CALLS.length).toBeGreaterThan(20);
  });

  it("notices a neighbour that leaves a trace", async () => {
    const touch = async (db: Kimberlite): Promise<() => Promise<void>> =>
      repeat(() => db.execute(A, "CREATE TABLE trace (a)"));
    const disturbed = await run(touch, "one");
    expect(disturbed.first).not.toEqual(alone.first);
  });

  it("is answered alike for two tenants of one node, but for their ids", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open(OPTIONS);
    for (const id of [A, SEVENS]) await db.createTenant({ id, name: "Hospital A" });
    const [one, seven] = await Promise.all([firstHalf(db, A), firstHalf(db, SEVENS)]);
    const text = (lines: readonly Line[]): string =>
      JSON.stringify(lines, (_key, item: unknown) => (typeof item === "bigint" ? `${item}n` : item));
    expect(text(seven).replaceAll("777777", "1")).toBe(text(one));
  });
});
