/**
 * I-2 on a file system that is really full, or read-only, SQLite's own files included: the process is refused, loses
 * nothing, and goes on when there is space again. Needs leave to mount a tmpfs; without it the tests are skipped.
 */
import { execFileSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, rmSync, truncateSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  createMasterKeyFile,
  Kimberlite,
  KimberliteError,
  masterKeyFile,
  TenantId,
} from "../../src/index.ts";

const ONE = TenantId(1);
const TWO = TenantId(2);

function mayMount(): boolean {
  const probe = mkdtempSync(join(tmpdir(), "kimberlite-mount-"));
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", probe], { stdio: "ignore" });
    execFileSync("umount", [probe], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  } finally {
    rmSync(probe, { recursive: true, force: true });
  }
}

const suite = mayMount() ? describe : describe.skip;

suite("a file system of its own (skipped where this user may not mount one)", () => {
  let folder: string;
  let mount: string;
  let db: Kimberlite;

  const open = (): Promise<Kimberlite> =>
    Kimberlite.open({
      dataDir: join(mount, "data"),
      masterKey: masterKeyFile(join(folder, "master.key")),
      logSegmentBytes: 64 * 1024,
      journalFileBytes: 64 * 1024,
    });

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), "kimberlite-full-"));
    mount = mkdtempSync(join(tmpdir(), "kimberlite-full-mount-"));
    createMasterKeyFile(join(folder, "master.key"));
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=6m", "tmpfs", mount]);
    db = await open();
    for (const id of [ONE, TWO]) {
      await db.createTenant({ id, name: `tenant ${id}` });
      await db.execute(id, "CREATE TABLE rows (n INTEGER PRIMARY KEY, body TEXT)");
    }
  });

  afterEach(async () => {
    await db.close().catch(() => undefined);
    execFileSync("umount", ["--lazy", mount]);
    for (const path of [folder, mount]) rmSync(path, { recursive: true, force: true });
  });

  /** Takes what space there is, but for so many bytes. */
  function fill(leaveBytes: number): void {
    const path = join(mount, "ballast");
    const file = openSync(path, "w");
    let size = 0;
    try {
      for (;;) size += writeSync(file, Buffer.alloc(4_096, 1));
    } catch {
      closeSync(file);
    }
    truncateSync(path, Math.max(0, size - leaveBytes));
  }

  async function attempt(id: TenantId, n: number, bytes: number): Promise<string> {
    try {
      await db.insert(id, "rows", { n, body: "f".repeat(bytes) });
      return "done";
    } catch (error) {
      if (!(error instanceof KimberliteError)) throw error;
      return error.code;
    }
  }

  async function rowsOf(id: TenantId): Promise<number[]> {
    return (await db.query(id, "SELECT n FROM rows ORDER BY n")).map((row) => row["n"] as number);
  }

  it.each([0, 20_000, 60_000, 150_000])(
    "full but for %i bytes: refuses, loses nothing, and goes on",
    async (leaveBytes) => {
      const done: number[] = [];
      for (let n = 1; n <= 5; n += 1) if ((await attempt(ONE, n, 2_000)) === "done") done.push(n);
      fill(leaveBytes);
      const refused = new Set<string>();
      for (let n = 6; n <= 120; n += 1) {
        const outcome = await attempt(ONE, n, 3_000);
        if (outcome === "done") done.push(n);
        else refused.add(outcome);
      }
      expect([...refused].sort().filter((code) => code !== "overloaded")).toEqual(["disk_full"]);
      await attempt(TWO, 1, 10);
      rmSync(join(mount, "ballast"));
      await expect.poll(() => rowsOf(ONE).catch((error: KimberliteError) => error.code)).toEqual(done);
      expect(await attempt(ONE, 1_000, 10)).toBe("done");
      expect(await attempt(TWO, 1_000, 10)).toBe("done");
      await db.close();
      db = await open();
      expect(await rowsOf(ONE)).toEqual([...done, 1_000]);
      expect((await db.verifyTenant(ONE)).reason).toBeUndefined();
    },
  );

  it("full when it is opened: says so, changes nothing, and opens when there is space", async () => {
    expect(await attempt(ONE, 1, 10)).toBe("done");
    await db.close();
    fill(0);
    const outcome = await open().then(
      async (opened) => {
        db = opened;
        return attempt(ONE, 2, 100_000);
      },
      (error: KimberliteError) => error.code,
    );
    expect(outcome).toBe("disk_full");
    rmSync(join(mount, "ballast"));
    await db.close().catch(() => undefined);
    db = await open();
    expect(await rowsOf(ONE)).toEqual([1]);
    expect(await attempt(ONE, 3, 10)).toBe("done");
  });

  it("read-only: is refused with an error of the family, and serves when it is writable again", async () => {
    expect(await attempt(ONE, 1, 10)).toBe("done");
    await db.close();
    execFileSync("mount", ["-o", "remount,ro", mount]);
    await expect(open()).rejects.toMatchObject({ code: "disk_failed" });
    execFileSync("mount", ["-o", "remount,rw", mount]);
    db = await open();
    expect(await rowsOf(ONE)).toEqual([1]);
    expect(await attempt(ONE, 2, 10)).toBe("done");
  });
});
