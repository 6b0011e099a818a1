/** The data directory's own files: its format, its id, and the lock that one holder at a time has. */
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { systemDisk } from "../host/disk.ts";
import { systemRandomness } from "../host/randomness.ts";
import { lockDirectory, newInstallation, readInstallation, writeInstallation } from "./data-directory.ts";

let root: string;

beforeEach(() => {
  root = fs.mkdtempSync(join(tmpdir(), "kimberlite-directory-"));
});

afterEach(() => fs.rmSync(root, { recursive: true, force: true }));

describe("the installation", () => {
  it("comes back as it was written", async () => {
    expect(readInstallation(systemDisk, root)).toBeUndefined();
    const installation = newInstallation(systemRandomness());
    await writeInstallation(systemDisk, root, installation);
    expect(readInstallation(systemDisk, root)).toEqual(installation);
  });

  it("of a later format, or damaged, is refused", () => {
    const path = join(root, "kimberlite.json");
    fs.writeFileSync(path, '{"format":2,"installation":"0123456789abcdef"}');
    expect(() => readInstallation(systemDisk, root)).toThrow(
      expect.objectContaining({ code: "format_too_new" }),
    );
    for (const text of [
      "",
      "[]",
      "null",
      '{"format":1}',
      '{"format":1.5,"installation":"0123456789abcdef"}',
      '{"format":1,"installation":"XYZ"}',
    ]) {
      fs.writeFileSync(path, text);
      expect(() => readInstallation(systemDisk, root)).toThrow(
        expect.objectContaining({ code: "directory_not_initialised" }),
      );
    }
  });
});

describe("the lock", () => {
  it("has one holder at a time, and holds nothing when it was given back", () => {
    const unlock = lockDirectory(root);
    expect(() => lockDirectory(root)).toThrow(expect.objectContaining({ code: "directory_locked" }));
    unlock();
    lockDirectory(root)();
    expect(fs.readdirSync(root)).toEqual(["lock"]);
  });

  it("cannot be taken where there is no folder", () => {
    expect(() => lockDirectory(join(root, "absent"))).toThrow(
      expect.objectContaining({ code: "disk_failed" }),
    );
  });
});
