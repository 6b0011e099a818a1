import {
  chmodSync,
  linkSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { diskError, systemDisk } from "./disk.ts";
import { type Failpoint, onFailpoint } from "./failpoint.ts";

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "kimberlite-disk-"));
  path = join(folder, "file");
});
afterEach(() => {
  onFailpoint(undefined);
  rmSync(folder, { recursive: true, force: true });
});

const STEPS: readonly Failpoint[] = [
  "replace-before-link",
  "replace-before-rename",
  "replace-after-rename",
  "replace-after-overwrite",
];

class Interrupted extends Error {}

async function replaceInterrupted(step: Failpoint, bytes: string): Promise<void> {
  onFailpoint((name) => {
    if (name === step) throw new Interrupted();
  });
  await expect(systemDisk.replaceFile(path, Buffer.from(bytes))).rejects.toBeInstanceOf(Interrupted);
  onFailpoint(undefined);
}

describe("making a folder", () => {
  it("makes those above it, and leaves one that is there", () => {
    const deep = join(folder, "a", "b", "c");
    systemDisk.makeFolder(deep);
    systemDisk.makeFolder(deep);
    expect(statSync(deep).mode & 0o777).toBe(0o700);
  });

  it("is refused below a file, and where no folder can be made", () => {
    writeFileSync(path, "");
    expect(() => systemDisk.makeFolder(path)).toThrow(expect.objectContaining({ code: "disk_failed" }));
    expect(() => systemDisk.makeFolder(join(path, "x"))).toThrow("ENOTDIR");
    if (process.platform === "linux") expect(() => systemDisk.makeFolder("/proc/x/y")).toThrow("ENOENT");
  });
});

describe("replacing a file", () => {
  it("leaves the new bytes under its name, nothing beside, and zeros where the old ones were", async () => {
    await systemDisk.replaceFile(path, Buffer.from("old secret"));
    const witness = systemDisk.open(path, "read");
    await systemDisk.replaceFile(path, Buffer.from("new"));
    expect(readFileSync(path, "utf8")).toBe("new");
    expect(readdirSync(folder)).toEqual(["file"]);
    expect(witness.read(0, 100)).toEqual(Buffer.alloc("old secret".length));
    witness.close();
  });

  it.each(STEPS)(
    "interrupted at %s leaves one of the two whole, and names for all the rest",
    async (step) => {
      writeFileSync(path, "old secret");
      const witness = systemDisk.open(path, "read");
      await replaceInterrupted(step, "new secret");
      const inForce = readFileSync(path, "utf8");
      expect(inForce).toBe(STEPS.indexOf(step) < 2 ? "old secret" : "new secret");
      const beside = readdirSync(folder).filter((name) => name !== "file");
      const unfinished = beside.map((name) => systemDisk.open(join(folder, name), "read"));
      await systemDisk.clearReplaced(path);
      expect(readFileSync(path, "utf8")).toBe(inForce);
      expect(readdirSync(folder)).toEqual(["file"]);
      const zeros = Buffer.alloc("old secret".length);
      if (inForce === "new secret") expect(witness.read(0, 100)).toEqual(zeros);
      else expect(unfinished[0]?.read(0, 100)).toEqual(zeros);
      for (const file of [...unfinished, witness]) file.close();
    },
  );

  it.each(STEPS)("interrupted at %s is taken up by the next replacement", async (step) => {
    writeFileSync(path, "old");
    await replaceInterrupted(step, "half way");
    await systemDisk.replaceFile(path, Buffer.from("third"));
    expect(readFileSync(path, "utf8")).toBe("third");
    expect(readdirSync(folder)).toEqual(["file"]);
  });

  it("does not destroy a file in force that has the replaced one's name too", async () => {
    writeFileSync(path, "in force");
    linkSync(path, `${path}.old`);
    await systemDisk.clearReplaced(path);
    expect(readFileSync(path, "utf8")).toBe("in force");
    expect(readdirSync(folder)).toEqual(["file"]);
  });
});

describe("an error of the system", () => {
  it.each([
    ["ENOSPC", "disk_full"],
    ["EDQUOT", "disk_full"],
    ["EIO", "disk_failed"],
    ["EROFS", "disk_failed"],
  ])("%s is %s", (errno, code) => {
    expect(diskError(Object.assign(new Error("x"), { code: errno }))).toMatchObject({
      code,
      detail: { errno },
    });
  });

  it("is of the family wherever it comes from, and absence is no error", async () => {
    const failed = expect.objectContaining({ code: "disk_failed" });
    expect(() => systemDisk.open(path, "read")).toThrow(failed);
    expect(() => systemDisk.readFile(folder)).toThrow(failed);
    expect(() => systemDisk.syncFolder(path)).toThrow(failed);
    expect(() => systemDisk.list(systemDisk.open(path, "create") && path)).toThrow(failed);
    rmSync(path);
    expect(systemDisk.readFile(path)).toBeUndefined();
    expect(systemDisk.list(path)).toEqual([]);
    await systemDisk.destroyFile(path);
    await systemDisk.clearReplaced(path);
    chmodSync(folder, 0o700);
    await expect(systemDisk.replaceFile(join(folder, "no", "such"), Buffer.alloc(1))).rejects.toEqual(failed);
  });
});

describe("an open file", () => {
  it("reads what is there and no more, and writes at any place", async () => {
    const file = systemDisk.open(path, "create");
    file.write(Buffer.from("abc"), 4);
    await file.writeDurably(Buffer.from("xy"), 0);
    await file.sync();
    file.syncNow();
    expect(file.size()).toBe(7);
    expect(file.read(0, 100)).toEqual(Buffer.from("xy\0\0abc"));
    expect(file.read(7, 10)).toHaveLength(0);
    file.truncate(2);
    expect(file.read(0, 100).toString()).toBe("xy");
    file.close();
    const durable = systemDisk.open(path, "durable");
    await durable.writeDurably(Buffer.alloc(300_000, 1), 2);
    expect(durable.size()).toBe(300_002);
    durable.close();
  });
});
