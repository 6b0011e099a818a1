/** `erase`, `hold`, `retention`, `audit`, `certificate`, and master keys elsewhere, as they are typed. */
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { commandOn, runCommand, scratchFolder, succeed } from "./command.ts";

const folder = scratchFolder();

describe("governance from the command line", () => {
  it("holds, releases, erases, certifies and audits", async () => {
    const kimberlite = commandOn(join(folder, "db"));
    const certificate = join(folder, "certificate.txt");
    await succeed(kimberlite(["init"]));
    await succeed(kimberlite(["tenant", "create", "1", "--name", "A", "--retention-days", "10"]));
    await succeed(kimberlite(["sql", "--tenant", "1", "CREATE TABLE t (a)"]));
    await succeed(kimberlite(["hold", "place", "--tenant", "1", "--name", "case 1", "--reason", "court"]));
    expect(await succeed(kimberlite(["hold", "list", "--tenant", "1"]))).toContain("case 1");
    const erase = ["erase", "--tenant", "1", "--reason", "they left", "--certificate", certificate];
    expect((await kimberlite(erase)).code).toBe(4);
    expect(existsSync(certificate)).toBe(false);
    expect(
      await succeed(kimberlite(["hold", "release", "--tenant", "1", "--name", "case 1", "--reason", "over"])),
    ).toContain("they left");
    expect((await kimberlite(erase)).code).toBe(4);
    expect(await succeed(kimberlite(["tenant", "describe", "1"]))).toMatch(
      /refused erasure.*retention_not_over/,
    );
    await succeed(kimberlite(["retention", "--tenant", "1", "--days", "0", "--reason", "agreed"]));
    await succeed(kimberlite(erase));
    const key = (await succeed(kimberlite(["key", "verifier"]))).trim();
    expect(await succeed(kimberlite(["verify", certificate, "--key", key]))).toContain("they left");
    expect(await succeed(kimberlite(["certificate", "--tenant", "1"]))).toBe(
      readFileSync(certificate, "utf8"),
    );
    writeFileSync(certificate, readFileSync(certificate, "utf8").replace("they left", "they kept"));
    expect((await kimberlite(["verify", certificate, "--key", key])).code).toBe(11);
    expect((await kimberlite(erase)).code).toBe(3);
    const audited = (await succeed(kimberlite(["audit", "--json"]))).trim().split("\n");
    const events = audited.map(
      (line) => JSON.parse(line) as { action: string; outcome: string; actor: string },
    );
    expect(events.map(({ action, outcome }) => `${action} ${outcome}`)).toEqual([
      "tenant.create done",
      "hold.place done",
      "tenant.erase refused",
      "hold.release done",
      "tenant.erase refused",
      "retention.set done",
      "tenant.erase began",
      "tenant.erase done",
    ]);
    const tail = (await succeed(kimberlite(["audit", "--from", "6", "--limit", "1", "--json"]))).trim();
    expect(JSON.parse(tail)).toMatchObject({ offset: 6, outcome: "began" });
    expect((await kimberlite(["audit", "--limit", "some"])).code).toBe(2);
    expect(new Set(events.map(({ actor }) => actor.slice(0, 4)))).toEqual(new Set(["cli:"]));
  });

  it("keeps its master key where a URI says, and moves it", async () => {
    const kimberlite = commandOn(join(folder, "elsewhere"));
    const [first, second] = ["1.key", "2.key"].map((name) => join(folder, name)) as [string, string];
    for (const path of [first, second]) await succeed(runCommand(["key", "create", `file:${path}`]));
    expect((await runCommand(["key", "create", first])).code).toBe(3);
    expect((await runCommand(["key", "create", "awskms:///arn:aws:kms:x"])).code).toBe(2);
    await succeed(kimberlite(["init", "--master-key", `file:${first}`]));
    expect(existsSync(join(folder, "elsewhere", "master.key"))).toBe(false);
    await succeed(kimberlite(["tenant", "create", "1", "--name", "A"]));
    await succeed(kimberlite(["sql", "--tenant", "1", "CREATE TABLE t (a)"]));
    await succeed(
      kimberlite(["key", "rotate-master", "--to", `file:${second}`, "--reason", "yearly", "--actor", "ann"]),
    );
    const rotated = await succeed(kimberlite(["audit", "--action", "key.rotate-master", "--json"]));
    expect(JSON.parse(rotated.split("\n")[0] as string)).toMatchObject({ actor: "ann", reason: "yearly" });
    // A key that is not there: refused, and nothing is changed by the attempt.
    const absent = `file:${join(folder, "absent.key")}`;
    expect((await kimberlite(["key", "move", "--tenant", "1", "--to", absent])).code).toBe(10);
    expect((await kimberlite(["key", "rotate-master", "--to", absent])).code).toBe(10);
    expect(await succeed(kimberlite(["tenant", "describe", "1"]))).toContain("the node's");
    expect(readFileSync(join(folder, "elsewhere", "config.json"), "utf8")).not.toContain("absent");
    await succeed(kimberlite(["key", "move", "--tenant", "1", "--to", `file:${first}`]));
    expect(await succeed(kimberlite(["tenant", "describe", "1"]))).toContain(`file:${first}`);
    await succeed(kimberlite(["key", "move", "--tenant", "1", "--to", "node"]));
    writeFileSync(first, "gone");
    await succeed(kimberlite(["sql", "--tenant", "1", "SELECT * FROM t"]));
    expect((await runCommand(["init", "--dir", join(folder, "x"), "--master-key", "what:ever"])).code).toBe(
      2,
    );
    expect(existsSync(join(folder, "x"))).toBe(false);
  });

  it("exports, verifies and imports", async () => {
    const [from, to] = [commandOn(join(folder, "from")), commandOn(join(folder, "to"))];
    const out = join(folder, "out");
    for (const kimberlite of [from, to]) await succeed(kimberlite(["init"]));
    await succeed(from(["tenant", "create", "5", "--name", "Five"]));
    await succeed(from(["sql", "--tenant", "5", "CREATE TABLE t (a); INSERT INTO t VALUES ('kept')"]));
    expect(await succeed(from(["export", "--tenant", "5", "--out", out]))).toContain("in clear text");
    const key = (await succeed(from(["key", "verifier"]))).trim();
    expect(await succeed(from(["verify", out, "--key", key]))).toContain("signed by the key that you gave");
    expect(await succeed(from(["verify", out]))).toContain("consistent with itself");
    expect((await from(["verify", out, "--tenant", "6"])).code).toBe(11);
    expect((await from(["verify", out, "--checkpoint", out])).code).toBe(2);
    const other = (await succeed(to(["key", "verifier"]))).trim();
    expect((await to(["verify", out, "--key", other])).code).toBe(11);
    expect((await to(["import", out, "--key", other])).code).toBe(11);
    expect(await succeed(to(["import", out, "--key", key, "--as", "6"]))).toContain("with its history");
    expect(await succeed(to(["sql", "--tenant", "6", "SELECT a FROM t"]))).toContain("kept");
    expect((await from(["export", "--tenant", "5", "--out", out])).code).toBe(3);
    writeFileSync(join(out, "schema.sql"), "CREATE TABLE t (b);\n");
    const damaged = await to(["verify", out, "--key", key]);
    expect(damaged.code).toBe(11);
    expect(damaged.err).toContain("schema.sql");
  });

  it("drills an erasure and finds nothing of the tenant, in files, copies or memory", async () => {
    const report = JSON.parse(await succeed(runCommand(["erase", "--drill", "--json"]))) as {
      ok: boolean;
      findings: { what: string; ok: boolean; found: string }[];
    };
    expect(report.findings.filter(({ ok }) => !ok)).toEqual([]);
    const found = new Map(report.findings.map((finding) => [finding.what, finding.found]));
    expect(found.get("memory before the erasure")).toMatch(/rows [1-9][0-9]* times, [1-9][0-9]* keys/);
    expect(found.get("memory after the erasure")).toBe("neither a row nor a key");
    expect(found.get("a copy of the data from before, beside today's keys")).toBe("keys_missing");
    expect(found.get("certificate")).toContain("memory");
    expect((await runCommand(["erase", "--tenant", "1"])).code).toBe(2);
  });

  it("fails its drill when a row or a key was left, and says where", async () => {
    const planted = new URL("./drill-planted.mjs", import.meta.url).href;
    const { code, out, err } = await runCommand(["erase", "--drill", "--json"], {
      nodeArgs: ["--import", planted],
    });
    expect(err).toContain("drill_failed");
    expect(code).not.toBe(0);
    const report = JSON.parse(out) as {
      ok: boolean;
      findings: { what: string; ok: boolean; found: string }[];
    };
    expect(report.ok).toBe(false);
    expect(report.findings.filter(({ ok }) => !ok)).toEqual([
      {
        what: "memory after the erasure",
        ok: false,
        found: expect.stringMatching(/^(?=.*\brows [1-9][0-9]* times)(?=.*\bkey [0-9]+ [1-9][0-9]* times)/),
      },
      { what: "files after the erasure", ok: false, found: "rows 1 times" },
    ]);
  });

  it("backs up, lists, and restores a tenant and the node", async () => {
    const [dir, again] = [join(folder, "node"), join(folder, "node-again")];
    const kimberlite = commandOn(dir);
    const [to, keys] = [`file:${join(folder, "backups")}`, `file:${join(folder, "backup-keys")}`];
    await succeed(kimberlite(["init"]));
    await succeed(kimberlite(["tenant", "create", "5", "--name", "Five"]));
    await succeed(kimberlite(["sql", "--tenant", "5", "CREATE TABLE t (a); INSERT INTO t VALUES ('kept')"]));
    expect(await succeed(kimberlite(["backup", "run", "--to", to, "--keys-to", keys]))).toContain("2 logs");
    expect(await succeed(kimberlite(["backup", "list", "--from", to]))).toContain("all");
    expect(await succeed(kimberlite(["backup", "verify", "--from", to, "--keys-from", keys]))).toContain(
      "whole",
    );
    await succeed(kimberlite(["backup", "restore-tenant", "--from", to, "--tenant", "5", "--as", "6"]));
    expect(await succeed(kimberlite(["sql", "--tenant", "6", "SELECT a FROM t"]))).toContain("kept");
    mkdirSync(again);
    copyFileSync(join(dir, "master.key"), join(again, "master.key"));
    const restored = commandOn(again);
    const from = ["--from", to, "--keys-from", keys];
    expect(await succeed(restored(["restore", ...from]))).toContain("1 tenant");
    expect(await succeed(restored(["sql", "--tenant", "5", "SELECT a FROM t"]))).toContain("kept");
    expect((await restored(["restore", ...from])).code).toBe(3);
    expect(await succeed(restored(["audit", "--action", "tenant.restore"]))).toContain("backup");
  });

  it("re-encrypts and trims", async () => {
    const kimberlite = commandOn(join(folder, "trimmed"));
    await succeed(kimberlite(["init"]));
    await succeed(kimberlite(["tenant", "create", "5", "--name", "Five"]));
    await succeed(kimberlite(["sql", "--tenant", "5", "CREATE TABLE t (a); INSERT INTO t VALUES ('kept')"]));
    const reencrypt = ["key", "reencrypt", "--tenant", "5", "--destroy-former-keys"];
    expect(await succeed(kimberlite(reencrypt))).toContain("under DEK 2; 1 former key destroyed");
    expect(await succeed(kimberlite(["key", "list", "--tenant", "5"]))).toContain("of 268435456 so far");
    expect(await succeed(kimberlite(["trim", "--tenant", "5", "--reason", "over"]))).toContain(
      "records destroyed",
    );
    expect(await succeed(kimberlite(["sql", "--tenant", "5", "SELECT a FROM t"]))).toContain("kept");
    expect((await kimberlite(["sql", "--tenant", "5", "--at", "1", "SELECT a FROM t"])).code).toBe(5);
    expect(await succeed(kimberlite(["verify"]))).toContain("whole");
  });
});
