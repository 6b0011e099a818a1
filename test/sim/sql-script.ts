/**
 * Random SQL scripts: schemas with everything that makes capture hard, and statements that meet in few tables, few
 * columns and few values, so that they collide.
 *
 * All tables share the column names a, b and c. A statement may fail, for its table was dropped or its value is taken:
 * failing alike is part of what is compared.
 */
import fc from "fast-check";

/** What one caller sends. */
export type Call =
  | { readonly kind: "single"; readonly sql: string }
  | { readonly kind: "list"; readonly statements: readonly string[] }
  /** Each statement's failure is caught; then the callback commits, or throws. */
  | { readonly kind: "callback"; readonly statements: readonly string[]; readonly abandon: boolean };

/** Calls that are made at once, and so share a batch. */
export type Step = readonly Call[];
export type Script = readonly Step[];

export interface ScriptOptions {
  /** Also statements whose outcome is chance: random(), the time of day. */
  readonly chance: boolean;
  readonly maxSteps: number;
}

type Text = fc.Arbitrary<string>;

const TABLES = ["t1", "t2", "t3", "t4"];
const table = fc.constantFrom(...TABLES);
const column = fc.constantFrom("a", "a", "b", "b", "c");
const VALUES = [
  ..."NULL 0 1 2 3 4 -1 1.0 1.5 -0.0 9e999 'a' 'A' 'b' '1' '' x'00' x'61'".split(" "),
  "'a '",
  "'a' || char(0) || 'b'",
  "CAST(x'c3ff' AS TEXT)",
];
const small = fc.constantFrom("1", "2", "3", "4", "5");
const value = fc.oneof({ arbitrary: small, weight: 3 }, { arbitrary: fc.constantFrom(...VALUES), weight: 2 });
/** Past the largest rowid SQLite gives rowids by chance. */
const chanceValue = fc.constantFrom(
  "9223372036854775807",
  "random()",
  "randomblob(8)",
  "datetime('now')",
  "abs(random()) % 5",
  "CURRENT_TIMESTAMP",
  "strftime('%f', 'now')",
);
const orClause = fc.constantFrom(
  "",
  "",
  "",
  "OR REPLACE ",
  "OR IGNORE ",
  "OR FAIL ",
  "OR ROLLBACK ",
  "OR ABORT ",
);
const action = fc.constantFrom("CASCADE", "SET NULL", "SET DEFAULT", "RESTRICT", "NO ACTION");

/** Joins texts and arbitraries of texts into one. */
function text(parts: TemplateStringsArray, ...holes: (Text | string)[]): Text {
  const arbitraries = holes.map((hole) => (typeof hole === "string" ? fc.constant(hole) : hole));
  return fc.tuple(...arbitraries).map((filled) => String.raw({ raw: parts }, ...filled));
}

