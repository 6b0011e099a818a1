/** A stream is reached through its own tenant alone. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { createMasterKeyFile, masterKeyFile } from "../keys/master-key-file.ts";
import { Kimberlite } from "../kimberlite.ts";
import { StreamId, TenantId } from "../tenant/tenant-id.ts";

it("another tenant's stream is stream_not_found, also under the number of one's own", async () => {
  const folder = mkdtempSync(join(tmpdir(), "kimberlite-stream-"));
  createMasterKeyFile(join(folder, "master.key"));
  const masterKey = masterKeyFile(join(folder, "master.key"));
  const db = await Kimberlite.open({ dataDir: join(folder, "data"), masterKey });
  const [owner, stranger] = [TenantId(1), TenantId(2)];
  for (const id of [owner, stranger]) await db.createTenant({ id, name: `tenant ${id}` });
  const theirs = await db.createStream(owner, "vitals");
  const own = await db.createStream(stranger, "vitals");
  await db.append(owner, theirs, ["theirs"]);
  const notFound = { code: "stream_not_found" };
  expect(own.local).toBe(theirs.local);
  await expect(db.append(stranger, theirs, ["x"])).rejects.toMatchObject(notFound);
  await expect(db.read(stranger, theirs).next()).rejects.toMatchObject(notFound);
  const { signal } = new AbortController();
  await expect(db.subscribe(stranger, theirs, { signal }).next()).rejects.toMatchObject(notFound);
  expect(await db.read(stranger, StreamId(stranger, theirs.local)).next()).toMatchObject({ done: true });
  await db.close();
  rmSync(folder, { recursive: true });
});
