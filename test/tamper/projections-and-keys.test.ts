/**
 * Projections, key files, the catalogue and the directory's own files, changed while the database was closed: a
 * projection comes back from the log; what cannot come back halts its tenant, or the node if it is the node's.
 */
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createMasterKeyFile, type ErrorCode, type Kimberlite, masterKeyFile } from "../../src/index.ts";
import { filesBelow, flipBit, Scratch } from "../isolation/scratch.ts";
import { expectCode } from "./expectations.ts";
import { A, B, fillHospitals, type View, viewOf } from "./hospitals.ts";

let scratch: Scratch;
let early: string;
let saved: string;
let views: { readonly a: View; readonly b: View };

beforeAll(async () => {
  scratch = new Scratch();
  await scratch.with(fillHospitals);
  early = scratch.save("early");
  await scratch.with(async (db) => {
    await db.insert(A, "patients", { id: 50, name: "later" });
    await db.rotateDek(A);
    await db.insert(A, "patients", { id: 51, name: "last" });
    views = { a: await viewOf(db, A), b: await viewOf(db, B) };
  });
  saved = scratch.save();
});

beforeEach(() => scratch.restore(saved));
afterAll(() => scratch[Symbol.asyncDispose]());

const projectionFile = (tenant: bigint): string => filesBelow(scratch.projection(tenant))[0] as string;

async function expectBothWhole(): Promise<void> {
  await scratch.with(async (db) => {
    expect(await patientlyView(db)).toEqual(views.a);
    expect(await viewOf(db, B)).toEqual(views.b);
    for (const id of [A, B]) expect((await db.verifyTenant(id)).ok).toBe(true);
    await db.insert(A, "patients", { id: 99, name: "after" });
    await db.execute(A, "DELETE FROM patients WHERE id = 99");
  });
}

/** A read that was under way when the damage showed is told to try again, once. */
async function patientlyView(db: Kimberlite): Promise<View> {
  try {
    return await viewOf(db, A);
  } catch (error) {
    expect((error as { code?: string }).code).toBe("overloaded");
    return viewOf(db, A);
  }
}

describe("a projection is rebuilt from the log when it", () => {
  it("was deleted", async () => {
    fs.rmSync(scratch.projection(A), { recursive: true });
    await expectBothWhole();
  });

  it("was cut off", async () => {
    for (const length of [0, 1, 100, 4096, 5000]) {
      scratch.restore(saved);
      fs.truncateSync(projectionFile(A), length);
      await expectBothWhole();
    }
  });

  it("is another tenant's", async () => {
    fs.copyFileSync(projectionFile(B), projectionFile(A));
    await expectBothWhole();
  });

  it("was exchanged with another tenant's", async () => {
    const [a, b] = [fs.readFileSync(projectionFile(A)), fs.readFileSync(projectionFile(B))];
    fs.writeFileSync(projectionFile(A), b);
    fs.writeFileSync(projectionFile(B), a);
    await expectBothWhole();
  });

  it("is an older copy", async () => {
    fs.rmSync(scratch.projection(A), { recursive: true });
    fs.cpSync(join(early, "tenants", "1", "projection"), scratch.projection(A), { recursive: true });
    await expectBothWhole();
  });

  it("is not a projection at all", async () => {
    fs.writeFileSync(projectionFile(A), Buffer.alloc(20_000, "x"));
    await expectBothWhole();
  });

  it("has a flipped bit in any of its pages", async () => {
    const pages = fs.statSync(projectionFile(A)).size / 4096;
    expect(pages).toBeGreaterThan(5);
    for (let page = 0; page < pages; page += 1) {
      scratch.restore(saved);
      flipBit(projectionFile(A), page * 4096 + 1234);
      await expectBothWhole();
    }
  });
});

describe("keys", () => {
  const cases: readonly (readonly [string, () => void, ErrorCode])[] = [
    ["removed", () => fs.rmSync(scratch.keys(A)), "keys_missing"],
    ["another tenant's", () => fs.copyFileSync(scratch.keys(B), scratch.keys(A)), "keys_damaged"],
    ["damaged", () => flipBit(scratch.keys(A), 300), "keys_damaged"],
    ["emptied", () => fs.truncateSync(scratch.keys(A), 0), "keys_damaged"],
    [
      "of an earlier day, before the DEK of the last block",
      () => fs.copyFileSync(join(early, "keys", "1.keys"), scratch.keys(A)),
      "keys_missing",
    ],
  ];

  it.each(cases)("%s: the tenant halts, and no other", async (_name, damage, code) => {
    damage();
    fs.rmSync(scratch.projection(A), { recursive: true });
    await scratch.with(async (db) => {
      await expectCode(code, () => db.query(A, "SELECT 1"));
      await expectCode(code, () => db.execute(A, "DELETE FROM patients"));
      await expectCode(code, () => db.verifyTenant(A));
      expect(await viewOf(db, B)).toEqual(views.b);
    });
    fs.copyFileSync(join(saved, "keys", "1.keys"), scratch.keys(A));
    await expectBothWhole();
  });
});

