import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { type Disk, systemDisk } from "../host/disk.ts";
import { createMasterKeyFile, masterKeyFile } from "../keys/master-key-file.ts";
import { Kimberlite } from "../kimberlite.ts";
import { TenantId } from "../tenant/tenant-id.ts";

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "kimberlite-open-"));
  createMasterKeyFile(join(folder, "master.key"));
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

it("closes the tenants whose last use is longest ago, and opens them again when they are used", async () => {
  const opened: string[] = [];
  // Opening a tenant begins with looking for its segments.
  const disk: Disk = {
    ...systemDisk,
    list: (path) => {
      const tenant = /tenants\/([1-9][0-9]*)\/log$/.exec(path)?.[1];
      if (tenant !== undefined && opened.at(-1) !== tenant) opened.push(tenant);
      return systemDisk.list(path);
    },
  };
  const masterKey = masterKeyFile(join(folder, "master.key"));
  await using db = await Kimberlite.open({
    dataDir: join(folder, "data"),
    masterKey,
    disk,
    maxOpenTenants: 2,
  });
  for (const n of [1, 2, 3]) await db.createTenant({ id: TenantId(n), name: `Tenant ${n}` });
  opened.length = 0;
  const use = (n: number): Promise<unknown> => db.query(TenantId(n), "SELECT 1");
  for (const n of [1, 2, 1, 3]) await use(n);
  expect(opened).toEqual(["1", "2", "3"]);
  expect(db.stats().openTenants).toBe(2);
  await use(1);
  expect(opened).toEqual(["1", "2", "3"]);
  await use(2);
  expect(opened).toEqual(["1", "2", "3", "2"]);
});
