/** AWS KMS as master key, through the official SDK, against an emulator that checks signatures and contexts. */
import { request } from "node:http";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { masterKeyConformance } from "../../test/conformance/master-key.ts";
import { AwsKmsEmulator, CREDENTIALS, type EmulatedKey } from "../../test/emulators/aws-kms.ts";
import { Scratch } from "../../test/isolation/scratch.ts";
import { TenantId } from "../tenant/tenant-id.ts";
import { awsKms } from "./aws-kms.ts";
import type { KeyContext, MasterKeyProvider } from "./master-key.ts";

const CONTEXT: KeyContext = { tenant: TenantId(7), purpose: "kek", version: 1 };
const KEY = Buffer.alloc(32, 7);

let emulator: AwsKmsEmulator;
let keys: Record<"first" | "second", EmulatedKey>;
const opened: MasterKeyProvider[] = [];

beforeAll(async () => {
  emulator = await AwsKmsEmulator.start();
  keys = { first: emulator.makeKey(), second: emulator.makeKey() };
});
afterEach(async () => {
  for (const name of Object.keys(emulator.faults))
    delete emulator.faults[name as keyof typeof emulator.faults];
  keys.first.state = "Enabled";
  for (const provider of opened.splice(0)) await provider.close();
});
afterAll(() => emulator[Symbol.asyncDispose]());

async function open(arn = keys.first.arn, timeoutMs = 5_000): Promise<MasterKeyProvider> {
  const provider = await awsKms(emulator.uriOf(arn), { timeoutMs, client: { credentials: CREDENTIALS } });
  opened.push(provider);
  return provider;
}

masterKeyConformance("AWS KMS (emulator)", async (name) =>
  awsKms(emulator.uriOf(keys[name].arn), { client: { credentials: CREDENTIALS } }),
);

