/**
 * I-4: no plaintext of a tenant and no unwrapped key is on the disk: while the database is open, after it was closed,
 * after SIGKILL, and after a rebuild that was killed halfway; not in a file's name, a deleted file that is still open,
 * or the folder for temporary files.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createCipheriv, createDecipheriv } from "node:crypto";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { masterKeyFile } from "../../src/index.ts";
import { deriveSubkey } from "../../src/keys/derive.ts";
import { unwrapDek, unwrapKek, unwrapSigningSeed } from "../../src/keys/hierarchy.ts";
import { parseStoredKeys } from "../../src/keys/stored-keys.ts";
import { SYSTEM_TENANT, type TenantId } from "../../src/tenant/tenant-id.ts";
import { filesBelow, Scratch } from "../isolation/scratch.ts";
import { A, MARK_SECRETS, mark, plant } from "./markers.ts";
import { Needles, type Secret, scanFolders, scanOpenFiles, textSecret } from "./scanner.ts";

const PLANTER = fileURLToPath(new URL("planter.ts", import.meta.url));

/** The folder for temporary files, of this process and those that it starts; the data directories lie in it too. */
let temporary: string;
const before = { TMPDIR: process.env["TMPDIR"], SQLITE_TMPDIR: process.env["SQLITE_TMPDIR"] };

beforeAll(() => {
  temporary = fs.mkdtempSync(join(tmpdir(), "kimberlite-at-rest-"));
  process.env["TMPDIR"] = temporary;
  process.env["SQLITE_TMPDIR"] = temporary;
});

afterAll(() => {
  for (const [name, value] of Object.entries(before)) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
  fs.rmSync(temporary, { recursive: true, force: true });
});

/** Every key below the master key, and the master key itself, as the keys room unwraps them. */
async function keysOf(scratch: Scratch): Promise<Secret[]> {
  const master = masterKeyFile(scratch.masterKeyPath);
  const masterText = /key: (\S+)/.exec(fs.readFileSync(scratch.masterKeyPath, "latin1"))?.[1] ?? "";
  const secrets: Secret[] = [{ name: "master key", bytes: Buffer.from(masterText, "base64") }];
  for (const tenant of [SYSTEM_TENANT, A]) {
    if (!fs.existsSync(scratch.keys(tenant))) continue;
    const stored = parseStoredKeys(tenant, fs.readFileSync(scratch.keys(tenant)));
    const kek = await unwrapKek(tenant, stored.kek, master);
    secrets.push({ name: `KEK of ${tenant}`, bytes: kek });
    for (const dek of stored.deks)
      secrets.push(...subkeysOf(tenant, dek.version, unwrapDek(tenant, kek, dek)));
    if (stored.signingKey === undefined) continue;
    secrets.push({ name: "signing seed", bytes: unwrapSigningSeed(tenant, kek, stored.signingKey) });
  }
  await master.close();
  return secrets;
}

function subkeysOf(tenant: TenantId, version: number, dek: Buffer): Secret[] {
  const purposes = ["log", "projection", "export"] as const;
  return [
    { name: `DEK ${version} of ${tenant}`, bytes: dek },
    ...purposes.map((purpose) => ({
      name: `${purpose} key ${version} of ${tenant}`,
      bytes: deriveSubkey(dek, purpose, tenant, version),
    })),
  ];
}

async function expectNothing(scratch: Scratch, pids: readonly (number | "self")[] = []): Promise<void> {
  const needles = new Needles([...MARK_SECRETS, ...(await keysOf(scratch))]);
  const inFolders = scanFolders([temporary], needles);
  expect(inFolders.filter(({ path }) => path !== scratch.masterKeyPath)).toEqual([]);
  for (const pid of pids)
    expect(scanOpenFiles(pid, needles).findings.filter(({ path }) => path !== scratch.masterKeyPath)).toEqual(
      [],
    );
}

interface Planter {
  readonly process: ChildProcess;
  /** Resolves when the process says the word; rejects when it ends without it. */
  said(word: string): Promise<void>;
  kill(): Promise<void>;
}

