/** The shell from a pipe: what a session does, and that an error does not end it. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, it } from "vitest";
import { commandOn, scratchFolder, succeed } from "./command.ts";

const dir = join(scratchFolder(), "db");
const kimberlite = commandOn(dir);
const shell = (input: string, ...args: string[]) =>
  kimberlite(["shell", "--tenant", "1", ...args], { input });

beforeAll(async () => {
  await succeed(kimberlite(["init"]));
  await succeed(kimberlite(["tenant", "create", "1", "--name", "Hospital A"]));
  await succeed(
    shell(`create table patients (
      id integer primary key, -- a comment; with a semicolon
      name text
    );
    create trigger t after update on patients begin
      select 1;
    end;
    insert into patients values (1, 'Alice
Smith'); update patients set name = 'Alice Jones' where id = 1;`),
  );
});

it("runs statements of several lines, and the last one without its semicolon", async () => {
  const out = await succeed(shell("select name\nfrom patients;\nselect 2\n + 40 as answer"));
  expect(out).toMatch(/│ Alice Jones │[\s\S]*│ +42 │/);
});

it("goes on after errors, and ends with the first one's exit code", async () => {
  const { code, out, err } = await shell(
    "selec;\n.nope\n.constructor\nselect 1 as one;\nselect * from nowhere;\n.quit\nselect 5 as five;",
  );
  expect(code).toBe(2);
  expect(out).toContain("one");
  expect(out).not.toContain("five");
  expect(err.trimEnd().split("\n")).toEqual([
    expect.stringContaining("(invalid_sql)"),
    expect.stringContaining("unknown command .nope"),
    expect.stringContaining("unknown command .constructor"),
    expect.stringContaining("(invalid_sql)"),
  ]);
});

it("looks into the past and comes back", async () => {
  const { code, out, err } = await shell(
    ".at 2\nselect name from patients;\n.at 99\ndelete from patients;\n.at now\nselect name from patients;",
    "--json",
  );
  const names = out
    .trimEnd()
    .split("\n")
    .map((line) => (JSON.parse(line) as { rows: unknown }).rows);
  expect(names).toEqual([[{ name: "Alice\nSmith" }], [{ name: "Alice Jones" }]]);
  expect(code).toBe(2);
  expect(err).toMatch(/offset_out_of_range/);
});

it("shows tables, schema, streams, and verifies", async () => {
  const out = await succeed(shell(".tables\n.schema PATIENTS\n.streams\n.verify\n.stats\n.help"));
  expect(out).toMatch(/│ patients │ table │/);
  expect(out).toMatch(/create table patients[\s\S]*create trigger t/i);
  expect(out).toMatch(/whole: 4 records in 4 blocks/);
  expect(out).toMatch(/Hospital A/);
});

it("refuses a tenant that is not there at once", async () => {
  expect(await kimberlite(["shell", "--tenant", "2"], { input: "select 1;" })).toMatchObject({
    code: 5,
    out: "",
  });
});

it("keeps no history of a pipe", () => {
  expect(existsSync(join(dir, "shell-history"))).toBe(false);
});
