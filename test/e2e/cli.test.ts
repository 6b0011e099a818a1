/** The command line: usage, tenants, SQL, and what a hostile argument, script or value does to it. */
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { commandOn, runCommand, scratchFolder, succeed } from "./command.ts";

const folder = scratchFolder();
const dir = join(folder, "db");
const kimberlite = commandOn(dir);

beforeAll(async () => {
  await succeed(kimberlite(["init"]));
  await succeed(kimberlite(["tenant", "create", "1", "--name", "Hospital A", "--region", "us-east"]));
  const script = join(folder, "schema.sql");
  writeFileSync(
    script,
    `-- the patients' table; with a ' in a comment
     CREATE TABLE patients (id INTEGER PRIMARY KEY, name TEXT NOT NULL, picture BLOB); /* ; */
     CREATE TABLE changes (what TEXT);
     CREATE TRIGGER noted AFTER INSERT ON patients BEGIN
       INSERT INTO changes VALUES (CASE WHEN new.id > 1 THEN 'later; ' ELSE 'first' END);
     END;
     INSERT INTO patients VALUES (1, 'O''Brien; Jr.', x'00ff');
     INSERT INTO patients (id, name) VALUES (9007199254740993, char(27) || '[31mred' || char(13))`,
  );
  await succeed(kimberlite(["sql", "--tenant", "1", "--file", script]));
});

describe("usage", () => {
  it("prints the version alone, and help", async () => {
    const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
      version: string;
    };
    expect(await runCommand(["--version"])).toEqual({ code: 0, out: `${version}\n`, err: "" });
    const help = await succeed(runCommand(["--help"]));
    expect(help).toContain("base64");
    // What does not exist yet is not offered.
    expect(help).not.toMatch(/^ {2}(move|console)\b/m);
  });

  it.each([
    [[]],
    [["tenant"]],
    [["serve", "--port", "70000"]],
    [["token"]],
    [["token", "create", "--tenant", "1"]],
    [["token", "create", "--role", "reader"]],
    [["issuer", "register", "--tenant", "1"]],
    [["no-such-command"]],
    [["tenant", "no-such-command"]],
    [["sql", "--tenant", "1", "--no-such-flag", "SELECT 1"]],
    [["sql", "SELECT 1"]],
    [["sql", "--tenant", "1"]],
    [["sql", "--tenant", "1", "SELECT 1", "SELECT 2"]],
    [["sql", "--tenant", "0", "SELECT 1"]],
    [["sql", "--tenant", "1; DROP TABLE x", "SELECT 1"]],
    [["sql", "--tenant", "1", "--at", "yesterday", "SELECT 1"]],
    [["sql", "--tenant", "1", "--params", "[", "SELECT 1"]],
    [["sql", "--tenant", "1", "--file", "no-such-file.sql"]],
    [["sql", "--tenant", "1", ""]],
    [["sql", "--tenant", "1", "-- nothing"]],
    [["tenant", "create", "2", "--name", "\u001b[2J"]],
    [["tenant", "create", "2", "--name", "B", "--region", "../../etc"]],
    [["tenant", "create", "2", "--name", "B", "--max-log-bytes", "-1"]],
    [["key", "rotate-dek"]],
  ])("ends with 2 and one line for %j", async (args) => {
    const { code, out, err } = await kimberlite(args);
    expect(code).toBe(2);
    expect(out).toBe("");
    // Without a command, the help is the message.
    if (!err.startsWith("Usage:")) expect(err).toMatch(/^error: \P{Cc}+ \(\w+\)\n$/u);
  });

  it("refuses an old Node.js before anything native is loaded, and says what to do", async () => {
    const old =
      "Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.19.0' } })";
    const { code, err } = await runCommand(["--version"], {
      nodeArgs: ["--import", `data:text/javascript,${old}`],
    });
    expect(code).toBe(13);
    expect(err).toMatch(
      /^error: Kimberlite needs Node\.js 22 or later, and this is 20\.19\.0.*npm start.*\(runtime_unsupported\)\n$/,
    );
  });
});

