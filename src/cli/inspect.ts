/** `kimberlite checkpoint`, `stats` and `rebuild` */
import { lstatSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { KimberliteClient } from "../client/client.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import type { GlobalOptions, ServerAddress } from "./arguments.ts";
import { installationPaths, withInstallation } from "./installation.ts";
import { withNode } from "./open-node.ts";
import { startProgress } from "./progress.ts";
import { counted, formatBytes, renderTable, toJson } from "./render.ts";
import { of } from "./server-answers.ts";
import { allTenants } from "./tenant.ts";

interface TenantOptions extends GlobalOptions {
  readonly tenant: TenantId;
}

export async function checkpoint(options: TenantOptions): Promise<undefined> {
  const note = await withNode(options, (db) => db.checkpoint(options.tenant));
  if (options.json === true) console.log(toJson({ tenant: options.tenant, checkpoint: note }));
  else process.stdout.write(note);
}

export async function stats(options: GlobalOptions): Promise<undefined> {
  if (options.server !== undefined) return statsOver(options.server, options.json);
  const paths = installationPaths(options.dir);
  const known = await withInstallation(paths, async (db) => ({
    installation: db.stats().installation,
    tenants: await allTenants(db),
  }));
  const suspended = known.tenants.filter((entry) => entry.state === "suspended").length;
  const disk = diskUse(paths.data);
  if (options.json === true) {
    return void console.log(
      toJson({ installation: known.installation, tenants: known.tenants.length, suspended, disk }),
    );
  }
  const rows: [string, string][] = [
    ["installation", known.installation],
    ["tenants", `${known.tenants.length}${suspended > 0 ? ` (${suspended} suspended)` : ""}`],
    ["logs", formatBytes(disk.logBytes)],
    ["SQL databases", formatBytes(disk.projectionBytes)],
    ["commit journal", formatBytes(disk.journalBytes)],
    ["keys", formatBytes(disk.keyBytes)],
  ];
  console.log(renderTable(["what", "value"], rows));
}

export async function rebuild(options: TenantOptions): Promise<undefined> {
  const progress = startProgress(`rebuild tenant ${options.tenant}`);
  const startedMs = performance.now();
  const { tenant } = options;
  let changes = 0;
  const { server } = options;
  if (server !== undefined) {
    const done = await rebuildOver(server, tenant).finally(() => progress.stop());
    const ms = Math.round(performance.now() - startedMs);
    if (options.json === true) console.log(toJson({ tenant, records: done, changes: null, ms }));
    else console.log(`tenant ${tenant}: rebuilt from ${counted(done, "record")} in ${ms} ms`);
    return;
  }
  const size = await withInstallation(
    installationPaths(options.dir),
    async (db) => {
      await db.rebuildProjection(tenant);
      return (await db.describeTenant(tenant)).size;
    },
    {
      onProgress: (at) => {
        if (at.tenant !== tenant) return;
        changes = at.changes;
        progress.update(Number(at.doneOffsets), Number(at.totalOffsets));
      },
    },
  ).finally(() => progress.stop());
  const ms = Math.round(performance.now() - startedMs);
  if (options.json === true) console.log(toJson({ tenant, records: size, changes, ms }));
  else
    console.log(
      `tenant ${tenant}: rebuilt from ${counted(size, "record")} (${counted(changes, "change")}) in ${ms} ms`,
    );
}

/** What the server tells an operator; its disk is not seen from here. */
async function statsOver(server: ServerAddress, json = false): Promise<undefined> {
  const { installation, tenants, openTenants } = await new KimberliteClient(server).call("node.describe", {});
  if (json) return void console.log(toJson({ installation, tenants, openTenants }));
  const rows = [
    ["installation", installation],
    ["tenants", `${tenants} (${openTenants} open)`],
  ];
  console.log(renderTable(["what", "value"], rows));
}

/** @returns how many records there are */
async function rebuildOver(server: ServerAddress, tenant: TenantId): Promise<bigint> {
  const client = new KimberliteClient(server);
  await client.run("tenants.rebuild", of(tenant));
  return BigInt((await client.call("tenants.describe", of(tenant))).size);
}

interface DiskUse {
  logBytes: number;
  projectionBytes: number;
  journalBytes: number;
  keyBytes: number;
}

function diskUse(data: string): DiskUse {
  const use: DiskUse = { logBytes: 0, projectionBytes: 0, journalBytes: 0, keyBytes: 0 };
  for (const { name, bytes } of filesBelow(data)) {
    if (name.startsWith("journal/")) use.journalBytes += bytes;
    else if (name.startsWith("keys/")) use.keyBytes += bytes;
    else if (/^tenants\/\d+\/log\//.test(name)) use.logBytes += bytes;
    else if (/^tenants\/\d+\/projection\//.test(name)) use.projectionBytes += bytes;
  }
  return use;
}

/** Files below a folder, by their names from there. */
export function filesBelow(root: string): { readonly name: string; readonly bytes: number }[] {
  return readdirSync(root, { recursive: true, encoding: "utf8" }).flatMap((name) => {
    const stat = lstatSync(join(root, name), { throwIfNoEntry: false });
    return stat?.isFile() === true ? [{ name, bytes: stat.size }] : [];
  });
}
