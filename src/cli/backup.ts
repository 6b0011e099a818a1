/** `kimberlite backup` and `restore`. */

import { verifyBackup } from "../backup-verification.ts";
import { masterKeyFile } from "../keys/master-key-file.ts";
import { openMasterKey } from "../keys/master-key-uri.ts";
import { restoreNode } from "../restore.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import type { GlobalOptions, RecordedOptions } from "./arguments.ts";
import {
  actorName,
  configure,
  installationPaths,
  keptUri,
  recorded,
  withInstallation,
} from "./installation.ts";
import { startProgress } from "./progress.ts";
import { counted, escapeLine, formatBytes, formatTime, renderTable, toJson } from "./render.ts";
import type { BackupFlags } from "./server-portability.ts";

export async function backup(options: BackupFlags): Promise<undefined> {
  const { to, keysTo, tenant, server } = options;
  if (server !== undefined) return (await import("./server-portability.ts")).backupOver(server, options);
  const progress = startProgress("backup");
  try {
    const report = await withInstallation(installationPaths(options.dir), (db) =>
      db.backup({
        to,
        ...recorded(options),
        ...(keysTo === undefined ? {} : { keysTo }),
        ...(tenant === undefined ? {} : { tenants: [tenant] }),
        onProgress: ({ doneTenants, totalTenants }) => progress.update(doneTenants, totalTenants),
      }),
    );
    progress.stop();
    if (options.json === true) return void console.log(toJson(report));
    const logs = `${counted(report.tenants, "log")}, ${report.changed} of them changed, ${formatBytes(report.bytes)} written`;
    console.log(`backup ${report.id}: ${logs}`);
    if (keysTo === undefined)
      console.log("without --keys-to no keys are backed up: they are in DIR/data/keys, wrapped");
  } finally {
    progress.stop();
  }
}

export async function listBackups(options: GlobalOptions & { readonly from: string }): Promise<undefined> {
  const { server, from } = options;
  const found =
    server === undefined
      ? await withInstallation(installationPaths(options.dir), (db) => db.backups(from))
      : await (await import("./server-portability.ts")).backupsOver(server, from);
  if (options.json === true) return void console.log(toJson(found));
  const rows = found.map(({ id, timeUs, tenants, partial }) => [
    id,
    formatTime(timeUs),
    tenants,
    partial ? "some tenants" : "all",
  ]);
  console.log(rows.length === 0 ? "no backup there" : renderTable(["backup", "begun", "logs", "of"], rows));
}

interface VerifyFlags extends GlobalOptions {
  readonly from: string;
  readonly keysFrom?: string;
  readonly key?: string;
  readonly backup?: string;
}

/** With --key it needs no installation. */
export async function verifyBackedUp(options: VerifyFlags): Promise<undefined> {
  const { from, keysFrom, backup: id } = options;
  const key =
    options.key ?? (await withInstallation(installationPaths(options.dir), async (db) => db.verifierKey()));
  const progress = startProgress("verify");
  try {
    const found = await verifyBackup({
      from,
      key,
      ...(keysFrom === undefined ? {} : { keysFrom }),
      ...(id === undefined ? {} : { backup: id }),
      onProgress: ({ doneTenants, totalTenants }) => progress.update(doneTenants, totalTenants),
    });
    progress.stop();
    if (options.json === true) return void console.log(toJson({ ok: true, ...found }));
    const logs = `${counted(found.tenants, "log")}, ${formatBytes(found.bytes)}`;
    console.log(`backup ${found.backup} is whole: ${logs}, signed by the installation`);
    if (found.keys !== undefined) console.log(`the wrapped keys are there: ${counted(found.keys, "tenant")}`);
    if (found.erased > 0) console.log(`${counted(found.erased, "tenant")} erased since: they stay erased`);
  } finally {
    progress.stop();
  }
}

interface RestoreFlags extends GlobalOptions {
  readonly from: string;
  readonly keysFrom: string;
  readonly masterKey?: string;
  readonly at?: Date;
  readonly backup?: string;
  readonly keepCredentials?: boolean;
}

/** Into DIR, which holds at most the master key. */
export async function restore(options: RestoreFlags): Promise<undefined> {
  const { from, keysFrom, masterKey: uri, at, backup: id, keepCredentials = false } = options;
  const paths = installationPaths(options.dir);
  const masterKey = uri === undefined ? masterKeyFile(paths.masterKey) : await openMasterKey(uri);
  const progress = startProgress("restore");
  try {
    const report = await restoreNode({
      from,
      keysFrom,
      masterKey,
      dataDir: paths.data,
      actor: actorName(options),
      keepCredentials,
      ...(at === undefined ? {} : { at }),
      ...(id === undefined ? {} : { backup: id }),
      onProgress: ({ doneTenants, totalTenants }) => progress.update(doneTenants, totalTenants),
    });
    if (uri !== undefined) await configure(paths, { masterKey: keptUri(uri) });
    progress.stop();
    if (options.json === true) return void console.log(toJson(report));
    const erased = report.erased === 0 ? "" : `; ${counted(report.erased, "tenant")} stay erased`;
    console.log(
      `${options.dir} is as of backup ${report.backup}: ${counted(report.tenants, "tenant")}, ${formatBytes(report.bytes)}${erased}`,
    );
    if (!keepCredentials)
      console.log("API keys and issuers of that time do not stand: make new ones with `token create`");
  } finally {
    progress.stop();
    await masterKey.close();
  }
}

interface RestoreTenantFlags extends RecordedOptions {
  readonly from: string;
  readonly keysFrom?: string;
  readonly tenant: TenantId;
  readonly as?: TenantId;
  readonly name?: string;
  readonly at?: bigint | Date;
  readonly backup?: string;
}

export async function restoreTenant(options: RestoreTenantFlags): Promise<undefined> {
  const { from, tenant } = options;
  const given = Object.fromEntries(
    (["keysFrom", "as", "name", "at", "backup"] as const).flatMap((field) =>
      options[field] === undefined ? [] : [[field, options[field]]],
    ),
  );
  const progress = startProgress("restore");
  try {
    const entry = await withInstallation(installationPaths(options.dir), (db) =>
      db.restoreTenant({
        ...given,
        from,
        tenant,
        ...recorded(options),
        onProgress: ({ doneRecords, totalRecords }) =>
          progress.update(Number(doneRecords), Number(totalRecords)),
      }),
    );
    progress.stop();
    if (options.json === true) console.log(toJson(entry));
    else console.log(`tenant ${entry.id} (${escapeLine(entry.name)}) is what tenant ${tenant} was`);
  } finally {
    progress.stop();
  }
}
