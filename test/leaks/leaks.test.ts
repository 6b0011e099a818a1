/**
 * What is opened is given back: over hundreds of tenants that come and go, and databases that are opened and closed,
 * descriptors and memory do not grow.
 */
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { collectGarbage } from "../../src/host/memory.ts";
import type { Kimberlite, TenantId } from "../../src/index.ts";
import { scrubFreedMemory } from "../../src/projection/scrub.ts";
import { TestNode } from "../sim/test-node.ts";

const MIB = 1024 * 1024;
const JOURNAL = { journalFileBytes: 1 * MIB };

interface Held {
  readonly descriptors: number;
  readonly bytes: number;
}

/** Garbage is collected, and what is closed a moment later is closed. */
async function held(): Promise<Held> {
  for (let round = 0; round < 3; round += 1) {
    await collectGarbage();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return { descriptors: readdirSync("/proc/self/fd").length, bytes: process.memoryUsage.rss() };
}

/** What the process has been given to write to, touched or not. */
function writableBytes(): number {
  return 1024 * Number(/VmData:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))?.[1]);
}

const CREATE = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)";

/** What takes a lane, which keeps a connection, and what builds a file beside. */
async function useLanes(db: Kimberlite, id: TenantId): Promise<void> {
  await db.transaction(id, async (tx) => {
    await tx.execute("INSERT INTO t (v) VALUES ('held')");
  });
  await db.query(id, "SELECT count(*) FROM t", [], { at: 0n });
}

describe.runIf(process.platform === "linux")("nothing is left open", () => {
  it("of tenants that are opened and evicted again and again", async () => {
    await using node = await TestNode.open({ ...JOURNAL, maxOpenTenants: 4 });
    const ids: TenantId[] = [];
    for (let count = 0; count < 12; count += 1) ids.push(await node.createTenant());
    for (const id of ids) await node.db.execute(id, CREATE);
    const rounds = async (count: number): Promise<void> => {
      for (let number = 0; number < count; number += 1) {
        for (const id of ids) await node.db.insert(id, "t", { v: "x" });
        await useLanes(node.db, ids[number % ids.length] as TenantId);
      }
    };
    await rounds(3);
    const before = await held();
    await rounds(10);
    const after = await held();
    // As many are open as before, but not the same ones.
    expect(after.descriptors).toBeLessThanOrEqual(before.descriptors + 4);
    expect(after.bytes - before.bytes).toBeLessThan(24 * MIB);
  });

  it("of databases that are opened and closed again and again", async () => {
    await using node = await TestNode.open(JOURNAL);
    const id = await node.createTenant();
    await node.db.execute(id, CREATE);
    const rounds = async (count: number): Promise<void> => {
      for (let number = 0; number < count; number += 1) {
        await node.db.insert(id, "t", { v: "x" });
        await node.db.query(id, "SELECT count(*) FROM t");
        if (number % 10 === 0) await useLanes(node.db, id);
        await node.reopen();
      }
    };
    await rounds(5);
    const before = await held();
    await rounds(25);
    const after = await held();
    expect(after.descriptors).toBeLessThanOrEqual(before.descriptors);
    expect(after.bytes - before.bytes).toBeLessThan(24 * MIB);
  });

  it("of the heap that each erasure makes grow in order to overwrite it", async () => {
    await using node = await TestNode.open(JOURNAL);
    const round = async (): Promise<void> => {
      const id = await node.createTenant();
      await node.db.execute(id, CREATE);
      scrubFreedMemory();
    };
    for (let count = 0; count < 3; count += 1) await round();
    const before = writableBytes();
    for (let count = 0; count < 12; count += 1) await round();
    // It was 200 MiB and more, and as much again with the next dozen; heaps of threads come and go by tens of them.
    expect(writableBytes() - before).toBeLessThan(96 * MIB);
  });
});
