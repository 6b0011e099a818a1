/**
 * Certificates of erasures in a place of backups: one that the installation did not sign stops a restore and is named, it
 * is neither believed nor passed over; the next backup puts the true one back.
 */
import * as fs from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { masterKeyFile, restoreNode, TenantId } from "../../src/index.ts";
import { Scratch } from "../isolation/scratch.ts";

const A = TenantId(1);
const B = TenantId(2);

it("a forged tombstone is named, and revives and buries nobody", async () => {
  await using scratch = new Scratch();
  const [data, keys] = [join(scratch.folder, "data-copy"), join(scratch.folder, "keys-copy")];
  const places = { to: `file:${data}`, keysTo: `file:${keys}` };
  const db = await scratch.open();
  for (const id of [A, B]) {
    await db.createTenant({ id, name: "t" });
    await db.execute(id, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
  }
  await db.backup(places);
  const { note } = await db.eraseTenant(A, { reason: "they left" });
  await db.backup(places);
  const attempt = (): Promise<unknown> =>
    restoreNode({
      from: places.to,
      keysFrom: places.keysTo,
      dataDir: join(scratch.folder, "restored"),
      masterKey: masterKeyFile(scratch.masterKeyPath),
    });
  // Another tenant's certificate for B, and what nobody signed for A.
  const forged = [
    { path: join(data, "erased", "2.txt"), text: note, tenant: B, file: "erased/2.txt" },
    {
      path: join(data, "erased", "1.txt"),
      text: note.replace("they left", "they lied"),
      tenant: A,
      file: "erased/1.txt",
    },
    { path: join(data, "erased", "1.txt"), text: "nonsense", tenant: A, file: "erased/1.txt" },
  ];
  for (const { path, text, tenant, file } of forged) {
    const before = fs.existsSync(path) ? fs.readFileSync(path) : undefined;
    fs.writeFileSync(path, text);
    const named = { code: expect.stringMatching(/^(signature|certificate)_invalid$/), detail: { file } };
    await expect(attempt()).rejects.toMatchObject(named);
    if (tenant === B)
      await expect(db.restoreTenant({ from: places.to, tenant, as: TenantId(7) })).rejects.toMatchObject(
        named,
      );
    if (before === undefined) fs.rmSync(path);
  }
  // The next backup does not trust what stands there.
  await db.backup(places);
  expect(fs.readFileSync(join(data, "erased", "1.txt"), "utf8")).toBe(note);
  await db.close();
  await attempt();
  await using restored = await scratch.open({ dataDir: join(scratch.folder, "restored") });
  expect((await restored.listTenants()).map(({ id, state }) => [id, state])).toEqual([
    [A, "erased"],
    [B, "active"],
  ]);
});