describe("init", () => {
  it("makes a private key and data, once", async () => {
    expect(statSync(join(dir, "master.key")).mode & 0o777).toBe(0o600);
    expect(
      readdirSync(dir)
        .filter((name) => name !== "shell-history")
        .toSorted(),
    ).toEqual(["data", "master.key"]);
    const key = readFileSync(join(dir, "master.key"));
    const { code, err } = await kimberlite(["init"]);
    expect({ code, err }).toEqual({ code: 3, err: expect.stringContaining("(already_initialised)") });
    expect(readFileSync(join(dir, "master.key"))).toEqual(key);
  });

  it("goes with the master key that is there, and leaves a file that is none alone", async () => {
    const fresh = scratchFolder();
    writeFileSync(join(fresh, "master.key"), "not a key", { mode: 0o600 });
    expect(await commandOn(fresh)(["init"])).toMatchObject({
      code: 10,
      err: expect.stringContaining("master_key_invalid"),
    });
    expect(readFileSync(join(fresh, "master.key"), "utf8")).toBe("not a key");
  });

  it("that lost the file of its format is told so, and not to make another", async () => {
    const lost = join(scratchFolder(), "lost");
    mkdirSync(join(lost, "data", "tenants", "1"), { recursive: true });
    const { code, err } = await runCommand(["tenant", "list", "--dir", lost]);
    expect({ code, err }).toEqual({
      code: 5,
      err: expect.stringContaining("its kimberlite.json is missing"),
    });
  });

  it("is asked for where there is no installation, and nothing is made there", async () => {
    const absent = join(folder, "absent");
    const { code, err } = await commandOn(absent)(["sql", "--tenant", "1", "SELECT 1"]);
    expect({ code, err }).toEqual({
      code: 5,
      err: expect.stringMatching(/kimberlite init.*\(directory_not_initialised\)/),
    });
    expect(existsSync(absent)).toBe(false);
  });
});

describe("tenant", () => {
  it("creates, lists, describes, limits, suspends and resumes", async () => {
    await succeed(
      kimberlite([
        "tenant",
        "create",
        "7",
        "--name",
        "Clinic",
        "--max-log-bytes",
        "1MiB",
        "--retention-days",
        "2555",
      ]),
    );
    expect(await kimberlite(["tenant", "create", "7", "--name", "again"])).toMatchObject({ code: 3 });
    const listed = JSON.parse(await succeed(kimberlite(["tenant", "list", "--json"]))) as { id: number }[];
    expect(listed.map(({ id }) => id)).toEqual([1, 7]);
    expect(await succeed(kimberlite(["tenant", "quota", "7", "--max-ops-per-sec", "5"]))).toMatch(
      /maxLogBytes\s+│ 1\.0 MiB[\s\S]*maxOpsPerSec\s+│ 5 /,
    );
    const quota = JSON.parse(
      await succeed(kimberlite(["tenant", "quota", "7", "--max-log-bytes", "none", "--json"])),
    ) as unknown;
    expect(quota).toEqual({ maxOpsPerSec: 5 });
    await succeed(kimberlite(["tenant", "suspend", "7"]));
    expect(await kimberlite(["sql", "--tenant", "7", "SELECT 1"])).toMatchObject({ code: 4, out: "" });
    await succeed(kimberlite(["tenant", "resume", "7"]));
    expect(await succeed(kimberlite(["sql", "--tenant", "7", "SELECT 1"]))).toContain("1 row");
    const described = JSON.parse(await succeed(kimberlite(["tenant", "describe", "7", "--json"]))) as Record<
      string,
      unknown
    >;
    expect(described).toMatchObject({
      id: 7,
      name: "Clinic",
      state: "active",
      retentionMs: 2555 * 86_400_000,
      size: 0,
    });
    expect(await kimberlite(["tenant", "describe", "8"])).toMatchObject({ code: 5 });
  });
});

