/**
 * Use out of order: after the close, while closing, twice at once, halfway and never finished. Each ends in bounded
 * time with an error of the family, and nothing that was acknowledged is lost.
 */
import { describe, expect, it } from "vitest";
import {
  type Kimberlite,
  KimberliteError,
  type StreamId,
  type StreamItem,
  TenantId,
} from "../../src/index.ts";
import { Scratch } from "../isolation/scratch.ts";
import { expectCode } from "../tamper/expectations.ts";
import { CALLS, make } from "./calls.ts";

const A = TenantId(1);

async function filled(
  scratch: Scratch,
  events = 5,
): Promise<{ readonly db: Kimberlite; readonly stream: StreamId }> {
  const db = await scratch.open();
  await db.createTenant({ id: A, name: "A" });
  await db.execute(A, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
  const stream = await db.createStream(A, "events");
  for (let index = 0; index < events; index += 1) await db.append(A, stream, [{ index }]);
  return { db, stream };
}

async function expectWhole(scratch: Scratch, rows: number): Promise<void> {
  await scratch.with(async (db) => {
    expect((await db.query(A, "SELECT count(*) n FROM t"))[0]?.["n"]).toBe(rows);
    expect((await db.verifyTenant(A)).ok).toBe(true);
  });
}

function within<T>(ms: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${ms} ms`)), ms);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

describe("a database that is closed", () => {
  it("refuses every call with closed, and closing again is nothing", async () => {
    await using scratch = new Scratch();
    const { db, stream } = await filled(scratch);
    await db.close();
    await db.close();
    await db[Symbol.asyncDispose]();
    for (const call of CALLS) {
      const args = call.args({ db, tenant: A, stream, fresh: 5_000 });
      await expectCode("closed", () => make(db, call.method, args));
    }
    await expectWhole(scratch, 0);
  });

  it("while it closes finishes what was accepted, and refuses the rest", async () => {
    await using scratch = new Scratch();
    const { db } = await filled(scratch);
    const work = Array.from({ length: 200 }, (_, id) => db.insert(A, "t", { id, v: "in flight" }));
    const closing = db.close();
    const late = db.insert(A, "t", { id: 1_000, v: "late" }).catch((error: unknown) => error);
    const outcomes = await within(10_000, Promise.allSettled(work));
    await closing;
    expect(await late).toMatchObject({ code: "closed" });
    for (const outcome of outcomes) {
      if (outcome.status === "rejected") expect(outcome.reason).toMatchObject({ code: "closed" });
    }
    await expectWhole(scratch, outcomes.filter(({ status }) => status === "fulfilled").length);
  });

  it("while it closes ends a transaction that is held open, wholly there or wholly absent", async () => {
    await using scratch = new Scratch();
    const { db } = await filled(scratch);
    let entered: () => void = () => undefined;
    const inside = new Promise<void>((resolve) => {
      entered = resolve;
    });
    const held = db.transaction(A, async (transaction) => {
      await transaction.execute("INSERT INTO t VALUES (1, 'one')");
      entered();
      await new Promise((resolve) => setTimeout(resolve, 200));
      await transaction.execute("INSERT INTO t VALUES (2, 'two')");
    });
    const outcome = held.then(() => "committed").catch((error: unknown) => error);
    await inside;
    await within(10_000, db.close());
    const ended = await within(1_000, outcome);
    if (ended !== "committed") expect(ended).toBeInstanceOf(KimberliteError);
    await expectWhole(scratch, ended === "committed" ? 2 : 0);
  });

  it("ends readers and subscribers in the middle, with closed", async () => {
    await using scratch = new Scratch();
    const { db, stream } = await filled(scratch);
    const reader = db.read(A, stream);
    const subscriber = db.subscribe(A, stream, { signal: new AbortController().signal });
    expect((await reader.next()).value).toMatchObject({ offset: 0n });
    for (let offset = 0n; offset < 5n; offset += 1n)
      expect((await subscriber.next()).value).toMatchObject({ offset });
    const waiting = subscriber.next().catch((error: unknown) => error);
    await within(10_000, db.close());
    for (const next of [await within(1_000, waiting), await reader.next().catch((error: unknown) => error)]) {
      if (next instanceof Error) expect(next, String(next.stack)).toMatchObject({ code: "closed" });
      else expect(next).toMatchObject({ done: true });
    }
    await expectWhole(scratch, 0);
  });
});

describe("iterations that are not finished", () => {
  it("are given up after one item, and hold nothing", async () => {
    await using scratch = new Scratch();
    const { db, stream } = await filled(scratch);
    await db.setQuota(A, { maxConcurrentOps: 3 });
    for (let round = 0; round < 20; round += 1) {
      for await (const item of db.read(A, stream)) {
        expect(item.offset).toBe(0n);
        break;
      }
    }
    await db.insert(A, "t", { id: 1, v: 1 });
    await within(10_000, db.close());
  });

  it("are abandoned without a word, and do not keep the database from closing", async () => {
    await using scratch = new Scratch();
    const { db, stream } = await filled(scratch);
    for (let round = 0; round < 5; round += 1) {
      await db.read(A, stream).next();
      await db.subscribe(A, stream, { signal: new AbortController().signal }).next();
    }
    db.read(A, stream);
    await within(10_000, db.close());
    await expectWhole(scratch, 0);
  });

  it("end when their signal does: before, between and while waiting", async () => {
    await using scratch = new Scratch();
    const { db, stream } = await filled(scratch);
    const before = db.subscribe(A, stream, { signal: AbortSignal.abort() });
    expect((await before.next()).done).toBe(true);
    for (const items of [1, 5]) {
      const stop = new AbortController();
      const subscriber = db.subscribe(A, stream, { signal: stop.signal });
      for (let count = 0; count < items; count += 1) await subscriber.next();
      if (items === 1) stop.abort();
      else setTimeout(() => stop.abort(), 20);
      expect((await within(2_000, subscriber.next())).done).toBe(true);
    }
  });

  it("give a slow consumer every item, in order, while others write", async () => {
    await using scratch = new Scratch();
    const { db, stream } = await filled(scratch, 0);
    const stop = new AbortController();
    const seen: StreamItem[] = [];
    const consumer = (async () => {
      for await (const item of db.subscribe(A, stream, { signal: stop.signal })) {
        seen.push(item);
        if (seen.length % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
        if (seen.length === 500) stop.abort();
      }
    })();
    for (let index = 0; index < 500; index += 10) {
      await Promise.all(
        Array.from({ length: 10 }, (_, part) => db.append(A, stream, [{ index: index + part }])),
      );
    }
    await within(20_000, consumer);
    expect(seen.map(({ offset }) => offset)).toEqual(
      Array.from({ length: 500 }, (_, offset) => BigInt(offset)),
    );
  });

  it("end with a suspension that comes between two items", async () => {
    await using scratch = new Scratch();
    const { db, stream } = await filled(scratch);
    const reader = db.read(A, stream);
    const subscriber = db.subscribe(A, stream, { signal: new AbortController().signal });
    for (const items of [reader, subscriber]) await items.next();
    await db.suspendTenant(A);
    for (const items of [reader, subscriber]) await expectCode("tenant_suspended", () => items.next());
  });

  it("do not wait for ever on a tenant that was reopened meanwhile", async () => {
    await using scratch = new Scratch();
    const { db, stream } = await filled(scratch);
    const reader = db.read(A, stream);
    const subscriber = db.subscribe(A, stream, { from: 4, signal: new AbortController().signal });
    for (const items of [reader, subscriber]) await items.next();
    const waiting = subscriber.next().catch((error: unknown) => error);
    await within(10_000, db.rebuildProjection(A));
    expect(await within(2_000, waiting)).toMatchObject({ code: "overloaded" });
    await expectCode("overloaded", () => reader.next());
    expect((await db.read(A, stream, { from: 1 }).next()).value).toMatchObject({ offset: 1n });
  });
});

describe("the same thing twice at once", () => {
  it("creates a tenant once, and one that failed can be created again", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    const tries = Array.from({ length: 10 }, (_, index) => db.createTenant({ id: A, name: `try ${index}` }));
    const outcomes = await Promise.allSettled(tries);
    expect(outcomes.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    for (const outcome of outcomes) {
      if (outcome.status === "rejected") expect(outcome.reason).toMatchObject({ code: "tenant_exists" });
    }
    expect(await db.listTenants()).toHaveLength(1);
    await db.execute(A, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
  });

  it("creates a stream or a table of a name once", async () => {
    await using scratch = new Scratch();
    const { db } = await filled(scratch);
    const streams = await Promise.allSettled(Array.from({ length: 10 }, () => db.createStream(A, "same")));
    expect(streams.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    const tables = await Promise.allSettled(
      Array.from({ length: 10 }, () => db.execute(A, "CREATE TABLE one (a)")),
    );
    expect(tables.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    expect((await db.streams(A)).map(({ name }) => name).sort()).toEqual(["events", "one", "same", "t"]);
  });

  it("opens one directory once", async () => {
    await using scratch = new Scratch();
    const opened = await Promise.allSettled([scratch.open(), scratch.open(), scratch.open()]);
    expect(opened.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    for (const outcome of opened) {
      if (outcome.status === "rejected") expect(outcome.reason).toMatchObject({ code: "directory_locked" });
    }
  });
});
