/**
 * Exports, imports and backups by a server: into and out of the places that its settings name. What the command is given is
 * a name, where a directory's command takes a path.
 */
import { KimberliteClient } from "../client/client.ts";
import { kimberliteError } from "../errors.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import type { RecordedOptions, ServerAddress } from "./arguments.ts";
import { startProgress } from "./progress.ts";
import { counted, escapeLine, formatBytes, toJson } from "./render.ts";
import { type Answer, of, revive, why } from "./server-answers.ts";

export interface ExportFlags extends RecordedOptions {
  readonly tenant: TenantId;
  readonly out: string;
  readonly subjectKeys?: string;
}

export interface ImportFlags extends RecordedOptions {
  readonly key: string;
  readonly tenant?: TenantId;
  readonly as?: TenantId;
  readonly masterKey?: string;
  readonly subjectKeys?: string;
}

export interface BackupFlags extends RecordedOptions {
  readonly to: string;
  readonly keysTo?: string;
  readonly tenant?: TenantId;
}

/** @throws `unsupported` for an option that is for the machine alone */
function refuse(given: Readonly<Record<string, unknown>>): void {
  for (const [flag, value] of Object.entries(given)) {
    if (value === undefined) continue;
    throw kimberliteError(
      "unsupported",
      `--${flag} does not go with a server; give --dir where the data are`,
    );
  }
}

/** Does work with a bar for as long as it lasts. */
async function shown<T>(
  label: string,
  work: (told: {
    readonly onProgress: (progress: { readonly done: number; readonly total?: number }) => void;
  }) => Promise<T>,
): Promise<T> {
  const progress = startProgress(label);
  const onProgress = ({ done, total = done }: { readonly done: number; readonly total?: number }): void =>
    progress.update(done, total);
  return work({ onProgress }).finally(() => progress.stop());
}

export async function exportOver(server: ServerAddress, options: ExportFlags): Promise<undefined> {
  const { tenant, out: name, json } = options;
  refuse({ "subject-keys": options.subjectKeys });
  const input = { ...of(tenant), body: { name, ...why(options) } };
  const report = await shown("export", (told) =>
    new KimberliteClient(server).run("exports.create", input, told),
  );
  if (json === true) return void console.log(toJson(report));
  const what = `${counted(BigInt(report.size), "record")}, ${formatBytes(report.bytes)}`;
  console.log(`tenant ${tenant}: ${what} in "${name}" of the server's folder of exports, in clear text`);
}

export async function importOver(
  server: ServerAddress,
  options: ImportFlags & { readonly name: string },
): Promise<undefined> {
  const { name, key, tenant, as, json } = options;
  refuse({ "subject-keys": options.subjectKeys, "master-key": options.masterKey });
  const body = {
    name,
    key,
    ...why(options),
    ...(tenant === undefined ? {} : { tenant: String(tenant) }),
    ...(as === undefined ? {} : { as: String(as) }),
  };
  const answer = await shown("import", (told) =>
    new KimberliteClient(server).run("tenants.import", { body }, told),
  );
  const entry = revive<Answer<"importTenant">>(answer, ["id"]);
  if (json === true) console.log(toJson(entry));
  else console.log(`tenant ${entry.id} (${escapeLine(entry.name)}) is here, with its history`);
}

export async function backupOver(server: ServerAddress, options: BackupFlags): Promise<undefined> {
  const { to: place, tenant, json } = options;
  refuse({ "keys-to": options.keysTo });
  const only = tenant === undefined ? {} : { tenants: [String(tenant)] };
  const body = { place, ...only, ...why(options) };
  const report = await shown("backup", (told) =>
    new KimberliteClient(server).run("node.backup", { body }, told),
  );
  if (json === true) return void console.log(toJson(report));
  const logs = `${counted(report.tenants, "log")}, ${report.changed} of them changed, ${formatBytes(report.bytes)} written`;
  console.log(`backup ${report.id}: ${logs}`);
}

export async function backupsOver(server: ServerAddress, place: string): Promise<Answer<"backups">> {
  const { items } = await new KimberliteClient(server).call("node.backups", { query: { place } });
  return revive<Answer<"backups">>(items, []);
}