describe("AWS KMS", () => {
  it("is told purpose, tenant and version in the encryption context of each call", async () => {
    const master = await open();
    await master.unwrap(await master.wrap(KEY, CONTEXT), CONTEXT);
    const context = { "kimberlite:purpose": "kek", "kimberlite:tenant": "7", "kimberlite:version": "1" };
    const [encrypt, decrypt] = emulator.calls.slice(-2);
    expect(encrypt).toMatchObject({ operation: "Encrypt", body: { EncryptionContext: context } });
    expect(decrypt).toMatchObject({
      operation: "Decrypt",
      body: { EncryptionContext: context, KeyId: keys.first.arn },
    });
  });

  it("is known by its ARN, also when an alias named it", async () => {
    const alias = emulator.alias("kimberlite", keys.first);
    expect((await open(alias)).keyId).toBe(keys.first.arn);
  });

  const refusals: readonly (readonly [string, () => void])[] = [
    ["master_key_disabled", () => Object.assign(keys.first, { state: "Disabled" })],
    ["master_key_pending_deletion", () => Object.assign(keys.first, { state: "PendingDeletion" })],
    ["master_key_denied", () => Object.assign(emulator.faults, { denied: true })],
    ["master_key_throttled", () => Object.assign(emulator.faults, { throttles: 99 })],
    ["master_key_unreachable", () => Object.assign(emulator.faults, { internalErrors: 99 })],
    ["master_key_unreachable", () => Object.assign(emulator.faults, { resets: 99 })],
  ];
  it.each(refusals)("that refuses is %s, when it is used and when it is opened", async (code, refuse) => {
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
  });

  it("that fails a few times is asked again", async () => {
    const master = await open();
    for (const fault of ["internalErrors", "throttles", "resets"] as const) {
      emulator.faults[fault] = 2;
      expect(await master.unwrap(await master.wrap(KEY, CONTEXT), CONTEXT)).toEqual(KEY);
    }
  });

  it("that does not answer is master_key_timeout, within the time", async () => {
    const master = await open(keys.first.arn, 150);
    emulator.faults.delayMs = 2_000;
    const startedMs = performance.now();
    await expect(master.wrap(KEY, CONTEXT)).rejects.toMatchObject({
      code: "master_key_timeout",
      action: "retry",
    });
    expect(performance.now() - startedMs).toBeLessThan(1_500);
  });

  it("that is not there, or is no symmetric key, is told at once", async () => {
    await expect(open(keys.first.arn.replace(/\/.*/, "/0000"))).rejects.toMatchObject({
      code: "master_key_missing",
    });
    await expect(open(emulator.makeKey("RSA_2048").arn)).rejects.toMatchObject({
      code: "master_key_invalid",
    });
    for (const uri of [
      "awskms:///",
      "awskms:///arn:aws:s3:::b",
      "awskms://h/arn:aws:kms:eu:1:key/a?x=1",
      "nonsense",
    ]) {
      await expect(awsKms(uri)).rejects.toMatchObject({ code: "invalid_argument" });
    }
  });

  it("that answers with another plaintext, or with another tenant's, is found out", async () => {
    const master = await open();
    const wrapped = await master.wrap(KEY, CONTEXT);
    let others: Buffer | undefined;
    emulator.faults.plaintext = (right) => {
      others = Buffer.from(right);
      return right;
    };
    const other = { ...CONTEXT, tenant: TenantId(8) };
    await master.unwrap(await master.wrap(Buffer.alloc(32, 8), other), other);
    const lies: ((right: Buffer) => Buffer)[] = [
      () => others as Buffer,
      () => Buffer.alloc(48),
      () => Buffer.alloc(32, 7),
      () => Buffer.alloc(0),
    ];
    for (const lie of lies) {
      emulator.faults.plaintext = lie;
      await expect(master.unwrap(wrapped, CONTEXT)).rejects.toMatchObject({ code: "master_key_wrong" });
    }
  });

  it("is refused without the right credentials, and the secret is in no error", async () => {
    const credentials = { ...CREDENTIALS, secretAccessKey: "not-the-secret" };
    const error: unknown = await awsKms(emulator.uriOf(keys.first.arn), { client: { credentials } }).catch(
      (reason: unknown) => reason,
    );
    expect(error).toMatchObject({ code: "master_key_denied" });
    expect(JSON.stringify(error) + String(error)).not.toContain("not-the-secret");
  });

  it("opens a database; out of reach it stops no open tenant, and opening another may be tried again", async () => {
    await using scratch = new Scratch();
    const [A, B] = [TenantId(1), TenantId(2)];
    await scratch.with(
      async (db) => {
        for (const id of [A, B]) {
          await db.createTenant({ id, name: "t" });
          await db.execute(id, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
        }
      },
      { masterKey: await open() },
    );
    const db = await scratch.open({ masterKey: await open(keys.first.arn, 500) });
    await db.insert(A, "t", { id: 1 });
    emulator.faults.resets = 1_000;
    await db.insert(A, "t", { id: 2 });
    await expect(db.query(B, "SELECT * FROM t")).rejects.toMatchObject({
      code: "master_key_unreachable",
      action: "retry",
    });
    expect(await db.query(A, "SELECT count(*) AS n FROM t")).toEqual([{ n: 2 }]);
    delete emulator.faults.resets;
    expect(await db.query(B, "SELECT * FROM t")).toEqual([]);
    await db.close();
    const denied = await open();
    emulator.faults.denied = true;
    await expect(scratch.open({ masterKey: denied })).rejects.toMatchObject({
      code: "master_key_denied",
    });
  });
});

describe("the emulator", () => {
  it("refuses a request whose body is not what was signed", async () => {
    const status = await new Promise((resolve, reject) => {
      const sent = request(
        `http://${emulator.host}/`,
        {
          method: "POST",
          headers: {
            "x-amz-target": "TrentService.DescribeKey",
            "x-amz-date": new Date().toISOString().replace(/[-:]|\.\d{3}/g, ""),
            authorization: `AWS4-HMAC-SHA256 Credential=${CREDENTIALS.accessKeyId}/20250101/eu-west-1/kms/aws4_request, SignedHeaders=host;x-amz-date, Signature=${"0".repeat(64)}`,
          },
        },
        (response) => resolve(response.statusCode),
      );
      sent.on("error", reject);
      sent.end("{}");
    });
    expect(status).toBe(403);
  });
});