describe("sql", () => {
  const sql = (...args: string[]) => kimberlite(["sql", "--tenant", "1", ...args]);

  it("shows rows without letting them act on the terminal", async () => {
    const out = await succeed(sql("SELECT id, name, picture FROM patients"));
    expect(out).not.toContain("\u001b");
    expect(out).toContain("│ 9007199254740993 │ \\x1b[31mred\\r │ NULL    │");
    expect(out).toContain("│                1 │ O'Brien; Jr.  │ x'00ff' │");
    expect(out).toMatch(/\n2 rows\n$/);
  });

  it("gives exact JSON, one object a statement", async () => {
    const out = await succeed(
      sql(
        "--json",
        "SELECT id, picture, id FROM patients ORDER BY id; SELECT what FROM changes; SELECT 1 AS x WHERE 0",
      ),
    );
    expect(
      out
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line) as unknown),
    ).toMatchObject([
      {
        columns: ["id", "picture", "id:1"],
        rows: [
          { id: 1, picture: { base64: "AP8=" }, "id:1": 1 },
          { id: "9007199254740993", picture: null, "id:1": "9007199254740993" },
        ],
        offset: null,
      },
      { rows: [{ what: "first" }, { what: "later; " }] },
      { columns: ["x"], rows: [] },
    ]);
  });

  it("says what a write did, and where it is in the log", async () => {
    const before = JSON.parse(await succeed(kimberlite(["tenant", "describe", "1", "--json"]))) as {
      size: number;
    };
    const out = await succeed(
      sql(
        "--json",
        "INSERT INTO patients (name) VALUES (:name) RETURNING name",
        "--params",
        '{"name": "Zoë"}',
      ),
    );
    expect(JSON.parse(out)).toMatchObject({ rows: [{ name: "Zoë" }], rowsAffected: 1, offset: before.size });
    expect(await succeed(sql("UPDATE patients SET name = name WHERE id < 0"))).toBe("nothing changed\n");
    expect(
      await succeed(sql("--at", String(before.size - 1), "SELECT count(*) AS n FROM patients")),
    ).toContain("│ 2 │");
    expect(await succeed(sql("DELETE FROM patients WHERE name = 'Zoë'"))).toBe(
      `1 row affected, offset ${before.size + 1}\n`,
    );
  });

  it("runs each statement on its own, or all as one", async () => {
    const twice = "INSERT INTO patients VALUES (50, 'a', NULL); INSERT INTO patients VALUES (50, 'b', NULL)";
    const asOne = await sql("--transaction", twice);
    expect(asOne).toMatchObject({ code: 3, out: "", err: expect.stringContaining("(constraint_violation)") });
    expect(await succeed(sql("SELECT count(*) AS n FROM patients WHERE id = 50"))).toContain("│ 0 │");
    const each = await sql("--json", twice);
    expect({ code: each.code, lines: each.out.trimEnd().split("\n").length }).toEqual({ code: 3, lines: 1 });
    expect(JSON.parse(each.err)).toMatchObject({
      error: { code: "constraint_violation", detail: { statement: 2, constraint: "primary_key" } },
    });
    await succeed(sql("--transaction", "DELETE FROM patients WHERE id = 50; DELETE FROM changes"));
  });

  it("reads a script from stdin, and refuses one that is not text", async () => {
    expect(
      await succeed(
        kimberlite(["sql", "--tenant", "1", "--file", "-"], { input: "SELECT 'é' AS c;\nSELECT ';'" }),
      ),
    ).toContain("│ é │");
    const latin1 = { input: Uint8Array.of(0x53, 0xe9, 0x3b) };
    expect(await kimberlite(["sql", "--tenant", "1", "--file", "-"], latin1)).toMatchObject({
      code: 2,
      err: expect.stringContaining("not UTF-8"),
    });
  });

  it.each([
    ["ATTACH 'other.db' AS o", "unsupported_sql"],
    ["VACUUM INTO 'copy.db'", "unsupported_sql"],
    ["BEGIN", "unsupported_sql"],
    ["PRAGMA key", "unsupported_sql"],
    ["SELECT load_extension('x')", "unsupported_sql"],
    ["SELECT \u001b[31m", "invalid_sql"],
    ["SELECT '\u0000'", "invalid_argument"],
    ["SELECT * FROM no_such_table", "invalid_sql"],
  ])("refuses %j", async (text, code) => {
    // A NUL cannot be an argument of a process at all.
    const asInput = { input: text };
    const args = ["sql", "--tenant", "1", "--file", "-"];
    const { code: exitCode, out, err } = await kimberlite(args, asInput);
    expect({ exitCode, out }).toEqual({ exitCode: 2, out: "" });
    expect(err).not.toContain("\u001b");
    expect(err).not.toMatch(/\n\s+at /);
    if (code !== "invalid_argument") expect(err).toContain(`(${code})`);
  });

  it("ends quietly when nobody reads any more, and the data are whole", async () => {
    const many =
      "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 20000) SELECT x FROM c; INSERT INTO changes VALUES ('after')";
    const { err } = await kimberlite(["sql", "--tenant", "1", many], { stopReadingAfter: 100 });
    expect(err).toBe("");
    await succeed(sql("SELECT 1"));
    await succeed(kimberlite(["verify"]));
  });

  it("refuses a second process while one has the directory", async () => {
    const { Kimberlite, masterKeyFile } = await import("../../src/index.ts");
    await using _db = await Kimberlite.open({
      dataDir: join(dir, "data"),
      masterKey: masterKeyFile(join(dir, "master.key")),
    });
    const { code, err } = await sql("SELECT 1");
    expect({ code, err }).toEqual({
      code: 8,
      err: expect.stringMatching(/^error: .*\(directory_locked\)\n$/),
    });
  });
});
