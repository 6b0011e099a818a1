/** `kimberlite export` and `import`, and `verify` of an export. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { kimberliteError } from "../errors.ts";
import { verifyExport } from "../portability.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import type { GlobalOptions } from "./arguments.ts";
import { installationPaths, keptUri, recorded, withInstallation } from "./installation.ts";
import { startProgress } from "./progress.ts";
import { counted, escapeLine, formatBytes, toJson } from "./render.ts";
import type { ExportFlags, ImportFlags } from "./server-portability.ts";

export async function exportTenant(options: ExportFlags): Promise<undefined> {
  const { tenant, out, subjectKeys, server } = options;
  if (server !== undefined) return (await import("./server-portability.ts")).exportOver(server, options);
  const progress = startProgress("export");
  try {
    const report = await withInstallation(installationPaths(options.dir), (db) =>
      db.exportTenant(tenant, out, {
        ...recorded(options),
        ...(subjectKeys === undefined ? {} : { subjectKeysTo: subjectKeys }),
        onProgress: ({ doneRecords, totalRecords }) =>
          progress.update(Number(doneRecords), Number(totalRecords)),
      }),
    );
    progress.stop();
    const { size, bytes, root } = report;
    if (options.json === true) console.log(toJson({ ...report, root: root.toString("base64") }));
    else {
      console.log(
        `tenant ${tenant}: ${counted(size, "record")}, ${formatBytes(bytes)} in ${out}, in clear text`,
      );
      console.log(`check it with: kimberlite verify ${out} --key "$(kimberlite key verifier)"`);
    }
  } finally {
    progress.stop();
  }
}

export async function importTenant(directory: string, options: ImportFlags): Promise<undefined> {
  const { key, tenant, as, masterKey, subjectKeys, server } = options;
  if (server !== undefined) {
    return (await import("./server-portability.ts")).importOver(server, { ...options, name: directory });
  }
  const progress = startProgress("import");
  try {
    const entry = await withInstallation(installationPaths(options.dir), (db) =>
      db.importTenant(directory, {
        key,
        ...recorded(options),
        ...(tenant === undefined ? {} : { tenant }),
        ...(as === undefined ? {} : { as }),
        ...(subjectKeys === undefined ? {} : { subjectKeys }),
        ...(masterKey === undefined ? {} : { masterKey: keptUri(masterKey) }),
        onProgress: ({ phase, done, total }) =>
          progress.update(phase === "verify" ? done / 2 : (total + done) / 2, total),
      }),
    );
    progress.stop();
    if (options.json === true) console.log(toJson(entry));
    else console.log(`tenant ${entry.id} (${escapeLine(entry.name)}) is here, with its history`);
  } finally {
    progress.stop();
  }
}

/** True for a directory that says it is an export. */
export function looksLikeExport(path: string): boolean {
  try {
    return readFileSync(join(path, "manifest.json"), "utf8").includes('"kimberlite-export/');
  } catch {
    return false;
  }
}

export async function verifyExported(
  path: string,
  options: GlobalOptions & { readonly key?: string; readonly tenant?: TenantId },
): Promise<undefined> {
  const progress = startProgress("verify");
  try {
    const found = await verifyExport(path, {
      ...(options.key === undefined ? {} : { key: options.key }),
      onProgress: (done, total) => progress.update(done, total),
    });
    progress.stop();
    const { tenant, size, root, trusted } = found;
    if (options.tenant !== undefined && tenant !== options.tenant.toString())
      throw kimberliteError("export_invalid", `the export is of tenant ${tenant}`);
    if (options.json === true) return void console.log(toJson({ ok: true, ...found }));
    console.log(`the export is whole: tenant ${tenant}, ${counted(size, "record")}, Merkle root ${root}`);
    console.log(
      trusted
        ? "it is signed by the key that you gave"
        : "it is consistent with itself; --key says whose signature you trust",
    );
  } finally {
    progress.stop();
  }
}