function startPlanter(scratch: Scratch, work: "plant" | "rebuild"): Planter {
  const child = spawn(process.execPath, [PLANTER, scratch.dataDir, scratch.masterKeyPath, work], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const words: string[] = [];
  let wake: () => void = () => undefined;
  createInterface({ input: child.stdout as NodeJS.ReadableStream }).on("line", (word) => {
    words.push(word);
    wake();
  });
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  let over = false;
  void ended.then(() => {
    over = true;
    wake();
  });
  return {
    process: child,
    said: async (word) => {
      while (!words.includes(word)) {
        if (over) throw new Error(`the planter ended without "${word}"`);
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
    kill: async () => {
      child.kill("SIGKILL");
      await ended;
    },
  };
}

describe("nothing readable is on the disk", () => {
  it("while the database is open, and after it was closed", async () => {
    await using scratch = new Scratch();
    const db = await scratch.open();
    await plant(db);
    await expectNothing(scratch, ["self"]);
    expect(filesBelow(scratch.dataDir).some((path) => path.includes("at-"))).toBe(true);
    await db.rotateKek(A);
    await expectNothing(scratch, ["self"]);
    await db.close();
    await expectNothing(scratch);
  });

  it("after SIGKILL, in the middle of the work and at its end, and in what the process had open", async () => {
    await using scratch = new Scratch();
    const early = startPlanter(scratch, "plant");
    await early.said("open");
    await new Promise((resolve) => setTimeout(resolve, 60));
    await early.kill();
    await expectNothing(scratch);
    fs.rmSync(scratch.dataDir, { recursive: true });
    const late = startPlanter(scratch, "plant");
    await late.said("done");
    await expectNothing(scratch, [late.process.pid as number]);
    await late.kill();
    await expectNothing(scratch);
  });

  it("after a rebuild that was killed halfway", async () => {
    await using scratch = new Scratch();
    await scratch.with(async (db) => {
      await plant(db);
      for (let batch = 0; batch < 40; batch += 1) {
        const rows = Array.from({ length: 500 }, () => ({ v: mark("row"), w: mark("text-long").repeat(10) }));
        await db.insert(A, "plain", rows);
      }
    });
    fs.rmSync(scratch.projection(A), { recursive: true });
    const planter = startPlanter(scratch, "rebuild");
    await planter.said("rebuilding");
    await planter.kill();
    await expectNothing(scratch);
    await scratch.with(async (db) => {
      expect((await db.query(A, "SELECT count(*) > 20000 AS many FROM plain"))[0]).toEqual({ many: 1 });
    });
    await expectNothing(scratch);
  });
});

describe("two processes", () => {
  it("do not open one directory", async () => {
    await using scratch = new Scratch();
    const planter = startPlanter(scratch, "plant");
    await planter.said("open");
    await expect(scratch.open()).rejects.toMatchObject({ code: "directory_locked" });
    await planter.kill();
    await scratch.with(async (db) => expect((await db.listTenants()).length).toBeLessThanOrEqual(1));
  });
});

describe("the scanner", () => {
  const secret = textSecret("PlantedSecretOfTheScanner42");
  const needles = new Needles([secret]);
  const forms: readonly (readonly [string, (bytes: Buffer) => Buffer | string])[] = [
    ["as it is", (bytes) => bytes],
    ["reversed", (bytes) => Buffer.from(bytes).reverse()],
    ["its first half", (bytes) => bytes.subarray(0, 20)],
    ["its second half", (bytes) => bytes.subarray(10)],
    ["UTF-16LE", (bytes) => Buffer.from(bytes.toString(), "utf16le")],
    ["UTF-16BE", (bytes) => Buffer.from(bytes.toString(), "utf16le").swap16()],
    ["hex", (bytes) => bytes.toString("hex")],
    ["upper-case hex", (bytes) => bytes.toString("hex").toUpperCase()],
    ["base64", (bytes) => bytes.toString("base64")],
    ["base64 after one byte", (bytes) => Buffer.concat([Buffer.from("x"), bytes]).toString("base64")],
    ["base64 after two bytes", (bytes) => Buffer.concat([Buffer.from("xy"), bytes]).toString("base64")],
  ];

  it.each(forms)("finds a secret %s", async (_name, form) => {
    await using scratch = new Scratch();
    fs.mkdirSync(join(scratch.dataDir, "deep"), { recursive: true });
    fs.writeFileSync(
      join(scratch.dataDir, "deep", "file"),
      Buffer.concat([Buffer.alloc(5_000, "."), Buffer.from(form(secret.bytes)), Buffer.alloc(3, "=")]),
    );
    expect(scanFolders([scratch.dataDir], needles)).not.toEqual([]);
  });

  it("finds a secret in a file's name, and in a deleted file that is open", async () => {
    await using scratch = new Scratch();
    fs.mkdirSync(scratch.dataDir);
    const path = join(scratch.dataDir, `x${secret.bytes.toString()}`);
    const fd = fs.openSync(path, "w+");
    fs.writeSync(fd, secret.bytes);
    expect(scanFolders([scratch.dataDir], needles).map(({ path: place }) => place)).toContain(
      `the name of ${path}`,
    );
    fs.rmSync(path);
    expect(scanFolders([scratch.dataDir], needles)).toEqual([]);
    expect(scanOpenFiles("self", needles).findings).not.toEqual([]);
    fs.closeSync(fd);
    expect(scanOpenFiles("self", needles).findings).toEqual([]);
  });

  it("does not find what is encrypted", async () => {
    await using scratch = new Scratch();
    fs.mkdirSync(scratch.dataDir);
    const key = Buffer.alloc(32, 7);
    const cipher = createCipheriv("aes-256-gcm", key, Buffer.alloc(12));
    const sealed = Buffer.concat([cipher.update(secret.bytes), cipher.final()]);
    fs.writeFileSync(join(scratch.dataDir, "sealed"), sealed);
    expect(scanFolders([scratch.dataDir], needles)).toEqual([]);
    const opened = createDecipheriv("aes-256-gcm", key, Buffer.alloc(12)).update(sealed);
    fs.writeFileSync(join(scratch.dataDir, "opened"), opened);
    expect(scanFolders([scratch.dataDir], needles)).not.toEqual([]);
  });
});
