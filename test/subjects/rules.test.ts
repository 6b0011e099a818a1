/** What may be declared and erased, when, and what a declared table may not do any more. */
import { describe, expect, it } from "vitest";
import { Duration, type Kimberlite, TenantId } from "../../src/index.ts";
import { Scratch } from "../isolation/scratch.ts";
import { A, ALICE, BOB, fill, REASON } from "./hospital.ts";

async function codeOf(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => "done",
    (error: unknown) => (error as { code?: unknown }).code,
  );
}

async function outcomes(db: Kimberlite): Promise<unknown[]> {
  const entries = await Array.fromAsync(db.audit(A, { action: "subject.erase" }));
  return entries.map(({ outcome, code }) => code ?? outcome);
}

describe("a declaration", () => {
  it("takes an empty table and a column that it stores, once", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await db.createTenant({ id: A, name: "A" });
    await db.execute(A, "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b AS (a || 'x'))");
    await db.execute(A, "CREATE TABLE full (a TEXT)");
    await db.execute(A, "INSERT INTO full VALUES ('x')");
    await db.execute(A, "CREATE VIRTUAL TABLE docs USING fts5(body)");
    await db.execute(A, "CREATE VIEW v AS SELECT * FROM t");
    await db.createStream(A, "events");
    const declare = (table: unknown, column: unknown): Promise<unknown> =>
      codeOf(db.declareSubject(A, { table, column } as { table: string; column: string }));
    expect(await declare("absent", "a")).toBe("stream_not_found");
    expect(await declare("events", "a")).toBe("stream_not_found");
    expect(await declare("v", "a")).toBe("stream_not_found");
    expect(await declare("docs", "body")).toBe("unsupported_sql");
    expect(await declare("docs_content", "c0")).toBe("unsupported_sql");
    expect(await declare("full", "a")).toBe("constraint_violation");
    expect(await declare("t", "b")).toBe("invalid_argument");
    for (const bad of [undefined, "", 1, null, {}]) expect(await declare("t", bad)).toBe("invalid_argument");
    expect(await codeOf(db.declareSubject(A, undefined as never))).toBe("invalid_argument");
    expect(await codeOf(db.declareSubject(TenantId(9), { table: "t", column: "a" }))).toBe(
      "tenant_not_found",
    );
    expect(await db.subjects(A)).toEqual([]);
    const declared = await db.declareSubject(A, { table: "T", column: "A" });
    expect(declared).toMatchObject({ table: "t", column: "a" });
    expect(await db.declareSubject(A, { table: "t", column: "a" })).toEqual(declared);
    expect(await declare("t", "id")).toBe("invalid_argument");
    const events = await Array.fromAsync(db.audit(A, { action: "subject.declare" }));
    expect(events.filter(({ outcome }) => outcome !== "refused")).toMatchObject([
      { detail: { table: "T", column: "A" }, outcome: "done" },
    ]);
    await db.close();
    const again = await scratch.open();
    await again.rebuildProjection(A);
    expect(await again.subjects(A)).toEqual([declared]);
  });

  it("keeps its column, follows its table, and lets no other rows go with a dropped one", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await fill(db);
    const run = (sql: string): Promise<unknown> => codeOf(db.execute(A, sql));
    expect(await run("ALTER TABLE patients RENAME COLUMN email TO mail")).toBe("unsupported_sql");
    expect(await run("ALTER TABLE visits DROP COLUMN email")).not.toBe("done");
    expect(await run("ALTER TABLE patients ADD COLUMN age INTEGER DEFAULT 7")).toBe("done");
    expect(await run("ALTER TABLE patients RENAME TO people")).toBe("done");
    expect(await run("CREATE TABLE bills (person INTEGER REFERENCES people ON DELETE CASCADE)")).toBe("done");
    expect(await run("INSERT INTO bills VALUES (1), (2)")).toBe("done");
    expect(await run("DROP TABLE people")).toBe("unsupported_sql");
    expect(await db.query(A, "SELECT count(*) AS n FROM bills")).toEqual([{ n: 2 }]);
    await db.insert(A, "people", { id: 4, email: ALICE, name: "after" });
    await db.eraseSubject(A, ALICE, REASON);
    expect(await db.query(A, "SELECT id FROM people ORDER BY id")).toEqual([{ id: 2 }, { id: 3 }]);
    expect(await db.query(A, "SELECT person FROM bills")).toEqual([{ person: 2 }]);
    await db.rebuildProjection(A);
    expect(await db.query(A, "SELECT person FROM bills")).toEqual([{ person: 2 }]);
    expect(await run("DELETE FROM people")).toBe("done");
    expect(await run("DROP TABLE people")).toBe("done");
    expect((await db.subjects(A)).map(({ table }) => table)).toEqual(["visits"]);
    await db.rebuildProjection(A);
    expect(await db.query(A, "SELECT count(*) AS n FROM bills")).toEqual([{ n: 0 }]);
  });
});

