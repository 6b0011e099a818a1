/**
 * The process that is killed: opens the data directory, says what it finds there, and then works until it dies,
 * reporting each operation on stdout before it begins and as soon as it is acknowledged.
 */
import { writeSync } from "node:fs";
import { createInterface } from "node:readline";
import { KimberliteError } from "../../src/errors.ts";
import { Kimberlite, masterKeyFile, type StreamId, TenantId } from "../../src/index.ts";
import type { TenantReport } from "./check.ts";
import { CALLERS, createdTenant, type Operation, operationAt, TENANTS } from "./operations.ts";
import { arm, type KillPlan } from "./plan.ts";

export interface VictimTask {
  readonly dir: string;
  readonly seed: number;
  readonly plan?: KillPlan | undefined;
  /** Closes and ends after saying what it finds. */
  readonly lookOnly?: boolean;
}

const SCHEMA = [
  "CREATE TABLE IF NOT EXISTS items (id INTEGER PRIMARY KEY AUTOINCREMENT, caller INTEGER, n INTEGER, body TEXT)",
  "CREATE TABLE IF NOT EXISTS ledger (caller INTEGER, n INTEGER, amount REAL)",
  "CREATE TABLE IF NOT EXISTS counters (caller INTEGER PRIMARY KEY, raised INTEGER NOT NULL, last INTEGER NOT NULL)",
  "CREATE TABLE IF NOT EXISTS totals (id INTEGER PRIMARY KEY, items INTEGER NOT NULL) STRICT",
  "CREATE INDEX IF NOT EXISTS items_by_caller ON items (caller, n)",
  "CREATE TRIGGER IF NOT EXISTS count_items AFTER INSERT ON items BEGIN UPDATE totals SET items = items + 1; END",
  "INSERT OR IGNORE INTO totals VALUES (1, 0)",
  ...Array.from(
    { length: CALLERS },
    (_, caller) => `INSERT OR IGNORE INTO counters VALUES (${caller}, 0, -1)`,
  ),
];
const RAISE = "UPDATE counters SET raised = raised + 1, last = ? WHERE caller = ?";
const ITEM = "INSERT INTO items (caller, n, body) VALUES (?, ?, ?)";
const LEDGER = "INSERT INTO ledger VALUES (?, ?, ?)";

interface Caller {
  readonly db: Kimberlite;
  readonly seed: number;
  readonly tenant: number;
  readonly stream: StreamId;
  readonly caller: number;
}

/** The parent has it when this returns: nothing is buffered in this process, which may die next. */
function say(line: string): void {
  const bytes = Buffer.from(`${line}\n`);
  for (let written = 0; written < bytes.length; ) {
    try {
      written += writeSync(1, bytes, written);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
      // The parent is slow to read.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2);
    }
  }
}

async function prepare(db: Kimberlite, tenant: number): Promise<StreamId> {
  const id = TenantId(tenant);
  await ensureTenant(db, tenant);
  await db.transaction(id, SCHEMA);
  const known = (await db.streams(id)).find((stream) => stream.name === "events");
  return known?.id ?? (await db.createStream(id, "events"));
}

async function ensureTenant(db: Kimberlite, tenant: number): Promise<void> {
  try {
    await db.createTenant({ id: TenantId(tenant), name: `tenant ${tenant}` });
  } catch (error) {
    if (!(error instanceof KimberliteError) || error.code !== "tenant_exists") throw error;
  }
}

async function report(db: Kimberlite, tenant: number, stream: StreamId): Promise<TenantReport> {
  const id = TenantId(tenant);
  const verified = await db.verifyTenant(id);
  const rows = async <T>(sql: string): Promise<T[]> =>
    (await db.query(id, sql)).map((row) => Object.values(row)) as T[];
  const events: TenantReport["events"][number][] = [];
  for await (const item of db.read(id, stream)) {
    if (item.kind !== "event") throw new Error("an event stream holds events");
    events.push([String(item.offset), ...(item.data as [number, number, number])]);
  }
  const tables = await rows<[string]>(
    "SELECT name FROM sqlite_master WHERE name GLOB 'made_*' ORDER BY name",
  );
  return {
    tenant,
    size: String(verified.size),
    verified: verified.ok,
    reason: verified.reason,
    items: await rows("SELECT caller, n, count(*) FROM items GROUP BY caller, n"),
    ledger: await rows("SELECT caller, n, count(*), sum(amount) FROM ledger GROUP BY caller, n"),
    counters: await rows("SELECT caller, raised, last FROM counters"),
    total: (await rows<[number]>("SELECT items FROM totals"))[0]?.[0] ?? -1,
    events,
    tables: tables.map(([name]) => name.split("_").slice(1).map(Number) as [number, number]),
  };
}

