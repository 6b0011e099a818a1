/** An HSM as master key, on a real SoftHSM2 with a token of the test's own. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { afterAll, afterEach, describe, expect, it } from "vitest";
import { masterKeyConformance } from "../../test/conformance/master-key.ts";
import { Scratch } from "../../test/isolation/scratch.ts";
import { TenantId } from "../tenant/tenant-id.ts";
import type { KeyContext, MasterKeyProvider } from "./master-key.ts";
import { createPkcs11Key, pkcs11 } from "./pkcs11.ts";
import { acquireModule, releaseModule } from "./pkcs11-module.ts";
import { parsePkcs11Uri, withoutPin } from "./pkcs11-uri.ts";

const MODULE = [
  "/usr/lib/softhsm/libsofthsm2.so",
  "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
  "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
].find(existsSync);
const PIN = "84726351";
const CONTEXT: KeyContext = { tenant: TenantId(7), purpose: "kek", version: 1 };
const KEY = Buffer.alloc(32, 7);

const folder = mkdtempSync(join(tmpdir(), "kimberlite-hsm-"));
const tokens = join(folder, "tokens");
mkdirSync(tokens);
writeFileSync(join(folder, "softhsm2.conf"), `directories.tokendir = ${tokens}\nlog.level = ERROR\n`);
process.env["SOFTHSM2_CONF"] = join(folder, "softhsm2.conf");

function softhsm(...args: readonly string[]): void {
  execFileSync("softhsm2-util", [...args], { stdio: "pipe" });
}

function makeToken(label: string): void {
  softhsm("--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "12345678");
}

if (MODULE === undefined) throw new Error("SoftHSM2 is not installed (apt-get install -y softhsm2)");
for (const label of ["kimberlite", "locked", "moved"]) makeToken(label);

const uriOf = (object: string, token = "kimberlite"): string =>
  `pkcs11:token=${token};object=${object}?module-path=${MODULE}`;
const made = new Set<string>();
const opened: MasterKeyProvider[] = [];

async function open(object: string, token = "kimberlite"): Promise<MasterKeyProvider> {
  const uri = uriOf(object, token);
  if (!made.has(uri)) await createPkcs11Key(uri, { pin: PIN });
  made.add(uri);
  const provider = await pkcs11(uri, { pin: PIN });
  opened.push(provider);
  return provider;
}

afterEach(async () => {
  for (const provider of opened.splice(0)) await provider.close();
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

masterKeyConformance("PKCS#11 (SoftHSM2)", open);

describe("PKCS#11", () => {
  it("sends a wrong PIN once, however often and by whomever it is opened", async () => {
    const uri = uriOf("first", "locked");
    await open("first", "locked");
    const wrong = { pin: "11111111" };
    // Beside one that is logged in, and the only one.
    for (let round = 0; round < 2; round += 1) {
      const outcomes = await Promise.allSettled(Array.from({ length: 64 }, () => pkcs11(uri, wrong)));
      for (const outcome of outcomes) {
        expect(outcome).toMatchObject({ reason: { code: "master_key_login_failed" } });
      }
      for (const provider of opened.splice(0)) await provider.close();
    }
    const error: unknown = await pkcs11(uri, wrong).catch((reason: unknown) => reason);
    expect(String(error)).toContain("not tried again");
    expect(String(error)).not.toContain("11111111");
    const right = await open("first", "locked");
    expect(await right.unwrap(await right.wrap(KEY, CONTEXT), CONTEXT)).toEqual(KEY);
    await expect(pkcs11(uri, { pin: "" })).rejects.toMatchObject({ code: "master_key_login_failed" });
  });

  it("opens another session when its own was closed behind it", async () => {
    const master = await open("first");
    const wrapped = await master.wrap(KEY, CONTEXT);
    const module = await acquireModule(MODULE);
    for (const slot of module.library.C_GetSlotList(true)) module.library.C_CloseAllSessions(slot);
    releaseModule(MODULE);
    expect(await master.unwrap(wrapped, CONTEXT)).toEqual(KEY);
  });

  it("refuses a key that could be extracted, one of another size, and several of one name", async () => {
    await open("first");
    const { library, names } = await acquireModule(MODULE);
    const slot = library
      .C_GetSlotList(true)
      .find((each) => library.C_GetTokenInfo(each).label.trim() === "kimberlite");
    const session = library.C_OpenSession(slot as Buffer, names.CKF_SERIAL_SESSION | names.CKF_RW_SESSION);
    const make = (label: string, bytes: number, extractable: boolean): void => {
      library.C_GenerateKey(session, { mechanism: names.CKM_AES_KEY_GEN }, [
        { type: names.CKA_CLASS, value: names.CKO_SECRET_KEY },
        { type: names.CKA_KEY_TYPE, value: names.CKK_AES },
        { type: names.CKA_VALUE_LEN, value: bytes },
        { type: names.CKA_LABEL, value: label },
        { type: names.CKA_TOKEN, value: true },
        { type: names.CKA_PRIVATE, value: true },
        { type: names.CKA_SENSITIVE, value: !extractable },
        { type: names.CKA_EXTRACTABLE, value: extractable },
        { type: names.CKA_ENCRYPT, value: true },
        { type: names.CKA_DECRYPT, value: true },
      ]);
    };
    make("loose", 32, true);
    make("short", 16, false);
    make("twice", 32, false);
    make("twice", 32, false);
    library.C_CloseSession(session);
    releaseModule(MODULE);
    for (const object of ["loose", "short", "twice"]) {
      await expect(pkcs11(uriOf(object), { pin: PIN })).rejects.toMatchObject({ code: "master_key_invalid" });
    }
    await expect(createPkcs11Key(uriOf("first"), { pin: PIN })).rejects.toMatchObject({
      code: "master_key_exists",
    });
  });

  it("says what is missing: the library, the token, the key", async () => {
    await expect(pkcs11(uriOf("absent"), { pin: PIN })).rejects.toMatchObject({ code: "master_key_missing" });
    await expect(pkcs11(uriOf("first", "absent"), { pin: PIN })).rejects.toMatchObject({
      code: "master_key_missing",
    });
    const elsewhere = "pkcs11:token=t;object=o?module-path=/nowhere/lib.so";
    await expect(pkcs11(elsewhere, { pin: PIN })).rejects.toMatchObject({ code: "master_key_missing" });
  });

  it("opens a database, and the same one again", async () => {
    await using scratch = new Scratch();
    const A = TenantId(1);
    await scratch.with(
      async (db) => {
        await db.createTenant({ id: A, name: "t" });
        await db.execute(A, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
        await db.rotateKek(A);
      },
      { masterKey: await open("first") },
    );
    const again = await scratch.open({ masterKey: await open("first") });
    expect(await again.query(A, "SELECT * FROM t")).toEqual([]);
    await expect(scratch.open({ masterKey: await open("second") })).rejects.toMatchObject({
      code: "master_key_wrong",
    });
  });
});

describe("PKCS#11 URIs", () => {
  it("are read as RFC 7512 writes them", () => {
    const uri =
      "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;serial=;object=my-key;type=secret-key;id=%69%95%3E%5C%F4%BD%EC%91?module-path=/lib/a.so&pin-source=file:/etc/token_pin";
    expect(parsePkcs11Uri(uri)).toMatchObject({
      token: "The Software PKCS#11 Softtoken",
      object: "my-key",
      id: Buffer.from("69953e5cf4bdec91", "hex"),
      modulePath: "/lib/a.so",
      pinSource: "file:/etc/token_pin",
    });
  });

  it.each([
    "pkcs11:",
    "pkcs11:token=t?module-path=/l",
    "pkcs11:object=o?module-path=/l",
    "pkcs11:token=t;object=o",
    "pkcs11:token=t;token=u;object=o?module-path=/l",
    "pkcs11:token=t;object=o;x-odd=1?module-path=/l",
    "pkcs11:token=t;object=o;type=public?module-path=/l",
    "pkcs11:token=t;object=%zz?module-path=/l",
    "pkcs11:token=t;object=o?module-path=l",
    "file:/x",
  ])("refuse %s", (uri) => {
    expect(() => parsePkcs11Uri(uri)).toThrow(expect.objectContaining({ code: "invalid_argument" }));
  });

  it("give any bytes back, and lose their PIN before they are shown", () => {
    const encode = (bytes: Uint8Array): string =>
      [...bytes].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");
    const check = (id: Uint8Array, pin: Uint8Array): void => {
      const uri = `pkcs11:token=t;id=${encode(id)}?module-path=/l&pin-value=${encode(pin)}`;
      expect(parsePkcs11Uri(uri).id).toEqual(Buffer.from(id));
      expect(withoutPin(uri)).toBe(`pkcs11:token=t;id=${encode(id)}?module-path=/l`);
    };
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 20 }), fc.uint8Array({ minLength: 1, maxLength: 12 }), check),
    );
  });
});
