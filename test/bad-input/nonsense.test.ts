/**
 * Nonsense in every argument of every public method, and inside its options: the call works or fails with an error of
 * the family, in bounded time; afterwards the database works and its log verifies.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ERROR_CODES, type Kimberlite, KimberliteError, type StreamId, TenantId } from "../../src/index.ts";
import { Scratch } from "../isolation/scratch.ts";
import { CALLS, type Call, make, type Place } from "./calls.ts";

const A = TenantId(1);
const HANG_MS = 10_000;

const NONSENSE: readonly unknown[] = [
  undefined,
  null,
  true,
  false,
  0,
  1,
  -1,
  1.5,
  -0,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  2 ** 53,
  2 ** 31,
  1e308,
  0n,
  -1n,
  2n ** 63n,
  10n ** 40n,
  "",
  "x",
  "0",
  "1",
  "-1",
  "1e3",
  "\0",
  "a\0b",
  "\ud800",
  "\u202e",
  "_kimberlite_meta",
  "sqlite_master",
  "x".repeat(70_000),
  [],
  [null],
  [[]],
  [undefined],
  [1, "2"],
  {},
  { id: 1 },
  { sql: 1 },
  { sql: "SELECT 1", params: 5 },
  { from: -1 },
  { limit: Number.NaN },
  { at: {} },
  { ms: -1 },
  { tenant: 1n, local: 1 },
  { tenant: 1n, local: 2n ** 70n },
  { signal: 5 },
  { signal: {} },
  { checkpoint: 5 },
  { onProgress: 5 },
  { actor: "" },
  { actor: 5 },
  { timeLimitMs: -1 },
  Object.create(null),
  Object.freeze({}),
  new Date(0),
  new Date(Number.NaN),
  new Uint8Array(3),
  new ArrayBuffer(3),
  new Map(),
  new Set(),
  /x/,
  Symbol("s"),
  () => 1,
  async () => undefined,
  Promise.resolve(1),
  new Error("e"),
  new (class Odd {})(),
  { toString: () => "1" },
  { valueOf: () => 1 },
  JSON.parse('{"__proto__": 5}'),
  new Proxy({}, {}),
];

let scratch: Scratch;
let db: Kimberlite;
let stream: StreamId;
let fresh = 1_000;

beforeAll(async () => {
  scratch = new Scratch();
  // Some nonsense is a relative path.
  process.chdir(scratch.folder);
  db = await scratch.open();
  await db.createTenant({ id: A, name: "A" });
  await db.execute(A, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
  stream = await db.createStream(A, "events");
  await db.append(A, stream, [1, 2, 3]);
});

afterAll(() => scratch[Symbol.asyncDispose]());

function place(): Place {
  fresh += 1;
  return { db, tenant: A, stream, fresh };
}

async function expectOfTheFamily(call: Call, args: readonly unknown[], what: string): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const hang = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} hangs`)), HANG_MS);
  });
  try {
    await Promise.race([make(db, call.method, args), hang]);
  } catch (error) {
    if (!(error instanceof KimberliteError) || !(error.code in ERROR_CODES)) {
      expect.fail(`${what}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
    }
  } finally {
    clearTimeout(timer);
  }
}

function textOf(value: unknown): string {
  if (value instanceof Error) return value.stack ?? value.message;
  if (typeof value === "object") return JSON.stringify(value);
  return typeof value === "symbol" || typeof value === "function" ? typeof value : `${value as string}`;
}

function named(value: unknown): string {
  if (typeof value === "string" && value.length > 40) return `a string of ${value.length}`;
  try {
    return `${typeof value} ${textOf(value)}`;
  } catch {
    return typeof value;
  }
}

/** Nonsense for one argument: in its place, and if it has fields, in the place of each of them. */
function* variants(good: unknown): Generator<{ value: unknown; what: string }, void> {
  for (const value of NONSENSE) yield { value, what: named(value) };
  if (typeof good !== "object" || good === null) return;
  for (const field of Object.keys(good)) {
    for (const value of NONSENSE) {
      const copy: unknown = Array.isArray(good) ? [...(good as unknown[])] : { ...good };
      (copy as Record<string, unknown>)[field] = value;
      yield { value: copy, what: `{ ${field}: ${named(value)} }` };
    }
  }
}

describe("nonsense", () => {
  it.each(CALLS)("in the arguments of $method", async (call) => {
    const count = call.args(place()).length;
    for (let at = 0; at < count; at += 1) {
      for (const { value, what } of variants(call.args(place())[at])) {
        const args = call.args(place());
        args[at] = value;
        await expectOfTheFamily(call, args, `${call.method}, argument ${at}, ${what}`);
        await db.resumeTenant(A);
      }
    }
  });

  it("in all arguments at once, or none of them", async () => {
    for (const call of CALLS) {
      await expectOfTheFamily(call, [], `${call.method}()`);
      for (const value of NONSENSE) {
        const args = call.args(place()).map(() => value);
        await expectOfTheFamily(call, args, `${call.method}, all ${named(value)}`);
      }
    }
  });

  it("as the new master key, and as the options of opening", async () => {
    for (const value of NONSENSE) {
      const rotate = { method: "rotateMasterKey", tenantAt: undefined, args: () => [] };
      await expectOfTheFamily(rotate, [value], `rotateMasterKey ${named(value)}`);
    }
    const fields = [
      "dataDir",
      "masterKey",
      "limits",
      "maxOpenTenants",
      "dekRotateAfterBlocks",
      "create",
      "clock",
      "disk",
      "randomness",
      "onProgress",
    ];
    for (const field of fields) {
      for (const value of NONSENSE) {
        if (field === "dataDir" && typeof value === "string") continue;
        const failure = await scratch
          .open({ dataDir: `${scratch.folder}/other`, [field]: value })
          .then(async (opened) => opened.close())
          .catch((error: unknown) => error);
        if (failure === undefined) continue;
        expect(failure, `open, ${field}: ${named(value)}: ${textOf(failure)}`).toBeInstanceOf(
          KimberliteError,
        );
      }
    }
  });

  it("leaves a database that works and verifies, also after a restart", async () => {
    const work = async (opened: Kimberlite): Promise<void> => {
      fresh += 1;
      await opened.resumeTenant(A);
      await opened.setQuota(A, {});
      await opened.insert(A, "t", { id: fresh, v: "after" });
      expect(await opened.query(A, "SELECT v FROM t WHERE id = ?", [fresh])).toEqual([{ v: "after" }]);
      expect((await opened.verifyTenant(A)).ok).toBe(true);
    };
    await work(db);
    await db.close();
    db = await scratch.open();
    await work(db);
  });
});
