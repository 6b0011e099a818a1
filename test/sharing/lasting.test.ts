/** Grants against time and change around them: clocks, restarts, copies, limits, quotas, slow readers. */
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { Duration, Kimberlite, masterKeyFile, restoreNode, TenantId } from "../../src/index.ts";
import { SetClock } from "../isolation/set-clock.ts";
import { codeOf, Hospitals, OWNER, READER, STRANGER } from "./hospitals.ts";

const COUNT = "SELECT count(*) AS n FROM patients";
const ENDLESS =
  "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c, patients";
const HOUR_US = 3_600_000_000n;

let hospitals: Hospitals;

afterEach(() => hospitals[Symbol.asyncDispose]());

async function actions(tenant: TenantId): Promise<string[]> {
  const entries = await Array.fromAsync(hospitals.db.audit(tenant));
  return entries.map(({ action, outcome }) => `${action} ${outcome}`);
}

describe("a clock", () => {
  it("that is set back revives no grant, also over a restart", async () => {
    const clock = new SetClock();
    hospitals = await Hospitals.make({ clock });
    await hospitals.grant({ expiration: Duration.minutes(30) });
    expect(await hospitals.query(COUNT)).toEqual([{ n: 50 }]);
    clock.move(HOUR_US);
    expect(await codeOf(hospitals.query(COUNT))).toBe("grant_expired");
    clock.move(-3n * HOUR_US);
    expect(await codeOf(hospitals.query(COUNT))).toBe("grant_expired");
    await hospitals.reopen({ clock });
    expect(await codeOf(hospitals.query(COUNT))).toBe("grant_expired");
    expect((await hospitals.db.listGrants(READER))[0]).toMatchObject({ state: "expired" });
    for (const tenant of [OWNER, READER]) expect(await actions(tenant)).toContain("grant.expire done");
  });

  it("that was ahead when nobody looked is remembered by what was written then", async () => {
    const clock = new SetClock();
    hospitals = await Hospitals.make({ clock });
    await hospitals.grant({ expiration: Duration.minutes(30) });
    clock.move(HOUR_US);
    await hospitals.db.execute(OWNER, "UPDATE secrets SET text = 'later'");
    clock.move(-2n * HOUR_US);
    await hospitals.reopen({ clock });
    expect(await codeOf(hospitals.query(COUNT))).toBe("grant_expired");
  });

  it("that is set ahead lets no grant begin early", async () => {
    const clock = new SetClock();
    hospitals = await Hospitals.make({ clock });
    const begins = new Date(Date.now() + 24 * 3_600_000);
    await hospitals.grant({ notBefore: begins, expiration: Duration.days(9) });
    expect(await codeOf(hospitals.query(COUNT))).toBe("grant_not_yet_valid");
    clock.move(48n * HOUR_US);
    expect(await codeOf(hospitals.query(COUNT))).toBe("grant_not_yet_valid");
  });

  it("that passes the end in the middle of a result ends it", async () => {
    const clock = new SetClock();
    hospitals = await Hospitals.make({ clock });
    await hospitals.grant({ expiration: Duration.minutes(30) });
    const rows = hospitals.db.iterateShared(READER, hospitals.table, "SELECT id FROM patients");
    expect((await rows.next()).value).toEqual({ id: 1 });
    clock.move(HOUR_US);
    expect(await codeOf(rows.next())).toBe("grant_expired");
  });
});