function createTable(name: Text): Text {
  const reference = text`REFERENCES ${table}(a) ON DELETE ${action} ON UPDATE ${action}${fc.constantFrom("", " DEFERRABLE INITIALLY DEFERRED")}`;
  return fc.oneof(
    text`CREATE TABLE ${name}(a, b, c)`,
    text`CREATE TABLE ${name}(a INTEGER PRIMARY KEY, b ANY UNIQUE, c TEXT COLLATE NOCASE) STRICT`,
    text`CREATE TABLE ${name}(a INTEGER PRIMARY KEY AUTOINCREMENT, b UNIQUE, c DEFAULT 'd')`,
    text`CREATE TABLE ${name}(a INTEGER PRIMARY KEY AUTOINCREMENT, b UNIQUE ON CONFLICT REPLACE, c)`,
    text`CREATE TABLE ${name}(a TEXT COLLATE NOCASE PRIMARY KEY, b, c) WITHOUT ROWID`,
    text`CREATE TABLE ${name}(a COLLATE RTRIM, b, c UNIQUE, PRIMARY KEY(b, a DESC)) WITHOUT ROWID`,
    text`CREATE TABLE ${name}(a INTEGER PRIMARY KEY, b ${reference}, c CHECK(typeof(c) <> 'blob'))`,
    text`CREATE TABLE ${name}(a INTEGER PRIMARY KEY, b DEFAULT 1 ${reference}, c ${reference})`,
    text`CREATE TABLE ${name}(a PRIMARY KEY, b ${reference}, c) WITHOUT ROWID`,
    text`CREATE TABLE ${name}(a INTEGER PRIMARY KEY, b REFERENCES ${name}(a) ON DELETE CASCADE ON UPDATE CASCADE, c)`,
    text`CREATE TABLE ${name}(a, b, c, g AS (a || '-' || b), h AS (coalesce(b, 0) + 1) STORED, UNIQUE(h, a))`,
    text`CREATE TABLE ${name}(a INT PRIMARY KEY, b NUMERIC, c REAL NOT NULL ON CONFLICT IGNORE DEFAULT 1.5)`,
    text`CREATE TABLE ${name}(a, b, c, PRIMARY KEY(a, b) ON CONFLICT ROLLBACK)`,
    text`CREATE TABLE ${name}(rowid, _rowid_ DEFAULT 7, a INTEGER PRIMARY KEY DESC, b UNIQUE, c)`,
    text`CREATE TABLE ${name}(oid, rowid, _rowid_, a INTEGER PRIMARY KEY, b, c)`,
    text`CREATE TABLE ${name} AS SELECT a, b, c FROM ${table}`,
    text`CREATE VIRTUAL TABLE ${name} USING fts5(a, b, c)`,
  );
}

function triggerBody(name: string): Text {
  return fc.oneof(
    text`INSERT ${orClause}INTO ${table}(b, c) VALUES (${value}, 'trigger');`,
    text`UPDATE ${orClause}${table} SET ${column} = ${value} WHERE ${column} = ${value};`,
    text`DELETE FROM ${table} WHERE ${column} = ${value};`,
    text`UPDATE ${name} SET c = 'again' WHERE b = ${value};`,
    text`INSERT INTO ${name}(b, c) SELECT ${value}, 'deeper' WHERE (SELECT count(*) FROM ${name}) < 6;`,
    text`SELECT RAISE(${fc.constantFrom("IGNORE", "ABORT, 'aborted'", "FAIL, 'failed'", "ROLLBACK, 'rolled back'")});`,
  );
}

/** One trigger of an event, by its name: the order of several is SQLite's own affair. */
const createTrigger: Text = table.chain((name) => {
  const insert = text`insert|INSERT ON ${name} WHEN NEW.b IS ${value}`;
  const update = text`update|UPDATE ${fc.constantFrom("", "OF b ")}ON ${name} WHEN NEW.b > OLD.b`;
  const remove = text`delete|DELETE ON ${name} WHEN OLD.b IS NOT ${value}`;
  return fc
    .tuple(fc.constantFrom("before", "after", "after"), fc.oneof(insert, update, remove), triggerBody(name))
    .map(([when, event, body]) => {
      const [kind, rest] = event.split("|") as [string, string];
      return `CREATE TRIGGER ${name}_${when}_${kind} ${when} ${rest} BEGIN ${body} END`;
    });
});

const insteadOf: Text = fc.oneof(
  text`CREATE TRIGGER r4 INSTEAD OF INSERT ON v1 BEGIN INSERT INTO ${table}(b, c) VALUES (NEW.b, NEW.c); END`,
  text`CREATE TRIGGER r5 INSTEAD OF UPDATE ON v1 BEGIN UPDATE ${table} SET c = NEW.c WHERE b = OLD.b; END`,
  text`CREATE TRIGGER r6 INSTEAD OF DELETE ON v1 BEGIN DELETE FROM ${table} WHERE b = OLD.b; END`,
);

