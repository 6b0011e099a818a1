/** The command over a server: a real `kimberlite serve`, tokens of its own, and nothing of the directory but by it. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { commandOn, runCommand, scratchFolder, succeed } from "./command.ts";

const MAIN = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
const folder = scratchFolder();
const dir = join(folder, "db");
const kimberlite = commandOn(dir);
let server: ChildProcess;
/** What the server said on standard error. */
const log: string[] = [];
const env = { KIMBERLITE_URL: "", KIMBERLITE_TOKEN: "", HOME: folder };
const tokens = { admin: "", reader: "", operator: "" };
/** Commands that print the same over a server: as an operator, and as the tenant's admin. */
const SAME = [
  ["tenant", "list", "--json"],
  ["tenant", "list"],
  ["key", "verifier"],
  ["hold", "list", "--tenant", "1", "--json"],
  ["audit", "--limit", "3", "--json"],
  ["tenant", "quota", "1"],
] as const;
const AS_ADMIN = [
  ["audit", "--tenant", "1", "--limit", "3", "--from", "1", "--json"],
  ["grant", "list", "--tenant", "1"],
  ["checkpoint", "--tenant", "1"],
] as const;
const fromDirectory: string[] = [];

/** With address and token in the environment. */
const remote = (args: readonly string[], input = "", token = tokens.admin) =>
  runCommand(args, { input, env: { ...env, KIMBERLITE_TOKEN: token } });
const sql = (...args: string[]) => remote(["sql", ...args]);

