/** The command over a server: a real `kimberlite serve`, tokens of its own, and nothing of the directory but by it. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { COMPILED, commandOn, runCommand, scratchFolder, succeed } from "./command.ts";

const MAIN = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
const folder = scratchFolder();
const dir = join(folder, "db");
const kimberlite = commandOn(dir);
let server: ChildProcess;
/** What the server said on standard error. */
const log: string[] = [];
const env = { KIMBERLITE_URL: "", KIMBERLITE_TOKEN: "", HOME: folder };
const tokens = { admin: "", reader: "", operator: "" };

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
  server = spawn(process.execPath, [MAIN, "serve", "--port", "0", "--json", "--dir", dir], {
    env: { ...process.env, NODE_COMPILE_CACHE: COMPILED },
    stdio: ["ignore", "pipe", "pipe"],
  });
  server.stderr?.on("data", (piece: Buffer) => log.push(String(piece)));
  const lines = createInterface({ input: server.stdout as NodeJS.ReadableStream });
  const [line] = (await once(lines, "line")) as [string];
  env.KIMBERLITE_URL = (JSON.parse(line) as { url: string }).url;
  await succeed(sql("CREATE TABLE v (id INTEGER PRIMARY KEY, a, b)"));
}, 120_000);

afterAll(async () => {
  server.kill("SIGTERM");
  if (server.exitCode === null) await once(server, "exit");
});

it("writes and reads exact values, as a directory would show them", async () => {
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
    offset: null,
  });
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
    sql("SELECT 1", "--at", "0"),
  ]);
  expect(failures.map(({ code, err }) => [code, /\((\w+)\)\n$/.exec(err)?.[1]])).toEqual([
    [2, "invalid_sql"],
    [3, "constraint_violation"],
    [2, "read_only"],
    [2, "unsupported"],
  ]);
});

it("runs a file as one transaction, or not at all", async () => {
  const run = (input: string) => remote(["sql", "--file", "-", "--transaction"], input);
  expect((await run("INSERT INTO v (id) VALUES (20); INSERT INTO v (id) VALUES (20);")).code).toBe(3);
  await succeed(run("INSERT INTO v (id) VALUES (21); INSERT INTO v (id) VALUES (22);"));
  expect(await succeed(sql("SELECT group_concat(id) AS ids FROM v WHERE id BETWEEN 20 AND 29"))).toContain(
    "21,22",
  );
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
.at 1
select group_concat(id) as ids from v where id between 30 and 39;
begin; insert into v (id) values (32);`,
  );
  expect(out).toMatch(/│ v +│ table │[\s\S]*CREATE TABLE v[\s\S]*whole: [\s\S]*Hospital A[\s\S]*│ +30 +│/);
  expect(err).toMatch(/^error: .*\(unsupported\)\n$/);
  expect(code).toBe(2);
  expect(await succeed(sql("SELECT count(*) AS n FROM v WHERE id = 32"))).toMatch(/│ 0 │/);
  expect(existsSync(join(folder, ".kimberlite-shell-history"))).toBe(false);
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
  expect(await remote(["rebuild", "--tenant", "1"])).toMatchObject({
    code: 2,
    err: expect.stringContaining("(unsupported)"),
  });
  // The directory is the server's: this is its refusal.
  expect((await remote(["sql", "SELECT 1", "--tenant", "1", "--dir", dir])).err).toContain(
    "(directory_locked)",
  );
  expect((await runCommand(["sql", "SELECT 1", "--dir", dir])).err).toContain("--tenant");
});
