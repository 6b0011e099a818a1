/** `kimberlite key …` */
import { kimberliteError } from "../errors.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import type { GlobalOptions } from "./arguments.ts";
import {
  actorName,
  installationPaths,
  rotateMasterKeyFile,
  rotateMasterKeyTo,
  withInstallation,
} from "./installation.ts";
import { startProgress } from "./progress.ts";
import { counted, formatTime, renderTable, toJson } from "./render.ts";

interface TenantOptions extends GlobalOptions {
  readonly tenant: TenantId;
}

export async function listKeys(options: TenantOptions): Promise<undefined> {
  const report = await withInstallation(installationPaths(options.dir), (db) => db.keys(options.tenant));
  if (options.json === true) return void console.log(toJson(report));
  const current = report.deks.at(-1)?.version;
  const rows = report.deks.map((dek) => [
    `DEK ${dek.version}`,
    formatTime(dek.createdAtUs),
    [
      dek.version === current
        ? `seals new blocks (${report.blocksSealed} of ${report.blocksLimit} so far)`
        : "opens older blocks",
      dek.version === report.projectionDek ? "encrypts the SQL database" : "",
    ]
      .filter((use) => use !== "")
      .join(", "),
  ]);
  const kek = [
    `KEK ${report.kek.version}`,
    formatTime(report.kek.createdAtUs),
    `wrapped by master key ${report.masterKeyId}`,
  ];
  console.log(renderTable(["key", "made", "use"], [kek, ...rows]));
}

export async function rotateDek(options: TenantOptions): Promise<undefined> {
  const version = await withInstallation(installationPaths(options.dir), (db) =>
    db.rotateDek(options.tenant),
  );
  report(
    options,
    { tenant: options.tenant, dek: version },
    `tenant ${options.tenant}: new blocks are sealed under DEK ${version}`,
  );
}

interface ReencryptFlags extends TenantOptions {
  readonly destroyFormerKeys?: boolean;
  readonly reason?: string;
}

export async function reencrypt(options: ReencryptFlags): Promise<undefined> {
  const { tenant, destroyFormerKeys = false, reason } = options;
  const progress = startProgress("re-encrypt");
  try {
    const done = await withInstallation(installationPaths(options.dir), (db) =>
      db.reencryptTenant(tenant, {
        destroyFormerKeys,
        actor: actorName(),
        ...(reason === undefined ? {} : { reason }),
        onProgress: ({ doneRecords, totalRecords }) =>
          progress.update(Number(doneRecords), Number(totalRecords)),
      }),
    );
    progress.stop();
    const former =
      done.destroyed.length === 0 ? "" : `; ${counted(done.destroyed.length, "former key")} destroyed`;
    report(
      options,
      { tenant, ...done },
      `tenant ${tenant}: ${counted(done.records, "record")} under DEK ${done.dekVersion}${former}`,
    );
  } finally {
    progress.stop();
  }
}

export async function rotateKek(options: TenantOptions): Promise<undefined> {
  const version = await withInstallation(installationPaths(options.dir), async (db) => {
    await db.rotateKek(options.tenant);
    return (await db.keys(options.tenant)).kek.version;
  });
  report(
    options,
    { tenant: options.tenant, kek: version },
    `tenant ${options.tenant}: its data keys are wrapped under KEK ${version}`,
  );
}

export async function rotateMaster(
  options: GlobalOptions & { readonly tenant?: TenantId; readonly to?: string },
): Promise<undefined> {
  if (options.tenant !== undefined) {
    throw kimberliteError("invalid_argument", "the master key is one for all tenants; leave --tenant out");
  }
  const paths = installationPaths(options.dir);
  if (options.to !== undefined) return moveMaster(options, options.to);
  const masterKeyId = await rotateMasterKeyFile(paths);
  report(
    options,
    { masterKeyId },
    `${paths.masterKey} is master key ${masterKeyId} now: keep a copy elsewhere`,
  );
}

async function moveMaster(options: GlobalOptions, uri: string): Promise<undefined> {
  const progress = startProgress("rotate the master key");
  try {
    const masterKeyId = await rotateMasterKeyTo(installationPaths(options.dir), uri, ({ done, total }) =>
      progress.update(done, total),
    );
    report(options, { masterKeyId }, `master key ${masterKeyId} wraps every tenant's keys now`);
  } finally {
    progress.stop();
  }
}

interface MoveOptions extends TenantOptions {
  readonly to: string;
  readonly reason?: string;
}

export async function moveTenant(options: MoveOptions): Promise<undefined> {
  const { tenant, to, reason } = options;
  const given = { actor: actorName(), ...(reason === undefined ? {} : { reason }) };
  const { masterKeyId } = await withInstallation(installationPaths(options.dir), async (db) => {
    await db.setTenantMasterKey(tenant, to === "node" ? null : to, given);
    return db.keys(tenant);
  });
  report(
    options,
    { tenant, masterKeyId },
    `tenant ${tenant}: its KEK is wrapped by master key ${masterKeyId}`,
  );
}

export async function printVerifier(options: GlobalOptions): Promise<undefined> {
  const verifierKey = await withInstallation(installationPaths(options.dir), async (db) => db.verifierKey());
  report(options, { verifierKey }, verifierKey);
}

function report(options: GlobalOptions, json: unknown, text: string): void {
  console.log(options.json === true ? toJson(json) : text);
}