beforeAll(async () => {
  await succeed(kimberlite(["init"]));
  await succeed(kimberlite(["tenant", "create", "1", "--name", "Hospital A"]));
  for (const role of ["admin", "reader"] as const)
    tokens[role] = (await succeed(kimberlite(["token", "create", "--tenant", "1", "--role", role]))).trim();
  tokens.operator = (await succeed(kimberlite(["token", "create", "--role", "operator"]))).trim();
  await succeed(
    kimberlite(["hold", "place", "--tenant", "1", "--name", "case 17", "--reason", "court order"]),
  );
  for (const args of [...SAME, ...AS_ADMIN]) fromDirectory.push(await succeed(kimberlite(args)));
  await succeed(kimberlite(["key", "create", `file:${join(folder, "next.key")}`]));
  const settings = [
    "database.maxResultRows=1000",
    "database.maxOpenTenants=1",
    `folders.exports=${join(folder, "exports")}`,
    `folders.imports=${join(folder, "exports", "1")}`,
    `backupPlaces={"nightly":{"logs":"file:${join(folder, "logs")}","keys":"file:${join(folder, "keys")}"}}`,
    `masterKeys={"next":"file:${join(folder, "next.key")}"}`,
  ];
  const limits = settings.flatMap((setting) => ["--set", setting]);
  server = spawn(process.execPath, [MAIN, "serve", "--port", "0", "--json", "--dir", dir, ...limits], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  server.stderr?.on("data", (piece: Buffer) => log.push(String(piece)));
  const lines = createInterface({ input: server.stdout as NodeJS.ReadableStream });
  const [line] = (await once(lines, "line")) as [string];
  env.KIMBERLITE_URL = (JSON.parse(line) as { url: string }).url;
});

afterAll(async () => {
  server.kill("SIGTERM");
  if (server.exitCode === null) await once(server, "exit");
});

it("prints of the node and its tenants what it prints of a directory", async () => {
  const over: string[] = [];
  for (const args of SAME) over.push(await succeed(remote(args, "", tokens.operator)));
  for (const args of AS_ADMIN) over.push(await succeed(remote(args)));
  expect(over).toEqual(fromDirectory);
});

it("writes and reads exact values, as a directory would show them", async () => {
  await succeed(sql("CREATE TABLE v (id INTEGER PRIMARY KEY, a, b)"));
  const params = '[{"integer":"9007199254740993"},{"base64":"yv4="}]';
  const insert = "INSERT INTO v (id, a, b) VALUES (1, ?, ?) RETURNING a, b, 1.5 AS f, NULL AS n";
  const flags = ["--url", env.KIMBERLITE_URL, "--token", tokens.admin, "--tenant", "1"];
  const wrote = await runCommand(["sql", insert, "--params", params, "--json", ...flags]);
  expect(wrote).toMatchObject({ code: 0, err: "" });
  expect(JSON.parse(wrote.out)).toEqual({
    columns: ["a", "b", "f", "n"],
    rows: [{ a: "9007199254740993", b: { base64: "yv4=" }, f: 1.5, n: null }],
    rowsAffected: 1,
    lastInsertRowid: 1,
    offset: expect.any(Number),
  });
  const { offset } = JSON.parse(wrote.out) as { readonly offset: number };
  expect(await succeed(sql("SELECT count(*) AS n FROM v", "--at", String(offset - 1)))).toMatch(/│ 0 │/);
  expect(await succeed(sql("SELECT count(*) AS n FROM v", "--at", String(offset)))).toMatch(/│ 1 │/);
  expect(
    await succeed(
      sql("SELECT id, b FROM v WHERE a = :a", "--params", '{"a":{"integer":"9007199254740993"}}'),
    ),
  ).toMatch(/│ +1 │ x'cafe' │[\s\S]*1 row/);
});

it("ends with the code that the directory would end with", async () => {
  const failures = await Promise.all([
    sql("SELEC 1"),
    sql("INSERT INTO v (id) VALUES (7), (7)"),
    remote(["sql", "INSERT INTO v (id) VALUES (8)"], "", tokens.reader),
    sql("CREATE TABLE w (a)", "--at", "1"),
    sql("SELECT 1", "--at", "999999"),
    sql("WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 1001) SELECT i FROM n"),
  ]);
  expect(failures.map(({ code, err }) => [code, /\((\w+)\)\n$/.exec(err)?.[1]])).toEqual([
    [2, "invalid_sql"],
    [3, "constraint_violation"],
    [2, "read_only"],
    [2, "unsupported_sql"],
    [2, "offset_out_of_range"],
    [7, "result_too_large"],
  ]);
});

it("runs a file as one transaction, or not at all", async () => {
  const run = (input: string) => remote(["sql", "--file", "-", "--transaction"], input);
  expect((await run("INSERT INTO v (id) VALUES (20); INSERT INTO v (id) VALUES (20);")).code).toBe(3);
  const done = await succeed(run("INSERT INTO v (id) VALUES (21); INSERT INTO v (id) VALUES (22);"));
  expect(done).toMatch(/^1 row affected, offset (\d+)\n1 row affected, offset \1\n$/);
  expect(await succeed(sql("SELECT group_concat(id) AS ids FROM v WHERE id BETWEEN 20 AND 29"))).toContain(
    "21,22",
  );
});

it("reads what was, by offset and by time, in columns as they are now", async () => {
  const described = JSON.parse(await succeed(remote(["tenant", "describe", "1", "--json"]))) as {
    readonly size: number;
  };
  const before = new Date().toISOString();
  await succeed(sql("UPDATE v SET b = 'changed'"));
  const text = "SELECT count(*) AS n, typeof(:p) AS t FROM v WHERE b = 'changed'";
  const at = (moment: string) => sql(text, "--params", '{"p":1.5}', "--at", moment);
  expect(await succeed(at(String(described.size - 1)))).toMatch(/│ 0 │ real │/);
  expect(await succeed(at(before))).toMatch(/│ 0 │ real │/);
  expect(await succeed(at(String(described.size)))).not.toMatch(/│ 0 │/);
});

it("is a shell with transactions, which nothing is left of unless they are committed", async () => {
  const { code, out, err } = await remote(
    ["shell"],
    `.tables
.schema v
.streams
.verify
.stats
begin; insert into v (id) values (30); commit;
begin; insert into v (id) values (31); rollback;
.at 0
select count(*) as tables from sqlite_schema;
create table w (a);
.at now
select group_concat(id) as ids from v where id between 30 and 39;
begin; insert into v (id) values (32);`,
  );
  expect(out).toMatch(/│ v +│ table │[\s\S]*CREATE TABLE v[\s\S]*whole: [\s\S]*Hospital A[\s\S]*│ +30 +│/);
  expect(err).toMatch(/^error: .*\(unsupported_sql\)\n$/);
  expect(code).toBe(2);
  expect(await succeed(sql("SELECT count(*) AS n FROM v WHERE id = 32"))).toMatch(/│ 0 │/);
  expect(existsSync(join(folder, ".kimberlite-shell-history"))).toBe(false);
});

it("governs tenants, keys, tokens and grants", async () => {
  const operator = (...args: string[]) => remote(args, "", tokens.operator);
  const one = ["--tenant", "1"];
  await succeed(operator("tenant", "create", "2", "--name", "Hospital B", "--max-ops-per-sec", "500"));
  expect(await succeed(operator("tenant", "quota", "2", "--burst-ops", "7", "--json"))).toBe(
    '{"maxOpsPerSec":500,"burstOps":7}\n',
  );
  expect(await succeed(operator("tenant", "suspend", "2", "--reason", "unpaid"))).toContain("is suspended");
  expect(await succeed(operator("tenant", "resume", "2"))).toContain("is active");
  expect(await succeed(operator("tenant", "describe", "2", "--json"))).toContain('"refusedErasures":[]');
  expect(
    await succeed(operator("hold", "release", ...one, "--name", "case 17", "--reason", "settled")),
  ).toContain("no other stands");
  expect(await succeed(remote(["key", "rotate-dek", ...one]))).toContain("DEK 2");
  expect(await succeed(remote(["key", "list", ...one]))).toContain("DEK 2");
  const made = JSON.parse(await succeed(remote(["token", "create", ...one, "--role", "writer", "--json"])));
  const { token, key } = made as { readonly token: string; readonly key: { readonly id: string } };
  await succeed(remote(["sql", "SELECT 1"], "", token));
  expect(await remote(["token", "revoke", key.id, ...one, "--reason", "lost"])).toMatchObject({
    code: 2,
    out: "",
  });
  await succeed(remote(["token", "revoke", key.id, ...one]));
  expect((await remote(["sql", "SELECT 1"], "", token)).code).toBe(4);
  expect(await succeed(remote(["token", "list", ...one]))).toContain("revoked");
  const terms = [
    "--from",
    "1",
    "--to",
    "2",
    "--of",
    "v",
    "--columns",
    "id",
    "--expires",
    "1h",
    "--purpose",
    "p",
  ];
  const grant = JSON.parse(await succeed(remote(["grant", "create", ...terms, "--json"]))) as { id: string };
  const second = await succeed(operator("token", "create", "--tenant", "2", "--role", "enrolment"));
  const theirs = await succeed(
    remote(["token", "create", "--tenant", "2", "--role", "admin"], "", second.trim()),
  );
  const shared = ["grant", "query", "SELECT count(*) AS n FROM v WHERE id > ?", "--params", "[20]"];
  const asReader = ["--tenant", "2", "--grant", grant.id];
  expect(await succeed(remote([...shared, ...asReader], "", theirs.trim()))).toMatch(/│ 3 │/);
  expect((await remote([...shared, "--tenant", "1", "--grant", grant.id])).err).toContain(
    "(grant_not_found)",
  );
  expect(await succeed(remote(["grant", "list", ...one]))).toContain(grant.id);
  expect(await succeed(remote(["grant", "revoke", grant.id, "--reason", "over"]))).toContain("is revoked");
  const checkpoint = join(folder, "checkpoint.txt");
  writeFileSync(checkpoint, await succeed(remote(["checkpoint", ...one])));
  expect(await succeed(remote(["verify", ...one, "--checkpoint", checkpoint]))).toContain("whole: ");
  expect((await remote(["verify", dir, "--url", env.KIMBERLITE_URL])).err).toContain("(unsupported)");
  expect(await succeed(remote(["verify", dir]))).toContain("whole");
  expect((await operator("audit", ...one)).err).toContain("(not_authorized)");
  expect((await remote(["tenant", "list"])).err).toContain("(not_authorized)");
});

it("erases, keeps, re-encrypts, exports and backs up what the server has", async () => {
  const operator = (...args: string[]) => remote(args, "", tokens.operator);
  const one = ["--tenant", "1"];
  const person = join(folder, "person.txt");
  await succeed(sql("CREATE TABLE people (id INTEGER PRIMARY KEY, email)"));
  await succeed(remote(["subject", "declare", ...one, "--table", "people", "--column", "email"]));
  await succeed(sql("INSERT INTO people VALUES (1, 'alice'), (2, 17)"));
  const erase = ["subject", "erase", ...one, "--reason", "request 1", "--certificate", person];
  expect(await succeed(remote([...erase, "--subject", "17", "--number"]))).toContain("1 row,");
  expect((await remote([...erase, "--subject", "alice"])).err).toContain("(destination_exists)");
  const verifier = (await succeed(operator("key", "verifier"))).trim();
  expect(await succeed(remote(["subject", "verify", person, "--key", verifier]))).toContain("holds");
  expect(await succeed(remote(["subject", "list", ...one]))).toMatch(/│ people │[\s\S]*erased: .*request 1/);
  const issuer = ["--issuer", "https://id.example", "--audience", "k"];
  const jwks = ["--jwks-uri", "https://id.example/keys"];
  await succeed(remote(["issuer", "register", ...one, ...issuer, ...jwks]));
  expect(await succeed(remote(["issuer", "list", ...one]))).toContain("https://id.example");
  await succeed(remote(["issuer", "remove", ...one, "--issuer", "https://id.example"]));

  const reencrypted = await succeed(remote(["key", "reencrypt", ...one, "--reason", "yearly"]));
  expect(reencrypted).toMatch(/records under DEK \d+/);
  expect((await remote(["key", "move", ...one, "--to", "file:/tmp/k"])).err).toContain("(not_authorized)");
  expect(await succeed(operator("retention", ...one, "--days", "0", "--reason", "r"))).toContain("0 days");
  expect(await succeed(operator("rebuild", ...one))).toContain("rebuilt from");
  expect(await succeed(remote(["export", ...one, "--out", "first"]))).toContain('in "first" of the server');
  expect(existsSync(join(folder, "exports", "1", "first", "manifest.json"))).toBe(true);
  const elsewhere = ["export", ...one, "--out", "x", "--subject-keys", "keys.json"];
  expect((await remote(elsewhere)).err).toContain("(unsupported)");
  const imported = operator("import", "first", "--key", verifier, "--as", "7");
  // With sealed history an import takes the persons' keys, which go over no network.
  expect((await imported).err).toContain("(keys_missing)");
  expect(await succeed(operator("backup", "run", "--to", "nightly"))).toContain("logs, ");
  expect(await succeed(operator("backup", "list", "--from", "nightly"))).toContain("all");
  expect(await succeed(operator("key", "rotate-master", "--to", "next"))).toContain("wraps every tenant");
  expect(await succeed(operator("trim", ...one, "--reason", "r", "--before", "2001-01-01"))).toContain(
    "no record",
  );
  const certificate = join(folder, "erased.txt");
  expect((await operator("erase", "--drill")).err).toContain("(unsupported)");
  const gone = ["erase", "--tenant", "2", "--reason", "over", "--certificate", certificate];
  expect(await succeed(operator(...gone))).toContain("tenant 2 is erased");
  expect(await succeed(operator("certificate", "--tenant", "2"))).toBe(readFileSync(certificate, "utf8"));
  expect(await succeed(operator("verify", certificate, "--key", verifier))).toContain("tenant 2 was erased");
  expect(await succeed(operator("stats"))).toMatch(/installation[\s\S]*tenants/);
});

it("warns of a token that goes over a network in clear text, and of none that does not", async () => {
  const far = await runCommand(["sql", "SELECT 1", "--url", "http://192.0.2.1:9", "--token", "x", "--json"], {
    nodeArgs: ["--import", `data:text/javascript,globalThis.fetch = () => { throw new Error("unsent") }`],
  });
  expect(far.err).toContain('{"warning":"the token goes over the network in clear text: use https"}');
  expect((await sql("SELECT 1")).err).toBe("");
});

it("lets nobody in but the tenant, and never shows the token", async () => {
  const secret = "kbt_not-a-token-of-anybody";
  const refused = await Promise.all([
    remote(["sql", "SELECT 1"], "", secret),
    remote(["sql", "SELECT 1", "--json"], "", `${secret}\u00e9`),
    remote(["sql", "SELECT 1"], "", tokens.operator),
    sql("SELECT 1", "--tenant", "2"),
    runCommand(["sql", "SELECT 1", "--url", `http://x:${secret}@127.0.0.1:1`, "--token", secret]),
    runCommand(["sql", "SELECT 1", "--url", "http://127.0.0.1:1", "--token", secret]),
  ]);
  expect(refused.map(({ code }) => code)).toEqual([4, 2, 4, 4, 2, 8]);
  for (const { out, err } of refused) {
    expect(out).toBe("");
    expect(err).not.toContain(secret);
  }
  expect(log.join("")).toContain("/v2/pipeline");
  for (const token of [secret, ...Object.values(tokens)]) expect(log.join("")).not.toContain(token);
});

it("takes a server or a directory, and never one for the other", async () => {
  const both = await runCommand(["sql", "SELECT 1", "--dir", dir, "--url", env.KIMBERLITE_URL], { env });
  expect(both).toMatchObject({ code: 2, err: expect.stringContaining("(invalid_argument)") });
  expect(await remote(["init"])).toMatchObject({
    code: 2,
    err: expect.stringContaining("(unsupported)"),
  });
  // The directory is the server's: this is its refusal.
  expect((await remote(["sql", "SELECT 1", "--tenant", "1", "--dir", dir])).err).toContain(
    "(directory_locked)",
  );
  expect((await runCommand(["sql", "SELECT 1", "--dir", dir])).err).toContain("--tenant");
});
