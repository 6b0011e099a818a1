import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { masterKeyConformance } from "../../test/conformance/master-key.ts";
import { TenantId } from "../tenant/tenant-id.ts";
import { encodeKeyContext, type KeyContext } from "./master-key.ts";
import { createMasterKeyFile, masterKeyFile } from "./master-key-file.ts";

let folder: string;
let path: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "kimberlite-master-"));
  path = join(folder, "master.key");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

masterKeyConformance("key file", async (name) => {
  const file = join(folder, `${name}.key`);
  if (statSync(file, { throwIfNoEntry: false }) === undefined) createMasterKeyFile(file);
  return masterKeyFile(file);
});

const CONTEXT: KeyContext = { tenant: TenantId(7), purpose: "kek", version: 1 };

function write(text: string, mode = 0o600): void {
  writeFileSync(path, text, { mode });
  chmodSync(path, mode);
}

async function codeOfUse(): Promise<unknown> {
  const error = await masterKeyFile(path)
    .wrap(Buffer.alloc(32, 1), CONTEXT)
    .then(
      () => ({ code: "none" }),
      (reason: unknown) => reason,
    );
  return (error as { code?: unknown }).code;
}

describe("createMasterKeyFile", () => {
  it("writes three lines that its owner alone may read", () => {
    const id = createMasterKeyFile(path);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(readFileSync(path, "utf8")).toMatch(
      new RegExp(`^kimberlite-master-key-v1\nid: ${id}\nkey: [A-Za-z0-9+/]{43}=\n$`),
    );
    expect(masterKeyFile(path).keyId).toBe(id);
  });

  it("refuses to overwrite whatever stands there", () => {
    write("precious");
    expect(() => createMasterKeyFile(path)).toThrow(expect.objectContaining({ code: "master_key_exists" }));
    expect(readFileSync(path, "utf8")).toBe("precious");
  });

  it("makes another key each time", () => {
    expect(createMasterKeyFile(path)).not.toBe(createMasterKeyFile(join(folder, "other.key")));
  });
});

describe("masterKeyFile", () => {
  it("reads nothing before its first use, and once only", async () => {
    const master = masterKeyFile(path);
    expect(master.uri).toBe(`file:${path}`);
    const id = createMasterKeyFile(path);
    expect(master.keyId).toBe(id);
    rmSync(path);
    const wrapped = await master.wrap(Buffer.alloc(32, 1), CONTEXT);
    expect(await master.unwrap(wrapped, CONTEXT)).toEqual(Buffer.alloc(32, 1));
  });

  it("says that the file is missing", async () => {
    expect(await codeOfUse()).toBe("master_key_missing");
    expect(() => masterKeyFile(path).keyId).toThrow(expect.objectContaining({ code: "master_key_missing" }));
  });

  it.each([0o640, 0o604, 0o620, 0o644, 0o666])("refuses a file of mode %o", async (mode) => {
    createMasterKeyFile(path);
    chmodSync(path, mode);
    expect(await codeOfUse()).toBe("master_key_invalid");
  });

  it("takes a file that its owner may only read", async () => {
    createMasterKeyFile(path);
    chmodSync(path, 0o400);
    expect(await codeOfUse()).toBe("none");
  });

  it("refuses a folder", async () => {
    mkdirSync(path, { mode: 0o700 });
    expect(await codeOfUse()).toBe("master_key_invalid");
  });

  it("refuses everything that is not a master key", async () => {
    createMasterKeyFile(path);
    const [format = "", id = "", key = ""] = readFileSync(path, "utf8").split("\n");
    const shortKey = `key: ${Buffer.alloc(16, 7).toString("base64")}`;
    const otherKey = `key: ${Buffer.alloc(32, 7).toString("base64")}`;
    const bad = [
      "",
      [format, id].join("\n"),
      ["kimberlite-master-key-v2", id, key].join("\n"),
      [format, id, shortKey].join("\n"),
      [format, id, otherKey].join("\n"),
      [format, id.replace(/.$/, (digit) => (digit === "0" ? "1" : "0")), key].join("\n"),
      [format, id, key, key].join("\n"),
      "x".repeat(5_000),
    ];
    for (const text of bad) {
      write(text);
      expect(await codeOfUse()).toBe("master_key_invalid");
    }
    write([format, id, key].join("\r\n"));
    expect(await codeOfUse()).toBe("none");
  });
});

describe("encodeKeyContext", () => {
  it("has one form: label, tenant and version, little-endian", () => {
    expect(encodeKeyContext({ tenant: TenantId(258), purpose: "kek", version: 3 }).toString("latin1")).toBe(
      "kimberlite/v1/kek\x02\x01\0\0\0\0\0\0\x03\0\0\0",
    );
  });
});