const schemaChange: Text = fc.oneof(
  createTable(table),
  createTrigger,
  createTrigger,
  insteadOf,
  text`CREATE VIEW v1 AS SELECT a, b, c FROM ${table}`,
  text`DROP VIEW v1`,
  text`DROP TABLE ${table}`,
  text`DROP TRIGGER IF EXISTS ${table}_${fc.constantFrom("before", "after")}_${fc.constantFrom("insert", "update", "delete")}`,
  text`CREATE UNIQUE INDEX IF NOT EXISTS i1 ON ${table}(${column})`,
  text`CREATE UNIQUE INDEX i2 ON ${table}(${column}) WHERE b > 1`,
  text`CREATE INDEX i3 ON ${table}(b || c, a DESC)`,
  text`DROP INDEX IF EXISTS ${fc.constantFrom("i1", "i2", "i3")}`,
  text`ALTER TABLE ${table} RENAME TO ${table}`,
  text`ALTER TABLE ${table} RENAME COLUMN ${fc.constantFrom("b TO z", "z TO b", "c TO b", "a TO key")}`,
  text`ALTER TABLE ${table} ADD COLUMN d DEFAULT ${fc.constantFrom("1", "'x'", "x'00'", "NULL", "-1.5")}`,
  text`ALTER TABLE ${table} ADD COLUMN e AS (b)`,
  text`ALTER TABLE ${table} ADD COLUMN f REFERENCES ${table}(a)`,
  text`ALTER TABLE ${table} ADD COLUMN n INTEGER NOT NULL DEFAULT ${small} CHECK (n < 4)`,
  text`ALTER TABLE ${table} DROP COLUMN ${fc.constantFrom("c", "d", "e", "n", "z")}`,
  text`ALTER TABLE ${table} ALTER COLUMN ${column} ${fc.constantFrom("SET NOT NULL", "DROP NOT NULL")}`,
  text`ALTER TABLE ${table} ADD CONSTRAINT k1 CHECK (b IS NOT ${value})`,
  text`ALTER TABLE ${table} DROP CONSTRAINT k1`,
  text`PRAGMA user_version = ${small}`,
  text`ANALYZE`,
  text`REINDEX`,
);

function condition(operand: Text): Text {
  return fc.oneof(
    fc.constant(""),
    text` WHERE ${column} = ${operand}`,
    text` WHERE ${column} ${fc.constantFrom("<", ">", "IS", "IS NOT")} ${operand}`,
    text` WHERE rowid = ${small}`,
    text` WHERE a IN (SELECT b FROM ${table})`,
  );
}

function upsert(operand: Text): Text {
  return fc.oneof(
    fc.constant(" ON CONFLICT DO NOTHING"),
    text` ON CONFLICT (a) DO UPDATE SET c = excluded.c ON CONFLICT (b) DO UPDATE SET c = ${operand}, b = ${operand}`,
    text` ON CONFLICT (b) DO NOTHING ON CONFLICT DO UPDATE SET b = ${operand} WHERE excluded.c IS NOT c`,
  );
}