async function perform(by: Caller, n: number, operation: Operation): Promise<void> {
  const { db, caller } = by;
  const id = TenantId(by.tenant);
  switch (operation.kind) {
    case "insert":
      return void (await db.insert(id, "items", { caller, n, body: "x".repeat(operation.bytes) }));
    case "update":
      return void (await db.execute(id, RAISE, [n, caller]));
    case "transaction":
      return void (await db.transaction(
        id,
        pairsOf(by, n, operation).map(([sql, params]) => ({ sql, params })),
      ));
    case "held":
      return db.transaction(id, async (transaction) => {
        for (const [sql, params] of pairsOf(by, n, operation)) await transaction.execute(sql, params);
      });
    case "append": {
      const events = Array.from({ length: operation.events }, (_, index) => [caller, n, index]);
      return void (await db.append(id, by.stream, events, { idempotencyKey: `${caller}/${n}` }));
    }
    case "table":
      return void (await db.transaction(id, [
        `CREATE TABLE made_${caller}_${n} (id INTEGER PRIMARY KEY AUTOINCREMENT, x)`,
        `INSERT INTO made_${caller}_${n} (x) VALUES (1), ('two'), (3.5), (x'04'), (NULL)`,
        { sql: ITEM, params: [caller, n, "table"] },
      ]));
    case "rotate":
      return void (await db.rotateDek(id));
    case "tenant": {
      await ensureTenant(db, createdTenant(n));
      return void (await db.execute(TenantId(createdTenant(n)), "CREATE TABLE IF NOT EXISTS first (x)"));
    }
  }
}

function pairsOf(
  { caller }: Caller,
  n: number,
  operation: Extract<Operation, { items: number }>,
): [string, (number | string)[]][] {
  return [
    ...Array.from({ length: operation.items }, (_, index): [string, (number | string)[]] => [
      ITEM,
      [caller, n, `${index}`],
    ]),
    [LEDGER, [caller, n, operation.amount]],
    [LEDGER, [caller, n, -operation.amount]],
    [RAISE, [n, caller]],
  ];
}

async function work(by: Caller, start: number): Promise<never> {
  for (let n = start; ; n += 1) {
    say(`b ${by.tenant} ${by.caller} ${n}`);
    await perform(by, n, operationAt({ seed: by.seed, tenant: by.tenant, caller: by.caller, n }));
    say(`a ${by.tenant} ${by.caller} ${n}`);
  }
}

async function main(task: VictimTask): Promise<void> {
  const armed = arm(task.plan);
  const db = await Kimberlite.open({
    dataDir: `${task.dir}/data`,
    masterKey: masterKeyFile(`${task.dir}/master.key`),
    disk: armed.disk,
    logSegmentBytes: 48 * 1024,
    journalFileBytes: 64 * 1024,
  });
  const streams = new Map<number, StreamId>();
  const reports: TenantReport[] = [];
  for (const tenant of TENANTS) {
    const stream = await prepare(db, tenant);
    streams.set(tenant, stream);
    reports.push(await report(db, tenant, stream));
  }
  // Tenants that were being created when the process died: there whole, or not at all.
  for (const { id } of await db.listTenants()) {
    if (id >= createdTenant(0)) await db.execute(id, "CREATE TABLE IF NOT EXISTS first (x)");
  }
  say(`o ${JSON.stringify(reports)}`);
  if (task.lookOnly === true) return db.close();
  const lines = createInterface({ input: process.stdin });
  const starts = JSON.parse(await new Promise<string>((resolve) => lines.once("line", resolve))) as Record<
    number,
    number[]
  >;
  armed.start();
  await Promise.all(
    TENANTS.flatMap((tenant) =>
      Array.from({ length: CALLERS }, (_, caller) => {
        const stream = streams.get(tenant) as StreamId;
        return work({ db, seed: task.seed, tenant, stream, caller }, starts[tenant]?.[caller] ?? 0);
      }),
    ),
  );
}

function describeError(error: unknown): string {
  const { stack, cause } = error as Error;
  const known =
    error instanceof KimberliteError ? `${error.code} ${Object.values(error.detail).join(" ")} ` : "";
  return known + String(stack) + (cause instanceof Error ? ` | because: ${cause.stack}` : "");
}

main(JSON.parse(process.argv[2] as string) as VictimTask).catch((error: unknown) => {
  say(`f ${describeError(error).replaceAll("\n", " | ")}`);
  process.exit(3);
});