describe("a copy", () => {
  it("of the owner by export and import brings no grant with it", async () => {
    hospitals = await Hospitals.make();
    await hospitals.grant();
    const folder = join(hospitals.scratch.folder, "export");
    await hospitals.db.exportTenant(OWNER, folder);
    const twin = TenantId(4);
    await hospitals.db.importTenant(folder, { key: hospitals.db.verifierKey(), as: twin });
    expect(await hospitals.db.listGrants(twin)).toEqual([]);
    const stream = { ...hospitals.table, tenant: twin };
    expect(await codeOf(hospitals.db.queryShared(READER, stream, COUNT))).toBe("grant_not_found");
  });

  it("of the node that is restored revives no grant that was revoked since", async () => {
    hospitals = await Hospitals.make();
    const grant = await hospitals.grant();
    const place = (name: string): string => `file:${join(hospitals.scratch.folder, name)}`;
    await hospitals.db.backup({ to: place("backup"), keysTo: place("keys") });
    await hospitals.db.revokeAccess(grant.id, { reason: "over" });
    await hospitals.db.close();
    const masterKey = masterKeyFile(hospitals.scratch.masterKeyPath);
    const dataDir = join(hospitals.scratch.folder, "restored");
    await restoreNode({ from: place("backup"), keysFrom: place("keys"), dataDir, masterKey });
    await using restored = await Kimberlite.open({ dataDir, masterKey });
    expect(await restored.listGrants(OWNER)).toMatchObject([{ id: grant.id, state: "ended" }]);
    expect(await codeOf(restored.queryShared(READER, hospitals.table, COUNT))).toBe("grant_ended");
  });
});

describe("limits", () => {
  it("stop a slow reader, who holds up neither the owner nor other readers", async () => {
    hospitals = await Hospitals.make({ limits: { timeLimitMs: 3_000 } });
    await hospitals.grant();
    await hospitals.grant({ toTenant: STRANGER });
    let stopped = 0;
    const slow = [1, 2].map(() => codeOf(hospitals.query(ENDLESS)).finally(() => (stopped += 1)));
    for (let round = 0; round < 3; round += 1) {
      await hospitals.db.query(OWNER, "SELECT count(*) FROM patients");
      await hospitals.db.execute(OWNER, "UPDATE secrets SET text = 'x'");
    }
    expect(await hospitals.db.queryShared(STRANGER, hospitals.table, COUNT)).toEqual([{ n: 50 }]);
    expect(stopped).toBe(0);
    expect(await Promise.all(slow)).toEqual(["statement_timeout", "statement_timeout"]);
  });

  it("stop a scan of rows that are not shared", async () => {
    hospitals = await Hospitals.make();
    await hospitals.db.execute(OWNER, "CREATE TABLE many (id INTEGER PRIMARY KEY, text TEXT)");
    const fill = `WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 2000)
      INSERT INTO many SELECT n, replace(hex(zeroblob(10000)), '0', 'a') FROM c`;
    await hospitals.db.execute(OWNER, fill);
    const stream = await hospitals.streamOf("many");
    // No row is shared, and finding that out takes long.
    await hospitals.grant({
      stream,
      columns: ["id"],
      where: "instr(text, substr(text, 1, 10000) || 'b') > 0",
    });
    await hospitals.reopen({ limits: { timeLimitMs: 20 } });
    const read = hospitals.db.queryShared(READER, stream, "SELECT * FROM many");
    expect(await codeOf(read)).toBe("statement_timeout");
  });

  it("of a result hold", async () => {
    hospitals = await Hospitals.make({ limits: { maxResultRows: 10 } });
    await hospitals.grant();
    expect(await codeOf(hospitals.query("SELECT * FROM patients"))).toBe("result_too_large");
  });

  it("of operations are the reader's: the owner's are not used", async () => {
    hospitals = await Hospitals.make();
    await hospitals.grant();
    await hospitals.db.setQuota(OWNER, { maxOpsPerSec: 1, burstOps: 1 });
    await hospitals.db.setQuota(READER, { maxOpsPerSec: 1, burstOps: 3 });
    const codes: unknown[] = [];
    for (let call = 0; call < 5; call += 1) codes.push(await codeOf(hospitals.query(COUNT)));
    expect(codes).toContain("rate_limited");
    expect(codes.filter((code) => Array.isArray(code)).length).toBeGreaterThanOrEqual(3);
    expect(await hospitals.db.query(OWNER, "SELECT 1 AS one")).toEqual([{ one: 1 }]);
  });
});
