/** What is shared by a tenant that holds its own master key, while it withdraws the key, and after. */
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { kimberliteError } from "../../src/errors.ts";
import { createMasterKeyFile, Duration, type Kimberlite, Permissions } from "../../src/index.ts";
import type { MasterKeyProvider } from "../../src/keys/master-key.ts";
import { openMasterKey } from "../../src/keys/master-key-uri.ts";
import { Scratch } from "../isolation/scratch.ts";
import { codeOf, OWNER, READER } from "./hospitals.ts";

const scratch = new Scratch();
let withdrawn = false;
let db: Kimberlite;

/** A key file that stands for the owner's own KMS. */
async function openSwitched(uri: string): Promise<MasterKeyProvider> {
  const inner = await openMasterKey(uri);
  const answer = (): void => {
    if (withdrawn) throw kimberliteError("master_key_denied", "withdrawn");
  };
  return {
    uri: `own:${uri}`,
    keyId: inner.keyId,
    wrap: async (key, context) => {
      answer();
      return inner.wrap(key, context);
    },
    unwrap: async (wrapped, context) => {
      answer();
      return inner.unwrap(wrapped, context);
    },
    close: () => inner.close(),
  };
}

beforeAll(async () => {
  const path = join(scratch.folder, "own.key");
  createMasterKeyFile(path);
  db = await scratch.open({ openMasterKey: openSwitched, keyCacheTime: Duration.milliseconds(30) });
  await db.createTenant({ id: OWNER, name: "owner", masterKey: `file:${path}` });
  await db.createTenant({ id: READER, name: "reader" });
  await db.execute(OWNER, "CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT)");
  await db.insert(
    OWNER,
    "t",
    Array.from({ length: 20 }, (_, id) => ({ id, s: "x" })),
  );
});

afterAll(() => scratch[Symbol.asyncDispose]());

it("is not read while the key is withdrawn, by any way, and is read again when it is back", async () => {
  const [table] = (await db.streams(OWNER)).filter(({ name }) => name === "t");
  const stream = table?.id;
  if (stream === undefined) throw new Error("there is no table");
  const grant = await db.grantAccess({
    fromTenant: OWNER,
    toTenant: READER,
    stream,
    permissions: Permissions.Read,
    where: "id < 10",
    purpose: "referral",
  });
  const count = (): Promise<unknown> => codeOf(db.queryShared(READER, stream, "SELECT count(*) AS n FROM t"));
  const session = db.sharedSession(READER, grant.id);
  const rows = db.iterateShared(READER, stream, "SELECT id FROM t");
  const pages = session.batchPages([{ statement: { sql: "SELECT id FROM t" } }]);
  expect(await count()).toEqual([{ n: 10 }]);
  expect((await rows.next()).value).toEqual({ id: 0 });
  expect((await pages.next()).value).toMatchObject({ kind: "begin" });
  withdrawn = true;
  await expect.poll(count).toBe("grant_unavailable");
  // What was found before is not handed out any more either.
  expect(await codeOf(rows.next())).toBe("grant_unavailable");
  expect((await pages.next()).value).toMatchObject({ kind: "error", error: { code: "grant_unavailable" } });
  expect(await codeOf(session.run({ sql: "SELECT id FROM t" }))).toBe("grant_unavailable");
  expect(await codeOf(session.describe("SELECT id FROM t"))).toBe("grant_unavailable");
  withdrawn = false;
  await expect.poll(count).toEqual([{ n: 10 }]);
  const refusals = await Array.fromAsync(db.audit(READER, { action: "grant.use" }));
  expect(refusals.some(({ code, outcome }) => code === "grant_unavailable" && outcome === "refused")).toBe(
    true,
  );
});
