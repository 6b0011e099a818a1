/**
 * Keys of one day beside data of another, the whole store either way: what the keys do not open is refused by a code and
 * stays as it is, all else is served, and with the right ones put back everything is there.
 */
import * as fs from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Kimberlite, TenantId } from "../../src/index.ts";
import { Scratch } from "../isolation/scratch.ts";

const [ROTATED, REENCRYPTED, UNCHANGED, ERASED, LATER] = [1, 2, 3, 4, 5].map((id) => TenantId(id)) as [
  TenantId,
  TenantId,
  TenantId,
  TenantId,
  TenantId,
];
const REASON = { reason: "a test" };

let scratch: Scratch;
let yesterday: string;
let today: string;

async function begin(db: Kimberlite, id: TenantId): Promise<void> {
  await db.createTenant({ id, name: `T${id}` });
  await db.execute(id, "CREATE TABLE t (day INTEGER)");
  await db.insert(id, "t", { day: 1 });
}

/** The days that a tenant has rows of, or the code of its refusal. */
async function daysOf(db: Kimberlite, id: TenantId): Promise<unknown> {
  return db
    .query(id, "SELECT day FROM t ORDER BY day")
    .then((rows) => rows.map(({ day }) => day))
    .catch(({ code }: { code: string }) => code);
}

const all = (db: Kimberlite): Promise<unknown[]> =>
  Promise.all([ROTATED, REENCRYPTED, UNCHANGED, ERASED, LATER].map((id) => daysOf(db, id)));

const TODAY = [[1, 2], [1, 2], [1], "tenant_erased", [1]];
const YESTERDAY = [[1], [1], [1], [1], "tenant_not_found"];

/** Puts a saved day's keys, or all but its keys, in the place of what is there. */
function put(from: string, part: "keys" | "data"): void {
  const inPart = (name: string): boolean => (name === "keys") === (part === "keys");
  for (const name of fs.readdirSync(scratch.dataDir).filter(inPart))
    fs.rmSync(scratch.path(name), { recursive: true });
  for (const name of fs.readdirSync(from).filter(inPart))
    fs.cpSync(`${from}/${name}`, scratch.path(name), { recursive: true });
}

beforeAll(async () => {
  scratch = new Scratch();
  await scratch.with(async (db) => {
    for (const id of [ROTATED, REENCRYPTED, UNCHANGED, ERASED]) await begin(db, id);
  });
  yesterday = scratch.save("yesterday");
  await scratch.with(async (db) => {
    await db.rotateDek(ROTATED);
    await db.insert(ROTATED, "t", { day: 2 });
    await db.reencryptTenant(REENCRYPTED, { destroyFormerKeys: true, ...REASON });
    await db.insert(REENCRYPTED, "t", { day: 2 });
    await db.eraseTenant(ERASED, REASON);
    await begin(db, LATER);
  });
  today = scratch.save("today");
});
afterAll(() => scratch[Symbol.asyncDispose]());

describe("keys of another day", () => {
  it("of yesterday under today's data: what they lack is refused, the erased stays erased", async () => {
    scratch.restore(today);
    put(yesterday, "keys");
    await scratch.with(async (db) => {
      const refused = expect.stringMatching(/^keys_(missing|damaged)$/);
      expect(await all(db)).toEqual([refused, refused, [1], "tenant_erased", refused]);
      await expect(db.insert(ROTATED, "t", { day: 3 })).rejects.toMatchObject({ code: refused });
      await expect(db.rebuildProjection(REENCRYPTED)).rejects.toMatchObject({ code: refused });
      await expect(db.createTenant({ id: LATER, name: "again" })).rejects.toMatchObject({
        code: "tenant_exists",
      });
    });
    put(today, "keys");
    await scratch.with(async (db) => {
      expect(await all(db)).toEqual(TODAY);
      for (const id of [ROTATED, REENCRYPTED, UNCHANGED, LATER])
        expect((await db.verifyTenant(id)).ok).toBe(true);
    });
  });

  it("of today under yesterday's data: what was destroyed since is refused, and no key is lost", async () => {
    scratch.restore(today);
    put(yesterday, "data");
    const refused = expect.stringMatching(/^keys_(missing|damaged)$/);
    await scratch.with(async (db) => {
      expect(await all(db)).toEqual([[1], refused, [1], refused, "tenant_not_found"]);
    });
    // The keys as the node left them.
    put(today, "data");
    await scratch.with(async (db) => expect(await all(db)).toEqual(TODAY));
    scratch.restore(yesterday);
    await scratch.with(async (db) => expect(await all(db)).toEqual(YESTERDAY));
  });
});