function rowChange(operand: Text): Text {
  const where = condition(operand);
  const returning = fc.constantFrom("", "", " RETURNING *", " RETURNING a, typeof(b), c");
  const rows = fc.array(text`(${operand}, ${operand}, ${operand})`, { minLength: 1, maxLength: 3 });
  const values = rows.map((list) => `VALUES ${list.join(", ")}`);
  return fc.oneof(
    text`INSERT ${orClause}INTO ${table}(a, b, c) ${values}${returning}`,
    text`INSERT ${orClause}INTO ${table}(b, c) VALUES (${operand}, ${operand})`,
    text`INSERT INTO ${table}(a, b, c) ${values}${upsert(operand)}${returning}`,
    text`REPLACE INTO ${table}(a, b, c) ${values}`,
    text`INSERT ${orClause}INTO ${table}(b, c) SELECT b, a FROM ${table}${where} ORDER BY b, c LIMIT 4`,
    text`INSERT ${orClause}INTO ${table} DEFAULT VALUES`,
    text`UPDATE ${orClause}${table} SET ${column} = ${operand}${where}${returning}`,
    text`UPDATE ${orClause}${table} SET ${column} = ${column} + 1${where}`,
    text`UPDATE ${orClause}${table} SET rowid = rowid + ${small}${where}`,
    text`UPDATE ${table} SET b = CASE b WHEN 1 THEN 2 WHEN 2 THEN 1 ELSE b END`,
    text`UPDATE ${table} SET a = b, b = a${where}`,
    text`UPDATE ${table} AS x SET c = y.b FROM (SELECT a, min(b) AS b FROM ${table} GROUP BY a) AS y WHERE x.a = y.a`,
    text`DELETE FROM ${table}${where}${returning}`,
    text`WITH w(n) AS (VALUES (1), (2), (3)) INSERT ${orClause}INTO ${table}(b, c) SELECT n, n FROM w`,
    text`INSERT INTO v1(b, c) VALUES (${operand}, ${operand})`,
    text`UPDATE v1 SET c = ${operand}${where}`,
    text`DELETE FROM v1${where}`,
    text`UPDATE sqlite_sequence SET seq = seq + ${small} WHERE name = ${table.map((name) => `'${name}'`)}`,
    text`DELETE FROM sqlite_sequence`,
    text`PRAGMA defer_foreign_keys = ON`,
    text`SELECT count(*), sum(b) FROM ${table}`,
  );
}

const chanceSchemaChange: Text = text`CREATE TABLE ${table} AS SELECT random() AS a, value AS b, randomblob(4) AS c FROM json_each('[1,2,3]')`;

function calls(options: ScriptOptions): fc.Arbitrary<Call> {
  const operand = options.chance ? fc.oneof(value, chanceValue) : value;
  const changes = rowChange(operand);
  const schema = options.chance
    ? fc.oneof({ arbitrary: schemaChange, weight: 8 }, chanceSchemaChange)
    : schemaChange;
  const statement = fc.oneof({ arbitrary: changes, weight: 4 }, { arbitrary: schema, weight: 1 });
  const statements = fc.array(statement, { minLength: 2, maxLength: 5 });
  return fc.oneof(
    { arbitrary: statement.map((sql): Call => ({ kind: "single", sql })), weight: 6 },
    { arbitrary: statements.map((list): Call => ({ kind: "list", statements: list })), weight: 3 },
    {
      arbitrary: fc.record({
        kind: fc.constant("callback" as const),
        statements,
        abandon: fc.constantFrom(false, false, false, true),
      }),
      weight: 1,
    },
  );
}

/** A schema, then steps of one call or several at once. */
export function scripts(options: ScriptOptions): fc.Arbitrary<Script> {
  const beginning = fc.tuple(
    ...TABLES.slice(0, 3).map((name) => createTable(fc.constant(name))),
    createTrigger,
    createTrigger,
  );
  const call = calls(options);
  const step: fc.Arbitrary<Step> = fc.oneof(
    { arbitrary: call.map((only) => [only]), weight: 2 },
    { arbitrary: fc.array(call, { minLength: 2, maxLength: 6 }), weight: 1 },
  );
  return fc
    .tuple(beginning, fc.array(step, { minLength: 4, maxLength: options.maxSteps, size: "max" }))
    .map(([schema, steps]) => printable([...schema.map((sql): Step => [{ kind: "single", sql }]), ...steps]));
}

/** A failing script is printed as one that can be read. */
function printable(script: Script): Script {
  const print = (): string =>
    `\n${script.map((step, at) => `step ${at}:\n${step.map(printCall).join("")}`).join("")}`;
  return Object.defineProperty([...script], fc.toStringMethod, { value: print });
}

function printCall(call: Call): string {
  if (call.kind === "single") return `  ${call.sql};\n`;
  const ending = call.kind === "callback" && call.abandon ? ", abandoned" : "";
  return `  ${call.kind}${ending}:\n${call.statements.map((sql) => `    ${sql};\n`).join("")}`;
}
