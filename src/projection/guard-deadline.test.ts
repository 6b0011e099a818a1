import { Worker } from "node:worker_threads";
import Database from "better-sqlite3-multiple-ciphers";
import { describe, expect, it } from "vitest";
import { type Guard, guardBinary, installGuard } from "./guard.ts";

const ENDLESS = "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c";
/** Some milliseconds of work. */
const SHORT =
  "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 20000) SELECT count(*) FROM c";

function open(): { readonly db: Database.Database; readonly guard: Guard } {
  const db = new Database(":memory:");
  return { db, guard: installGuard(db, { maxValueBytes: 1 << 20, maxSqlBytes: 100_000 }) };
}

describe("deadline", () => {
  it("stops an endless statement, soon and by its name", () => {
    const { db, guard } = open();
    const statement = db.prepare(ENDLESS);
    for (const deadlineMs of [20, 100]) {
      const start = performance.now();
      guard.enter("read", deadlineMs);
      expect(() => statement.get()).toThrow(expect.objectContaining({ code: "SQLITE_INTERRUPT" }));
      expect(guard.leave().deadlineFired).toBe(true);
      const tookMs = performance.now() - start;
      expect(tookMs).toBeGreaterThanOrEqual(deadlineMs - 1);
      expect(tookMs).toBeLessThan(deadlineMs + 500);
    }
    expect(db.prepare(SHORT).pluck().get()).toBe(20_000);
  });

  it("stops what begins after it passed, and a compilation too", () => {
    const { db, guard } = open();
    const statement = db.prepare(ENDLESS);
    guard.enter("read", 1);
    const until = performance.now() + 20;
    while (performance.now() < until);
    expect(() => statement.get()).toThrow(/interrupted/);
    expect(() => statement.get()).toThrow(/interrupted/);
    expect(guard.leave().deadlineFired).toBe(true);
  });

  it("is not armed by 0, and forgotten by the next entry", () => {
    const { db, guard } = open();
    guard.enter("read", 0);
    expect(db.prepare(SHORT).pluck().get()).toBe(20_000);
    expect(guard.leave().deadlineFired).toBe(false);
  });

  it("never interrupts after leave, however close", () => {
    const { db, guard } = open();
    const statement = db.prepare(SHORT).pluck();
    let fired = 0;
    for (let round = 0; round < 400; round += 1) {
      guard.enter("read", 1 + (round % 4));
      try {
        statement.get();
      } catch {
        // the deadline fell into the statement
      }
      fired += guard.leave().deadlineFired ? 1 : 0;
      expect(statement.get()).toBe(20_000);
    }
    expect(fired).toBeGreaterThan(0);
  });

  it("survives a connection that closes while armed", () => {
    for (let round = 0; round < 50; round += 1) {
      const { db, guard } = open();
      guard.enter("write", 1 + (round % 3));
      db.close();
    }
    const { db, guard } = open();
    guard.enter("read", 50);
    expect(() => db.prepare(ENDLESS).get()).toThrow(/interrupted/);
    guard.leave();
  });

  it("wakes up after it slept", async () => {
    const { db, guard } = open();
    await new Promise((resolve) => setTimeout(resolve, 1_200));
    guard.enter("read", 30);
    expect(() => db.prepare(ENDLESS).get()).toThrow(/interrupted/);
    guard.leave();
  });

  it("keeps to its own connection, with connections in several threads", async () => {
    const results = await Promise.all([inThread(true), inThread(false), inThread(true)]);
    expect(results).toEqual([
      { fired: 20, interrupted: 20 },
      { fired: 0, interrupted: 0 },
      { fired: 20, interrupted: 20 },
    ]);
  });
});

describe("binary", () => {
  it("cannot be loaded again, and a second setup is refused", () => {
    const { db } = open();
    expect(() => db.loadExtension(guardBinary())).toThrow(/not authorized/);
    expect(() => db.prepare("SELECT kimberlite_setup(?, 1, 1, 1)").get(Buffer.alloc(16))).toThrow(
      /setup refused/,
    );
  });
});

/** Twenty statements in a thread of their own: endless ones with a deadline, or short ones with a distant one. */
async function inThread(endless: boolean): Promise<unknown> {
  const worker = new Worker(
    `const { parentPort, workerData } = require("node:worker_threads");
    (async () => {
      const { installGuard } = await import(workerData.module);
      const Database = require(workerData.library);
      const db = new Database(":memory:");
      const guard = installGuard(db, { maxValueBytes: 1000000, maxSqlBytes: 100000 });
      let fired = 0;
      let interrupted = 0;
      const statement = db.prepare(workerData.sql);
      for (let round = 0; round < 20; round++) {
        guard.enter("read", workerData.deadlineMs);
        try { statement.get(); } catch (error) { if (error.code === "SQLITE_INTERRUPT") interrupted++; }
        if (guard.leave().deadlineFired) fired++;
      }
      parentPort.postMessage({ fired, interrupted });
    })();`,
    {
      eval: true,
      workerData: {
        module: new URL("./guard.ts", import.meta.url).href,
        library: new URL("../../node_modules/better-sqlite3-multiple-ciphers", import.meta.url).pathname,
        sql: endless ? ENDLESS : SHORT,
        deadlineMs: endless ? 10 : 60_000,
      },
    },
  );
  return new Promise((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });
}
