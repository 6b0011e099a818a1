/** Vault's Transit engine as master key, against an emulator that checks tokens, namespaces and associated data. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { masterKeyConformance } from "../../test/conformance/master-key.ts";
import { NAMESPACE, VaultEmulator } from "../../test/emulators/vault.ts";
import { filesBelow, Scratch } from "../../test/isolation/scratch.ts";
import { TenantId } from "../tenant/tenant-id.ts";
import type { KeyContext, MasterKeyProvider } from "./master-key.ts";
import type { VaultOptions } from "./vault-client.ts";
import { vaultTransit } from "./vault-transit.ts";

const CONTEXT: KeyContext = { tenant: TenantId(7), purpose: "kek", version: 1 };
const KEY = Buffer.alloc(32, 7);

let vault: VaultEmulator;
let token: string;
const opened: MasterKeyProvider[] = [];

beforeAll(async () => {
  vault = await VaultEmulator.start();
  for (const name of ["first", "second"]) vault.makeKey(name);
});
afterEach(async () => {
  for (const name of Object.keys(vault.faults)) delete vault.faults[name as keyof typeof vault.faults];
  for (const provider of opened.splice(0)) await provider.close();
});
afterAll(() => vault[Symbol.asyncDispose]());

async function open(name = "first", options: VaultOptions = {}, parameters = ""): Promise<MasterKeyProvider> {
  token = vault.makeToken();
  const credentials = options.tokenFile === undefined && options.appRole === undefined ? { token } : {};
  const provider = await vaultTransit(vault.uriOf(name, parameters), { ...credentials, ...options });
  opened.push(provider);
  return provider;
}

masterKeyConformance("Vault Transit (emulator)", async (name) =>
  vaultTransit(vault.uriOf(name), { token: vault.makeToken() }),
);

describe("Vault Transit", () => {
  const refusals: readonly (readonly [string, string, () => void])[] = [
    ["denied", "master_key_denied", () => Object.assign(vault.faults, { denied: true })],
    ["sealed", "master_key_unreachable", () => Object.assign(vault.faults, { sealed: true })],
    ["on standby", "master_key_unreachable", () => Object.assign(vault.faults, { standby: true })],
    ["failing", "master_key_unreachable", () => Object.assign(vault.faults, { internalErrors: 99 })],
    ["gone", "master_key_unreachable", () => Object.assign(vault.faults, { resets: 99 })],
    ["limited", "master_key_throttled", () => Object.assign(vault.faults, { throttles: 99 })],
  ];
  it.each(refusals)(
    "that is %s is %s, when it is used and when it is opened",
    async (_name, code, refuse) => {
      const master = await open();
      const wrapped = await master.wrap(KEY, CONTEXT);
      refuse();
      for (const use of [
        () => master.unwrap(wrapped, CONTEXT),
        () => master.wrap(KEY, CONTEXT),
        () => open(),
      ]) {
        await expect(use()).rejects.toMatchObject({ code });
      }
    },
  );

  it("that is sealed says so, and serves again when it is not", async () => {
    const master = await open();
    const wrapped = await master.wrap(KEY, CONTEXT);
    vault.faults.sealed = true;
    for (const use of [
      () => master.wrap(KEY, CONTEXT),
      () => master.unwrap(wrapped, CONTEXT),
      () => open(),
    ]) {
      const message = "Vault is sealed: unseal it";
      await expect(use()).rejects.toMatchObject({ code: "master_key_unreachable", action: "retry", message });
    }
    delete vault.faults.sealed;
    expect(await master.unwrap(wrapped, CONTEXT)).toEqual(KEY);
  });

  it("that fails a few times is asked again", async () => {
    const master = await open();
    for (const fault of ["internalErrors", "throttles", "resets"] as const) {
      vault.faults[fault] = 2;
      expect(await master.unwrap(await master.wrap(KEY, CONTEXT), CONTEXT)).toEqual(KEY);
    }
  });

  it("that does not answer is master_key_timeout, within the time", async () => {
    const master = await open("first", { timeoutMs: 150 });
    vault.faults.delayMs = 2_000;
    const startedMs = performance.now();
    await expect(master.wrap(KEY, CONTEXT)).rejects.toMatchObject({ code: "master_key_timeout" });
    expect(performance.now() - startedMs).toBeLessThan(1_500);
  });

  it("keeps its token alive, reads another from its file, or logs in again", async () => {
    const short = vault.makeToken(0.6);
    const renewed = await vaultTransit(vault.uriOf("first"), { token: short });
    opened.push(renewed);
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    expect(await renewed.unwrap(await renewed.wrap(KEY, CONTEXT), CONTEXT)).toEqual(KEY);
    const folder = mkdtempSync(join(tmpdir(), "kimberlite-vault-"));
    const tokenFile = join(folder, "token");
    const before = vault.makeToken();
    writeFileSync(tokenFile, `${before}\n`);
    const filed = await open("first", { tokenFile });
    writeFileSync(tokenFile, vault.makeToken());
    vault.revoke(before);
    expect(await filed.unwrap(await filed.wrap(KEY, CONTEXT), CONTEXT)).toEqual(KEY);
    rmSync(folder, { recursive: true });
    const roled = await open("first", { appRole: vault.appRole });
    expect(await roled.unwrap(await roled.wrap(KEY, CONTEXT), CONTEXT)).toEqual(KEY);
    const wrongRole = { ...vault.appRole, secretId: "wrong" };
    await expect(open("first", { appRole: wrongRole })).rejects.toMatchObject({ code: "master_key_denied" });
    await expect(vaultTransit(vault.uriOf("first"), { token: "hvs.wrong" })).rejects.toMatchObject({
      code: "master_key_denied",
    });
  });

  it("in another namespace is another key", async () => {
    vault.makeKey("first", { namespace: NAMESPACE });
    const inside = await open("first", {}, `&namespace=${NAMESPACE}`);
    const outside = await open("first");
    expect(inside.keyId).not.toBe(outside.keyId);
    const wrapped = await inside.wrap(KEY, CONTEXT);
    expect(await inside.unwrap(wrapped, CONTEXT)).toEqual(KEY);
    await expect(outside.unwrap(wrapped, CONTEXT)).rejects.toMatchObject({ code: "master_key_wrong" });
    vi.stubEnv("VAULT_NAMESPACE", NAMESPACE);
    try {
      const named = await open("first");
      expect(named.keyId).toBe(inside.keyId);
      expect(await named.unwrap(wrapped, CONTEXT)).toEqual(KEY);
    } finally {
      vi.unstubAllEnvs();
    }
  });

  it("opens what earlier versions of the key wrapped", async () => {
    const master = await open();
    const wrapped = await master.wrap(KEY, CONTEXT);
    vault.rotateKey("first");
    expect(await master.unwrap(wrapped, CONTEXT)).toEqual(KEY);
    const newer = Buffer.from(await master.wrap(KEY, CONTEXT)).toString("latin1", 1);
    expect(newer).toMatch(/^vault:v2:/);
  });

  it("of another kind, or that is not there, is told at once", async () => {
    vault.makeKey("rsa", { type: "rsa-2048" });
    vault.makeKey("derived", { derived: true });
    for (const name of ["rsa", "derived"]) {
      await expect(open(name)).rejects.toMatchObject({ code: "master_key_invalid" });
    }
    await expect(open("absent")).rejects.toMatchObject({ code: "master_key_missing" });
    for (const uri of [
      "vault://",
      "vault://h/transit/NAME",
      "vault://h/t/keys/n?verify=false",
      "http://h/t/keys/n",
    ]) {
      await expect(vaultTransit(uri, { token: "t" })).rejects.toMatchObject({ code: "invalid_argument" });
    }
  });

  it("that answers with another plaintext, or with another tenant's, is found out", async () => {
    const master = await open();
    const wrapped = await master.wrap(KEY, CONTEXT);
    let others = Buffer.alloc(0);
    vault.faults.plaintext = (right) => {
      others = Buffer.from(right);
      return right;
    };
    const other = { ...CONTEXT, tenant: TenantId(8) };
    await master.unwrap(await master.wrap(Buffer.alloc(32, 8), other), other);
    for (const lie of [others, Buffer.alloc(48), Buffer.alloc(32, 7), Buffer.alloc(0)]) {
      vault.faults.plaintext = () => lie;
      await expect(master.unwrap(wrapped, CONTEXT)).rejects.toMatchObject({ code: "master_key_wrong" });
    }
  });

  it("opens a database; its token is in no error and in no file", async () => {
    await using scratch = new Scratch();
    const [A, B] = [TenantId(1), TenantId(2)];
    const masterKey = await open();
    await scratch.with(
      async (db) => {
        for (const id of [A, B]) {
          await db.createTenant({ id, name: "t" });
          await db.execute(id, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
        }
      },
      { masterKey },
    );
    const again = await open("first", { timeoutMs: 400 });
    const db = await scratch.open({ masterKey: again });
    await db.insert(A, "t", { id: 1 });
    vault.faults.sealed = true;
    await db.insert(A, "t", { id: 2 });
    const error: unknown = await db.query(B, "SELECT * FROM t").catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: "master_key_unreachable", action: "retry" });
    delete vault.faults.sealed;
    expect(await db.query(B, "SELECT * FROM t")).toEqual([]);
    expect(inspect(error, { depth: 9 })).not.toContain(token);
    expect(masterKey.uri + masterKey.keyId).not.toContain(token);
    await db.close();
    const { readFileSync } = await import("node:fs");
    for (const path of filesBelow(scratch.folder)) expect(readFileSync(path).includes(token)).toBe(false);
  });
});
