/** What waits to be written is bounded in bytes, for a tenant and for a node, and no tenant is kept out by others. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { TestNode } from "../../test/sim/test-node.ts";
import type { TenantId } from "../index.ts";
import { PendingBytes, requestBytes } from "./pending-bytes.ts";

const MIB = 1024 * 1024;

describe("bytes that wait", () => {
  it("are a tenant's up to its share, and the node's up to its own, past which little is admitted all the same", () => {
    const pending = new PendingBytes({ tenantBytes: 10, nodeBytes: 15, smallBytes: 2 });
    expect(pending.admit(100, 0)).toBe(true);
    expect(pending.admit(1, 100)).toBe(false);
    pending.release(100);
    expect([pending.admit(8, 0), pending.admit(2, 8), pending.admit(1, 10)]).toEqual([true, true, false]);
    // Another tenant: 15 are the node's.
    expect([pending.admit(3, 0), pending.admit(2, 3), pending.admit(1, 5)]).toEqual([true, true, false]);
    expect([pending.admit(1, 0), pending.admit(1, 1), pending.admit(1, 2)]).toEqual([true, true, false]);
    expect(pending.all).toBe(17);
  });

  it("count text and values, in either form", () => {
    expect(requestBytes({ sql: "12345" })).toBe(5);
    expect(requestBytes({ sql: "1", params: ["abc", new Uint8Array(10), 1, null] })).toBe(1 + 3 + 10 + 8 + 8);
    expect(requestBytes({ sql: "1", params: { a: "abc", b: 1n } })).toBe(12);
    expect(requestBytes({ sql: "1", exact: ["abcd"] })).toBe(5);
  });
});

describe("a tenant with much waiting", () => {
  let node: TestNode;
  let a: TenantId;
  let b: TenantId;

  beforeEach(async () => {
    node = await TestNode.open();
    [a, b] = [await node.createTenant(), await node.createTenant()];
    for (const id of [a, b]) await node.db.execute(id, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
  });

  afterEach(() => node[Symbol.asyncDispose]());

  it("is refused more, holds nobody else up, and is admitted again once that is written", async () => {
    const stream = await node.db.createStream(a, "events");
    const began = Promise.withResolvers<void>();
    const end = Promise.withResolvers<void>();
    const held = node.db.transaction(
      a,
      async (tx) => {
        await tx.query("SELECT 1");
        began.resolve();
        await end.promise;
      },
      { timeLimitMs: 60_000 },
    );
    await began.promise;
    const v = "x".repeat(8 * MIB);
    const calls: Promise<unknown>[] = [];
    for (let count = 0; count < 5; count += 1) calls.push(node.db.insert(a, "t", { v }));
    for (let count = 0; count < 5; count += 1) calls.push(node.db.append(a, stream, [v]));
    const outcomes = Promise.allSettled(calls);
    // The refusals come before anything is written.
    await node.db.insert(b, "t", { v: "another tenant's" });
    end.resolve();
    await held;
    const refused = (await outcomes).filter(({ status }) => status === "rejected");
    for (const { reason } of refused as PromiseRejectedResult[])
      expect(reason).toMatchObject({ code: "overloaded", retryAfterMs: 100 });
    // 7 of a little more than 8 MiB fit into 64 MiB.
    expect(refused).toHaveLength(10 - 7);
    expect(await node.db.query(a, "SELECT count(*) AS n FROM t")).toEqual([{ n: 5 }]);
    await node.inspect(a, ({ pipeline }) => expect(pipeline.pendingBytes).toBe(0));
    await node.db.insert(a, "t", { v });
    await expect(node.db.insert(a, "t", { id: 1, v })).rejects.toMatchObject({
      code: "constraint_violation",
    });
    await node.inspect(a, ({ pipeline }) => expect(pipeline.pendingBytes).toBe(0));
  });
});
