/** `verify`, with and without keys, on whole, damaged, missing, forked and running logs; keys, rebuild, checkpoints. */
import {
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { systemDisk } from "../../src/host/disk.ts";
import { createMasterKeyFile, Kimberlite, masterKeyFile, TenantId } from "../../src/index.ts";
import { KeyStore } from "../../src/keys/key-store.ts";
import { rewrapTenant } from "../../src/keys/rewrap-tenant.ts";
import { commandOn, runCommand, scratchFolder, succeed } from "./command.ts";

const folder = scratchFolder();
const dir = join(folder, "db");
const kimberlite = commandOn(dir);
const checkpoint = join(folder, "checkpoint.txt");
let verifierKey = "";
let copies = 0;

beforeAll(async () => {
  await succeed(kimberlite(["init"]));
  for (const id of ["1", "2", "3"])
    await succeed(kimberlite(["tenant", "create", id, "--name", `Hospital ${id}`]));
  for (const id of ["1", "2"]) {
    await succeed(
      kimberlite([
        "sql",
        "--tenant",
        id,
        "CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 'x'); INSERT INTO t VALUES (2, 'y')",
      ]),
    );
  }
  verifierKey = (await succeed(kimberlite(["key", "verifier"]))).trim();
  writeFileSync(checkpoint, await succeed(kimberlite(["checkpoint", "--tenant", "1"])));
});

/** A copy of the installation, to be damaged. */
function copy(): string {
  copies += 1;
  const path = join(folder, `copy-${copies}`);
  cpSync(dir, path, { recursive: true });
  return path;
}

function namesBelow(path: string): string[] {
  return readdirSync(path, { recursive: true, encoding: "utf8" }).toSorted();
}

function segmentOf(path: string, tenant: number): string {
  const log = join(path, "data", "tenants", String(tenant), "log");
  return join(log, readdirSync(log)[0] ?? "");
}

function flipBit(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes.writeUInt8(bytes.readUInt8(at) ^ 0x10, at);
  writeFileSync(path, bytes);
}

interface Report {
  readonly ok: boolean;
  readonly tenants: readonly {
    tenant: number;
    ok: boolean;
    size: number;
    sealsOpened: boolean;
    firstBadOffset?: number;
  }[];
}

async function verifyJson(path: string, ...args: string[]): Promise<{ code: number | null; report: Report }> {
  const { code, out, err } = await runCommand(["verify", path, "--json", ...args]);
  if (out === "") throw new Error(err);
  return { code, report: JSON.parse(out) as Report };
}

describe("verify", () => {
  it("checks every tenant, with the key at hand also the seals, and writes nothing", async () => {
    const path = copy();
    const before = namesBelow(path);
    const { code, report } = await verifyJson(path);
    expect({ code, ok: report.ok, sizes: report.tenants.map(({ tenant, size }) => [tenant, size]) }).toEqual({
      code: 0,
      ok: true,
      sizes: [
        [0, expect.any(Number)],
        [1, 3],
        [2, 3],
        [3, 0],
      ],
    });
    expect(report.tenants.every(({ sealsOpened }) => sealsOpened)).toBe(true);
    rmSync(join(path, "master.key"));
    rmSync(join(path, "data", "keys"), { recursive: true });
    const without = await verifyJson(join(path, "data"));
    expect({
      code: without.code,
      ok: without.report.ok,
      sealsOpened: without.report.tenants[1]?.sealsOpened,
    }).toEqual({ code: 0, ok: true, sealsOpened: false });
    expect(namesBelow(path)).toEqual(
      before.filter((name) => name !== "master.key" && !name.startsWith(join("data", "keys"))),
    );
  });

  it("shows a tenant that was erased as erased, with what its certificate says, and none without the key", async () => {
    const path = copy();
    const on = commandOn(path);
    for (const [id, kept] of [
      ["1", ["--keep-ciphertext"]],
      ["2", []],
    ] as const) {
      const to = ["--certificate", join(path, `${id}.txt`)];
      await succeed(
        on(["erase", "--tenant", id, "--reason", `left ${id}`, "--actor", "ann", ...to, ...kept]),
      );
    }
    const { code, report } = await verifyJson(path);
    expect(code).toBe(0);
    const erasure = {
      state: "erased",
      actor: "ann",
      records: "4",
      endedAt: expect.stringMatching(/^20.*Z$/),
    };
    expect(report.tenants.slice(1)).toMatchObject([
      { tenant: 1, ok: true, size: 4, erasure: { ...erasure, reason: "left 1", ciphertextKept: true } },
      { tenant: 2, ok: true, size: 0, erasure: { ...erasure, reason: "left 2", ciphertextKept: false } },
      { tenant: 3, ok: true, size: 0 },
    ]);
    const shown = await succeed(runCommand(["verify", path]));
    expect(shown).toMatch(/erased; its sealed log is whole[\s\S]* erased\s[\s\S]*no log yet/);
    expect(shown).toMatch(
      /tenant 2 was erased at 20\S+Z by ann: left 2; its log had 4 records, Merkle root /,
    );
    // A log that comes back is shown to be there.
    cpSync(join(dir, "data", "tenants", "2"), join(path, "data", "tenants", "2"), { recursive: true });
    expect(await succeed(runCommand(["verify", path]))).toContain("erased; a log is there");
    rmSync(join(path, "data", "tenants", "2"), { recursive: true });
    rmSync(join(path, "master.key"));
    const without = await verifyJson(path);
    expect(without.report.tenants.map(({ tenant }) => tenant)).not.toContain(2);
  });

  it("names the tenant and the first bad offset of a changed bit, and ends with 11", async () => {
    const path = copy();
    flipBit(segmentOf(path, 1), statSync(segmentOf(path, 1)).size - 40);
    const { code, report } = await verifyJson(path, "--no-seals");
    expect({ code, ok: report.ok }).toEqual({ code: 11, ok: false });
    expect(report.tenants.map(({ ok, firstBadOffset }) => [ok, firstBadOffset])).toEqual([
      [true, undefined],
      [false, 2],
      [true, undefined],
      [true, undefined],
    ]);
    const shown = await runCommand(["verify", path]);
    expect(shown).toMatchObject({
      code: 11,
      err: expect.stringMatching(/^error: tenant 1 is damaged at offset 2: .*\(log_damaged\)\n$/),
    });
  });

  it("finds a log that belongs to another tenant, and one that is gone", async () => {
    const path = copy();
    cpSync(segmentOf(path, 2), segmentOf(path, 1));
    expect(await verifyJson(path, "--tenant", "1")).toMatchObject({
      code: 11,
      report: { tenants: [{ tenant: 1, firstBadOffset: 0 }] },
    });
    rmSync(join(path, "data", "tenants", "1"), { recursive: true });
    rmSync(join(path, "data", "keys", "1.keys"));
    const { err } = await runCommand(["verify", path]);
    expect(err).toContain("tenant 1 is damaged at offset 0: the log is missing");
  });

  it("goes on while a process writes", async () => {
    await using db = await Kimberlite.open({
      dataDir: join(dir, "data"),
      masterKey: masterKeyFile(join(dir, "master.key")),
    });
    let writing = true;
    const writer = (async () => {
      while (writing) await db.execute(TenantId(2), "INSERT INTO t VALUES (random(), hex(randomblob(2000)))");
    })();
    try {
      const { code, report } = await verifyJson(dir);
      expect({ code, ok: report.ok }).toEqual({ code: 0, ok: true });
    } finally {
      writing = false;
      await writer;
    }
  });

  it("refuses what is no data directory", async () => {
    expect(await runCommand(["verify", join(folder, "nothing")])).toMatchObject({ code: 5, out: "" });
    expect(await kimberlite(["verify", "--tenant", "99"])).toMatchObject({ code: 5 });
  });
});

describe("verify --checkpoint", () => {
  const against = (path: string, note = checkpoint, key = verifierKey) =>
    runCommand(["verify", path, "--checkpoint", note, "--key", key]);

  it("holds for a log that goes on from it", async () => {
    const path = copy();
    await succeed(commandOn(path)(["sql", "--tenant", "1", "INSERT INTO t VALUES (3, 'z')"]));
    expect(await succeed(against(path))).toContain(
      "the checkpoint of tenant 1 holds: its 3 records are in the log",
    );
  });

  it("shows a log that was cut at a record, or removed", async () => {
    const mismatch = { code: 11, err: expect.stringContaining("(checkpoint_mismatch)") };
    const cut = copy();
    truncateSync(segmentOf(cut, 1), lastBlockAt(readFileSync(segmentOf(cut, 1))));
    // Without the checkpoint, and without the database, the shorter log is a whole one.
    expect(await verifyJson(cut, "--no-seals")).toMatchObject({ code: 0 });
    expect(await against(cut)).toMatchObject(mismatch);
    rmSync(join(cut, "data", "tenants", "1"), { recursive: true });
    expect(
      await runCommand(["verify", cut, "--no-seals", "--checkpoint", checkpoint, "--key", verifierKey]),
    ).toMatchObject(mismatch);
  });

  it("trusts the given key alone, and only for this installation and tenant", async () => {
    const other = join(folder, "other");
    await succeed(commandOn(other)(["init"]));
    const otherKey = (await succeed(commandOn(other)(["key", "verifier"]))).trim();
    expect(await against(dir, checkpoint, otherKey)).toMatchObject({
      code: 11,
      err: expect.stringContaining("(signature_invalid)"),
    });
    expect(await against(other)).toMatchObject({
      code: 11,
      err: expect.stringContaining("(checkpoint_mismatch)"),
    });
    const forged = join(folder, "forged.txt");
    writeFileSync(forged, readFileSync(checkpoint, "utf8").replace("/tenant/1", "/tenant/2"));
    expect(await against(dir, forged)).toMatchObject({
      code: 11,
      err: expect.stringContaining("(signature_invalid)"),
    });
    expect(await against(dir, join(folder, "nothing.txt"))).toMatchObject({ code: 2 });
    expect(await kimberlite(["verify", "--checkpoint", checkpoint])).toMatchObject({ code: 2 });
  });
});

/** Where the last block begins, by the magic number of blocks. */
function lastBlockAt(segment: Buffer): number {
  return segment.lastIndexOf("KBLK");
}

describe("rebuild", () => {
  it("gives the same rows, also when the database is gone", async () => {
    const path = copy();
    const rows = () => succeed(commandOn(path)(["sql", "--tenant", "1", "--json", "SELECT * FROM t"]));
    const live = await rows();
    expect(await succeed(commandOn(path)(["rebuild", "--tenant", "1"]))).toMatch(
      /rebuilt from 3 records \(3 changes\)/,
    );
    expect(await rows()).toBe(live);
    rmSync(join(path, "data", "tenants", "1", "projection"), { recursive: true });
    expect(await rows()).toBe(live);
  });

  it("does not delete what a damaged log could not give back", async () => {
    const path = copy();
    flipBit(segmentOf(path, 1), 400);
    expect(await commandOn(path)(["rebuild", "--tenant", "1"])).toMatchObject({ code: 11 });
    expect(await succeed(commandOn(path)(["sql", "--tenant", "1", "SELECT count(*) AS n FROM t"]))).toContain(
      "│ 2 │",
    );
  });
});

describe("key", () => {
  it("lists versions and never a key, and rotates them", async () => {
    const path = copy();
    const command = commandOn(path);
    await succeed(command(["key", "rotate-dek", "--tenant", "1"]));
    await succeed(command(["key", "rotate-kek", "--tenant", "1"]));
    await succeed(command(["sql", "--tenant", "1", "INSERT INTO t VALUES (4, 'new')"]));
    const former = readFileSync(join(path, "master.key"), "utf8");
    await succeed(command(["key", "rotate-master"]));
    expect(readFileSync(join(path, "master.key"), "utf8")).not.toBe(former);
    expect(readdirSync(path).toSorted()).toEqual(["data", "master.key"]);
    expect(statSync(join(path, "master.key")).mode & 0o777).toBe(0o600);
    const report = JSON.parse(await succeed(command(["key", "list", "--tenant", "1", "--json"]))) as Record<
      string,
      unknown
    >;
    expect(report).toMatchObject({
      kek: { version: 2 },
      deks: [{ version: 1 }, { version: 2 }],
      blocksSealed: 2,
    });
    expect(JSON.stringify(report)).not.toMatch(/[A-Za-z0-9+/]{43}=/);
    expect(await verifyJson(path)).toMatchObject({ code: 0, report: { ok: true } });
    writeFileSync(join(path, "master.key"), former, { mode: 0o600 });
    expect(await command(["stats"])).toMatchObject({
      code: 10,
      err: expect.stringContaining("(master_key_wrong)"),
    });
    expect(await command(["key", "rotate-master", "--tenant", "1"])).toMatchObject({ code: 2 });
  });

  it("goes on after a rotation of the master key that was interrupted", async () => {
    const path = copy();
    const command = commandOn(path);
    const [current, next] = [join(path, "master.key"), join(path, "master.key.next")];
    const nextId = createMasterKeyFile(next);
    const store = await KeyStore.open(join(path, "data", "keys"), systemDisk);
    await rewrapTenant({ tenant: TenantId(1), from: masterKeyFile(current), to: masterKeyFile(next), store });
    for (const tenant of ["1", "2"]) await succeed(command(["sql", "--tenant", tenant, "SELECT * FROM t"]));
    expect(await verifyJson(path)).toMatchObject({ code: 0, report: { ok: true } });
    expect(await succeed(command(["key", "rotate-master", "--json"]))).toContain(nextId);
    expect(existsSync(next)).toBe(false);
    for (const tenant of ["1", "2"]) await succeed(command(["sql", "--tenant", tenant, "SELECT * FROM t"]));
  });
});