describe("an erasure of a subject", () => {
  it("is refused by holds and retention, and the refusal is recorded", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await fill(db);
    const erase = (more: object = {}): Promise<unknown> =>
      codeOf(db.eraseSubject(A, ALICE, { ...REASON, ...more }));
    await db.placeLegalHold(A, { name: "case 17", reason: "court" });
    expect(await erase({ overrideRetention: true })).toBe("legal_hold");
    await db.releaseLegalHold(A, { name: "case 17", reason: "over" });
    await db.setRetention(A, Duration.days(1));
    expect(await erase()).toBe("retention_not_over");
    await db.setRetention(A, Duration.days(1), { mode: "compliance" });
    expect(await erase({ overrideRetention: true })).toBe("retention_locked");
    expect(await db.query(A, "SELECT count(*) AS n FROM patients")).toEqual([{ n: 3 }]);
    expect(await outcomes(db)).toEqual(["legal_hold", "retention_not_over", "retention_locked"]);
  });

  it("is allowed by an override in governance mode, which its certificate says", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await fill(db);
    await db.setRetention(A, Duration.days(1));
    const certificate = await db.eraseSubject(A, ALICE, { ...REASON, overrideRetention: true });
    expect(certificate.retentionOverriddenUntil).toMatch(/Z$/);
    expect(await outcomes(db)).toEqual(["began", "done"]);
  });

  it("is refused while rows refer to it or a trigger keeps it, and then nothing has happened", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await fill(db);
    await db.execute(A, "CREATE TABLE bills (person INTEGER REFERENCES patients)");
    await db.execute(A, "INSERT INTO bills VALUES (1)");
    expect(await codeOf(db.eraseSubject(A, ALICE, REASON))).toBe("constraint_violation");
    await db.execute(A, "DELETE FROM bills");
    await db.execute(
      A,
      "CREATE TRIGGER keep BEFORE DELETE ON visits WHEN OLD.email LIKE 'alice%' BEGIN SELECT RAISE(IGNORE); END",
    );
    expect(await codeOf(db.eraseSubject(A, ALICE, REASON))).toBe("constraint_violation");
    expect(await db.query(A, "SELECT count(*) AS n FROM patients")).toEqual([{ n: 3 }]);
    await db.execute(A, "DROP TRIGGER keep");
    const both = await Promise.allSettled([
      db.eraseSubject(A, ALICE, REASON),
      db.eraseSubject(A, ALICE, REASON),
      db.eraseSubject(A, BOB, REASON),
    ]);
    expect(both.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
    expect(both[1]).toMatchObject({ reason: { code: "subject_not_found" } });
  });

  it("takes what is a value and names no tenant that there is not", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await fill(db);
    for (const bad of [null, undefined, Number.NaN, {}, "\ud800"])
      expect(await codeOf(db.eraseSubject(A, bad as never, REASON))).toMatch(/^invalid_/);
    expect(await codeOf(db.eraseSubject(A, ALICE, undefined as never))).toBe("invalid_argument");
    expect(await codeOf(db.eraseSubject(A, ALICE, { reason: "" }))).toBe("invalid_argument");
    expect(await codeOf(db.eraseSubject(TenantId(9), ALICE, REASON))).toBe("tenant_not_found");
    expect(await codeOf(db.eraseSubject(A, ALICE.toUpperCase(), REASON))).toBe("subject_not_found");
    await db.createTenant({ id: TenantId(2), name: "none declared" });
    expect(await codeOf(db.eraseSubject(TenantId(2), ALICE, REASON))).toBe("subject_not_found");
  });
});
