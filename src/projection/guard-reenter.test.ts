import Database from "better-sqlite3-multiple-ciphers";
import { expect, it } from "vitest";
import { installGuard } from "./guard.ts";

const CONNECTIONS = 300;
const FOR_MS = 1_500;

it("enters anew while the watchdog still interrupts for deadlines that passed with nothing running", () => {
  const guarded = Array.from({ length: CONNECTIONS }, () => {
    const db = new Database(":memory:");
    return { db, guard: installGuard(db, { maxValueBytes: 1_000_000, maxSqlBytes: 100_000 }) };
  });
  try {
    const endMs = performance.now() + FOR_MS;
    let entered = 0;
    while (performance.now() < endMs) {
      for (const { guard } of guarded) guard.enter("read", 1);
      entered += 1;
    }
    expect(entered).toBeGreaterThan(0);
    for (const { guard } of guarded) guard.leave();
  } finally {
    for (const { db } of guarded) db.close();
  }
});
