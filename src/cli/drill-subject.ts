/** The process that an erasure drill is about: it lives through a tenant's life as it is told, and its memory is read. */

import { masterKeyFile } from "../keys/master-key-file.ts";
import { Kimberlite } from "../kimberlite.ts";
import { Duration } from "../tenant/duration.ts";
import { TenantId } from "../tenant/tenant-id.ts";
import { drillRandomness, drillText } from "./drill-secrets.ts";
import type { InstallationPaths } from "./installation.ts";

export const SUBJECT: TenantId = TenantId(1);
const BYSTANDER: TenantId = TenantId(2);
const DRILL_ROWS = 200;

/** What the process is told; it answers each with a `DrillAnswer`. */
export type DrillOrder =
  | { readonly do: "live"; readonly paths: InstallationPaths; readonly seed: string }
  | { readonly do: "erase" }
  | { readonly do: "look" }
  | { readonly do: "end" };

export interface DrillAnswer {
  readonly error?: string;
  readonly keys?: { readonly from: number; readonly to: number };
  readonly certificate?: string;
  readonly verifierKey?: string;
  /** Code of the refusal of each way to look. */
  readonly refusals?: readonly string[];
}

let db: Kimberlite | undefined;

async function obey(order: DrillOrder): Promise<DrillAnswer> {
  switch (order.do) {
    case "live":
      return live(order);
    case "erase":
      return erase(open());
    case "look":
      return { refusals: await look(open()) };
    case "end":
      await db?.close();
      return {};
  }
}

function open(): Kimberlite {
  if (db === undefined) throw new Error("the drill has not begun");
  return db;
}

/** A tenant that has used everything that could leave something behind. */
async function live({ paths, seed }: Extract<DrillOrder, { do: "live" }>): Promise<DrillAnswer> {
  const randomness = drillRandomness(seed);
  db = await Kimberlite.open({ dataDir: paths.data, masterKey: masterKeyFile(paths.masterKey), randomness });
  await db.createTenant({ id: BYSTANDER, name: "bystander" });
  await db.execute(BYSTANDER, "CREATE TABLE t (v)");
  await db.execute(BYSTANDER, "INSERT INTO t VALUES ('is not touched')");
  const from = randomness.keysDrawn;
  await db.createTenant({ id: SUBJECT, name: "subject", retention: Duration.days(1) });
  await write(db, seed);
  await db.rotateDek(SUBJECT);
  await db.rotateKek(SUBJECT);
  await read(db, seed);
  return { keys: { from, to: randomness.keysDrawn } };
}

async function write(on: Kimberlite, seed: string): Promise<void> {
  await on.execute(SUBJECT, "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, note BLOB)");
  await on.execute(SUBJECT, "CREATE INDEX by_name ON people (name)");
  await on.execute(SUBJECT, "CREATE VIRTUAL TABLE search USING fts5(body)");
  const visits = await on.createStream(SUBJECT, "visits");
  for (let index = 0; index < DRILL_ROWS; index += 1) {
    const text = drillText(seed, index);
    if (index % 4 === 0)
      await on.insert(SUBJECT, "people", { name: text, note: Buffer.alloc(text.length, text) });
    else if (index % 4 === 1) await on.append(SUBJECT, visits, [{ text }], { idempotencyKey: text });
    else if (index % 4 === 2)
      await on.execute(SUBJECT, `INSERT INTO search VALUES ('${text}')`, [], { actor: text });
    else await hold(on, text);
  }
}

/** A transaction in a lane, with a value that is updated away, and a larger one. */
async function hold(on: Kimberlite, text: string): Promise<void> {
  await on.transaction(SUBJECT, async (transaction) => {
    await transaction.execute("INSERT INTO people (name, note) VALUES (?, ?)", [text, text.repeat(500)]);
    await transaction.execute("UPDATE people SET name = 'other' WHERE name = ?", [text]);
  });
}

async function read(on: Kimberlite, seed: string): Promise<void> {
  await on.query(SUBJECT, "SELECT * FROM people ORDER BY note, name");
  await on.query(SUBJECT, "SELECT * FROM people WHERE name = ?", [drillText(seed, 0)]);
  await on.query(
    SUBJECT,
    "SELECT count(*) FROM people a, people b, people c WHERE a.note < b.note || c.name",
  );
  await on.query(SUBJECT, "SELECT * FROM people", [], { at: 40 });
  for (const stream of await on.streams(SUBJECT)) await Array.fromAsync(on.read(SUBJECT, stream.id));
  await on.rebuildProjection(SUBJECT);
  await on.query(SUBJECT, "SELECT group_concat(name) FROM people");
}

async function erase(on: Kimberlite): Promise<DrillAnswer> {
  const { note } = await on.eraseTenant(SUBJECT, {
    reason: "a drill",
    actor: "drill",
    overrideRetention: true,
  });
  return { certificate: note, verifierKey: on.verifierKey() };
}

/** Every way in which rows were read before. */
async function look(on: Kimberlite): Promise<string[]> {
  const ways = [
    () => on.query(SUBJECT, "SELECT * FROM people"),
    () => on.query(SUBJECT, "SELECT * FROM people", [], { at: 40 }),
    () => on.streams(SUBJECT),
    () => Array.fromAsync(on.audit(SUBJECT)),
    () => on.rebuildProjection(SUBJECT),
    () => on.resumeTenant(SUBJECT),
  ];
  const refusals: string[] = [];
  for (const way of ways) {
    const refusal = await way().then(
      () => "answered",
      (error: unknown) => String((error as { code?: unknown }).code),
    );
    refusals.push(refusal);
  }
  const rows = await on.query(BYSTANDER, "SELECT v FROM t");
  return [...refusals, rows.length === 1 ? "bystander is served" : "bystander is not served"];
}

if (process.send !== undefined && process.argv[2] === "drill-subject") {
  process.on("message", (order: DrillOrder) => {
    void obey(order)
      .catch((error: unknown) => ({
        error: error instanceof Error ? (error.stack ?? error.message) : String(error),
      }))
      .then((answer) => {
        process.send?.(answer);
        if (order.do === "end") process.disconnect();
      });
  });
}
