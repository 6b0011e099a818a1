/** Marks put into a database by every path that a value can take, each mark unlike any other text there is. */
import { Duration, type Kimberlite, TenantId } from "../../src/index.ts";
import { type Secret, textSecret } from "./scanner.ts";

export const A: TenantId = TenantId(1);

/** One mark a path; long enough that chance never makes it. */
const PATHS = [
  "tenant-name",
  "table",
  "column",
  "index",
  "view",
  "trigger",
  "check",
  "default",
  "row",
  "text-long",
  "blob",
  "literal",
  "parameter-name",
  "updated-away",
  "deleted",
  "dropped-table",
  "generated",
  "stream",
  "event",
  "event-field",
  "event-bytes",
  "idempotency",
  "actor",
  "correlation",
  "fts-document",
  "fts-query",
  "failed-statement",
  "failed-value",
  "held",
  "rolled-back",
  "big",
  "sorted",
  "time-travel",
  "slow",
  "alias",
  "before-rotation",
] as const;

export type MarkedPath = (typeof PATHS)[number];

const marks = new Map<MarkedPath, string>(
  PATHS.map((path, index) => [
    path,
    `Zq${(index * 7919 + 104_729).toString(36)}Mark${path.replaceAll("-", "")}Xv9`,
  ]),
);

export function mark(path: MarkedPath): string {
  return marks.get(path) as string;
}

export const MARK_SECRETS: readonly Secret[] = [...marks.values()].map(textSecret);

/** Uses every path; leaves the database open, with a snapshot of time travel on the disk. */
export async function plant(db: Kimberlite): Promise<void> {
  await db.createTenant({ id: A, name: mark("tenant-name"), retention: Duration.days(1) });
  await plantTables(db);
  await plantRows(db);
  await plantEvents(db);
  await plantFailures(db);
  await plantLargeSorts(db);
  await db.rotateDek(A);
  await db.insert(A, "plain", { v: mark("row"), w: mark("before-rotation") });
  await db.query(A, "SELECT * FROM plain WHERE v = ?", [mark("time-travel")], { at: 12 });
}

async function plantTables(db: Kimberlite): Promise<void> {
  const statements = [
    "CREATE TABLE plain (id INTEGER PRIMARY KEY, v, w TEXT)",
    `CREATE TABLE "${mark("table")}" ("${mark("column")}" TEXT DEFAULT '${mark("default")}', CHECK ("${mark("column")}" <> '${mark("check")}'))`,
    `CREATE INDEX "${mark("index")}" ON plain (v)`,
    `CREATE VIEW "${mark("view")}" AS SELECT 1 AS "${mark("alias")}"`,
    `CREATE TRIGGER "${mark("trigger")}" AFTER DELETE ON plain BEGIN SELECT '${mark("trigger")}'; END`,
    `CREATE TABLE gone (v DEFAULT '${mark("dropped-table")}')`,
    "INSERT INTO gone DEFAULT VALUES",
    "DROP TABLE gone",
    "CREATE TABLE made (a, b GENERATED ALWAYS AS (a || a) STORED)",
    "CREATE VIRTUAL TABLE notes USING fts5(body)",
  ];
  for (const sql of statements) await db.execute(A, sql);
}

async function plantRows(db: Kimberlite): Promise<void> {
  await db.insert(A, "plain", { v: mark("row"), w: mark("text-long").repeat(2_000) });
  await db.insert(A, "plain", { v: Buffer.from(mark("blob")), w: "x" });
  await db.execute(A, `INSERT INTO plain (v) VALUES ('${mark("literal")}')`);
  await db.execute(A, `INSERT INTO plain (v) VALUES (:${mark("parameter-name")})`, {
    [mark("parameter-name")]: mark("row"),
  });
  await db.insert(A, "plain", { v: mark("updated-away") });
  await db.execute(A, "UPDATE plain SET v = 'nothing' WHERE v = ?", [mark("updated-away")]);
  await db.insert(A, "plain", { v: mark("deleted"), w: mark("deleted").repeat(500) });
  await db.execute(A, "DELETE FROM plain WHERE v = ?", [mark("deleted")], {
    actor: mark("actor"),
    correlationId: mark("correlation"),
  });
  await db.execute(A, "INSERT INTO made (a) VALUES (?)", [mark("generated")]);
  await db.insert(A, "notes", { body: `${mark("fts-document")} and other words` });
  await db.query(A, "SELECT * FROM notes WHERE notes MATCH ?", [mark("fts-query")]);
}

async function plantEvents(db: Kimberlite): Promise<void> {
  const stream = await db.createStream(A, mark("stream"));
  const events = [mark("event"), { [mark("event-field")]: 1 }, Buffer.from(mark("event-bytes"))];
  await db.append(A, stream, events, { idempotencyKey: mark("idempotency"), actor: mark("actor") });
  for await (const item of db.read(A, stream)) if (item.offset > 5n) break;
}

async function plantFailures(db: Kimberlite): Promise<void> {
  const nothing = (): undefined => undefined;
  await db.execute(A, `SELEC '${mark("failed-statement")}'`).catch(nothing);
  await db.execute(A, `SELECT "${mark("failed-statement")}" FROM nowhere`).catch(nothing);
  await db
    .insert(A, "plain", [
      { id: 1, v: mark("failed-value") },
      { id: 1, v: mark("failed-value") },
    ])
    .catch(nothing);
  await db.transaction(
    A,
    async (held) => void (await held.execute("INSERT INTO plain (v) VALUES (?)", [mark("held")])),
  );
  await db
    .transaction(A, async (held) => {
      await held.execute("INSERT INTO plain (v, w) VALUES (?, ?)", [
        mark("rolled-back"),
        mark("rolled-back").repeat(5_000),
      ]);
      throw new Error("changed its mind");
    })
    .catch(nothing);
}

/** More than any cache holds: what SQLite would write to temporary files, and spill into its write-ahead log. */
async function plantLargeSorts(db: Kimberlite): Promise<void> {
  const rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)";
  await db.execute(
    A,
    `INSERT INTO plain (v, w) ${rows} SELECT i, '${mark("big")}' || i || hex(randomblob(100)) FROM n`,
  );
  await db.query(
    A,
    `SELECT count(*) FROM (SELECT w || '${mark("sorted")}' AS s FROM plain ORDER BY s DESC LIMIT 19000)`,
  );
  await db.query(A, `SELECT count(DISTINCT w || '${mark("slow")}') FROM plain`);
  await db.execute(A, "CREATE INDEX by_w ON plain (w)");
  await db.execute(A, "DELETE FROM plain WHERE v > 10000");
}