describe("the system tenant", () => {
  const cases: readonly (readonly [string, () => void, readonly ErrorCode[]])[] = [
    ["log removed", () => fs.rmSync(scratch.segment(0)), ["log_damaged", "catalog_damaged"]],
    [
      "folder removed",
      () => fs.rmSync(scratch.path("tenants", "0"), { recursive: true }),
      ["log_damaged", "catalog_damaged"],
    ],
    ["log cut off", () => fs.truncateSync(scratch.segment(0), 300), ["log_damaged"]],
    ["log a tenant's", () => fs.copyFileSync(scratch.segment(A), scratch.segment(0)), ["log_damaged"]],
    ["keys removed", () => fs.rmSync(scratch.keys(0)), ["keys_missing"]],
    ["keys a tenant's", () => fs.copyFileSync(scratch.keys(A), scratch.keys(0)), ["keys_damaged"]],
    ["keys damaged", () => flipBit(scratch.keys(0), 200), ["keys_damaged"]],
  ];

  it.each(cases)(
    "%s: the directory does not open, and nothing of it changes",
    async (_name, damage, codes) => {
      damage();
      const failure = await scratch.open().catch((error: unknown) => error);
      expect(codes).toContain((failure as { code?: string }).code);
      const again = await scratch.open().catch((error: unknown) => error);
      expect(codes).toContain((again as { code?: string }).code);
      fs.rmSync(scratch.path("tenants", "0"), { recursive: true, force: true });
      fs.cpSync(join(saved, "tenants", "0"), scratch.path("tenants", "0"), { recursive: true });
      fs.copyFileSync(join(saved, "keys", "0.keys"), scratch.keys(0));
      await expectBothWhole();
    },
  );

  it("projection removed or damaged: it is rebuilt", async () => {
    fs.rmSync(scratch.projection(0), { recursive: true });
    await expectBothWhole();
    const pages = fs.statSync(projectionFile(0n)).size / 4096;
    expect(pages).toBeGreaterThan(15);
    for (let page = 1; page < pages; page += 3) {
      scratch.restore(saved);
      flipBit(projectionFile(0n), page * 4096 + 1234);
      await scratch.with(async (db) => {
        expect(await viewOf(db, A)).toEqual(views.a);
        await db.setQuota(A, { maxOpsPerSec: 1_000_000 + page });
        await db.createApiKey(A, { role: "reader" });
      });
    }
    await expectBothWhole();
  });
});

describe("the directory", () => {
  it("of a later format is refused", async () => {
    const path = scratch.path("kimberlite.json");
    fs.writeFileSync(path, fs.readFileSync(path, "utf8").replace('"format":1', '"format":2'));
    await expectUntouched("format_too_new", () => scratch.open());
  });

  it("whose format file is damaged is refused", async () => {
    for (const text of ["", "{", '{"format":"1"}', '{"format":1,"installation":"x"}', "null"]) {
      fs.writeFileSync(scratch.path("kimberlite.json"), text);
      await expectUntouched("directory_not_initialised", () => scratch.open());
    }
  });

  it("whose format file is gone is not made anew over its tenants", async () => {
    fs.rmSync(scratch.path("kimberlite.json"));
    await expectUntouched("directory_not_initialised", () => scratch.open());
  });

  it("with a journal of a later format is refused", async () => {
    await scratch.with((db) => db.insert(A, "patients", { id: 60, name: "journalled" }));
    const journals = filesBelow(scratch.path("journal")).filter(
      (path) => fs.readFileSync(path).readUInt32LE(0) !== 0,
    );
    expect(journals.length).toBeGreaterThan(0);
    flipBit(journals[0] as string, 4, 1);
    await expectCode("format_too_new", () => scratch.open());
  });

  it("with the wrong master key stays as it is, to the byte", async () => {
    const wrong = join(scratch.folder, `wrong-${process.pid}.key`);
    fs.rmSync(wrong, { force: true });
    createMasterKeyFile(wrong);
    await expectUntouched("master_key_wrong", () => scratch.open({ masterKey: masterKeyFile(wrong) }));
  });

  it("with a missing or invalid master key stays as it is, to the byte", async () => {
    const absent = join(scratch.folder, "absent.key");
    await expectUntouched("master_key_missing", () => scratch.open({ masterKey: masterKeyFile(absent) }));
    const invalid = join(scratch.folder, "invalid.key");
    fs.writeFileSync(invalid, "not a key", { mode: 0o600 });
    await expectUntouched("master_key_invalid", () => scratch.open({ masterKey: masterKeyFile(invalid) }));
  });

  it("is not made by a missing master key", async () => {
    const absent = masterKeyFile(join(scratch.folder, "absent.key"));
    const dataDir = join(scratch.folder, "never-made");
    await expectCode("master_key_missing", () => scratch.open({ dataDir, masterKey: absent }));
    expect(fs.existsSync(dataDir)).toBe(false);
  });

  it("is opened once: not twice in one process", async () => {
    await scratch.with(async (db) => {
      await expectCode("directory_locked", () => scratch.open());
      expect(await viewOf(db, A)).toEqual(views.a);
      await db.insert(A, "patients", { id: 70, name: "still served" });
    });
    await scratch.with((db) => db.query(A, "SELECT 1"));
  });

  async function expectUntouched(code: ErrorCode, open: () => Promise<Kimberlite>): Promise<void> {
    const before = fingerprint();
    await expectCode(code, open);
    expect(fingerprint()).toEqual(before);
  }

  function fingerprint(): string[] {
    return filesBelow(scratch.dataDir).map((path) => {
      const digest = createHash("sha256").update(fs.readFileSync(path)).digest("hex");
      return `${path} ${fs.statSync(path).mtimeMs} ${digest}`;
    });
  }
});
