/** `kimberlite key …` */
import { KimberliteClient } from "../client/client.ts";
import { kimberliteError } from "../errors.ts";
import { createMasterKeyFile } from "../keys/master-key-file.ts";
import { masterKeyPath } from "../keys/master-key-uri.ts";
import { createPkcs11Key } from "../keys/pkcs11.ts";
import { withoutPin } from "../keys/pkcs11-uri.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import type { GlobalOptions, RecordedOptions, ServerAddress } from "./arguments.ts";
import {
  installationPaths,
  keptUri,
  type RotationOptions,
  recorded,
  rotateMasterKeyFile,
  rotateMasterKeyTo,
} from "./installation.ts";
import { withNode } from "./open-node.ts";
import { startProgress } from "./progress.ts";
import { counted, formatTime, renderTable, toJson } from "./render.ts";
import { requireNoReason } from "./server-answers.ts";

interface TenantOptions extends RecordedOptions {
  readonly tenant: TenantId;
}

/** Makes a master key that is in use nowhere yet: a file, or a key in a token that cannot be taken out of it. */
export async function createKey(uri: string, options: GlobalOptions): Promise<undefined> {
  if (/^pkcs11:/.test(uri)) {
    await createPkcs11Key(uri);
    return void report(options, { created: withoutPin(uri) }, `${withoutPin(uri)} is a new key in its token`);
  }
  if (/^[a-z][a-z0-9+.-]*:/.test(uri) && !uri.startsWith("file:")) {
    throw kimberliteError(
      "invalid_argument",
      "a key is made here in a file or a PKCS#11 token; in a KMS or vault, with its own tools",
    );
  }
  const path = masterKeyPath(uri);
  createMasterKeyFile(path);
  report(options, { created: `file:${path}` }, `${path} is a new master key: keep a copy elsewhere`);
}

export async function listKeys(options: TenantOptions): Promise<undefined> {
  const report = await withNode(options, (db) => db.keys(options.tenant));
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
  const version = await withNode(options, (db) => db.rotateDek(options.tenant, recorded(options)));
  report(
    options,
    { tenant: options.tenant, dek: version },
    `tenant ${options.tenant}: new blocks are sealed under DEK ${version}`,
  );
}

interface ReencryptFlags extends TenantOptions {
  readonly destroyFormerKeys?: boolean;
}

export async function reencrypt(options: ReencryptFlags): Promise<undefined> {
  const { tenant, destroyFormerKeys = false } = options;
  const progress = startProgress("re-encrypt");
  try {
    const done = await withNode(options, (db) =>
      db.reencryptTenant(tenant, {
        destroyFormerKeys,
        ...recorded(options),
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
  const version = await withNode(options, async (db) => {
    await db.rotateKek(options.tenant, recorded(options));
    return (await db.keys(options.tenant)).kek.version;
  });
  report(
    options,
    { tenant: options.tenant, kek: version },
    `tenant ${options.tenant}: its data keys are wrapped under KEK ${version}`,
  );
}

export async function rotateMaster(
  options: RecordedOptions & { readonly tenant?: TenantId; readonly to?: string },
): Promise<undefined> {
  if (options.tenant !== undefined) {
    throw kimberliteError("invalid_argument", "the master key is one for all tenants; leave --tenant out");
  }
  const { to, server } = options;
  if (server !== undefined) return rotateMasterOver(server, options);
  const paths = installationPaths(options.dir);
  const progress = startProgress("rotate the master key");
  const given: RotationOptions = {
    ...recorded(options),
    onProgress: ({ done, total }) => progress.update(done, total),
  };
  const rotating = to === undefined ? rotateMasterKeyFile(paths, given) : rotateMasterKeyTo(paths, to, given);
  const masterKeyId = await rotating.finally(() => progress.stop());
  report(
    options,
    { masterKeyId },
    to === undefined
      ? `${paths.masterKey} is master key ${masterKeyId} now: keep a copy elsewhere`
      : `master key ${masterKeyId} wraps every tenant's keys now`,
  );
}

/** To one of the master keys that the server's settings name. */
async function rotateMasterOver(
  server: ServerAddress,
  options: RecordedOptions & { readonly to?: string },
): Promise<undefined> {
  const { to, reason } = options;
  if (to === undefined) {
    throw kimberliteError("unsupported", "over a server --to names one of the master keys of its settings");
  }
  requireNoReason({ reason }, "a rotation of the master key");
  const progress = startProgress("rotate the master key");
  const { masterKeyId } = await new KimberliteClient(server)
    .run(
      "node.rotateMasterKey",
      { body: { to } },
      { onProgress: ({ done, total = done }) => progress.update(done, total) },
    )
    .finally(() => progress.stop());
  report(options, { masterKeyId }, `master key ${masterKeyId} wraps every tenant's keys now`);
}

interface MoveOptions extends TenantOptions {
  readonly to: string;
}

export async function moveTenant(options: MoveOptions): Promise<undefined> {
  const { tenant, to } = options;
  const { masterKeyId } = await withNode(options, async (db) => {
    await db.setTenantMasterKey(tenant, to === "node" ? null : keptUri(to), recorded(options));
    return db.keys(tenant);
  });
  report(
    options,
    { tenant, masterKeyId },
    `tenant ${tenant}: its KEK is wrapped by master key ${masterKeyId}`,
  );
}

export async function printVerifier(options: GlobalOptions): Promise<undefined> {
  const verifierKey = await withNode(options, async (db) => db.verifierKey());
  report(options, { verifierKey }, verifierKey);
}

function report(options: GlobalOptions, json: unknown, text: string): void {
  console.log(options.json === true ? toJson(json) : text);
}
