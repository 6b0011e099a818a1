/**
 * The process that is killed while operators work: it makes tenants, exports, imports, backs up, restores, re-encrypts,
 * trims, rotates and erases, several things at once, and says on stdout what is acknowledged. `made ID` for a tenant with
 * twelve rows, `erased ID`.
 */
import { writeSync } from "node:fs";
import { join } from "node:path";
import { Kimberlite, masterKeyFile, TenantId } from "../../src/index.ts";

const [, , folder = "", life = "0"] = process.argv;
const WHY = { reason: "its life", actor: "victim" };

const say = (line: string): void => void writeSync(1, `${line}\n`);
const key = (name: string): ReturnType<typeof masterKeyFile> => masterKeyFile(join(folder, name));

async function fill(db: Kimberlite, id: TenantId): Promise<void> {
  await db.createTenant({ id, name: "t" });
  await db.transaction(id, [
    "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)",
    ...Array.from({ length: 12 }, (_, n) => `INSERT INTO t VALUES (${n}, '${"x".repeat(500)}')`),
  ]);
}

async function work(db: Kimberlite, id: (n: number) => TenantId): Promise<void> {
  const [a, doomed, copy, restored] = [id(1), id(2), id(3), id(4)] as const;
  for (const one of [a, doomed]) {
    await fill(db, one);
    say(`made ${one}`);
  }
  const dir = join(folder, `export-${a}`);
  const place = { to: `file:${join(folder, "backup")}`, keysTo: `file:${join(folder, "kept")}` };
  await Promise.all([db.exportTenant(a, dir), db.rotateKek(a), db.backup(place)]);
  await Promise.all([
    db.importTenant(dir, { key: db.verifierKey(), as: copy }).then(() => say(`made ${copy}`)),
    db.restoreTenant({ from: place.to, tenant: a, as: restored }).then(() => say(`made ${restored}`)),
    db.rotateMasterKey(key(Number(life) % 2 === 0 ? "b.key" : "a.key")),
  ]);
  await Promise.all([
    db.reencryptTenant(a, { destroyFormerKeys: true }),
    db.trimTenant(copy, WHY),
    db.eraseTenant(doomed, WHY).then(() => say(`erased ${doomed}`)),
  ]);
}

const db = await Kimberlite.open({
  dataDir: join(folder, "data"),
  masterKey: key("a.key"),
  otherMasterKeys: [key("b.key")],
  logSegmentBytes: 8 * 1024,
  journalFileBytes: 64 * 1024,
});
say("open");
for (let round = 1; ; round += 1) {
  const base = 100 * round + 10_000 * (Number(life) + 1);
  await work(db, (n) => TenantId(base + n));
}
