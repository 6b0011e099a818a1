/** A real server on a scratch installation, with tokens that say who they are for. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Authenticator } from "../../src/auth/authenticator.ts";
import type { Principal, TenantRole } from "../../src/auth/principal.ts";
import { kimberliteError } from "../../src/errors.ts";
import { createMasterKeyFile, masterKeyFile } from "../../src/keys/master-key-file.ts";
import { Kimberlite } from "../../src/kimberlite.ts";
import type { OpenOptions } from "../../src/open-options.ts";
import { Server, type ServerOptions } from "../../src/server/server.ts";
import { TenantId } from "../../src/tenant/tenant-id.ts";

export interface Served extends AsyncDisposable {
  readonly db: Kimberlite;
  readonly server: Server;
  readonly url: string;
  /** Folder of the installation, gone at the end. */
  readonly folder: string;
}

/** A machine that runs tests may lag without end. */
const PATIENT_MS = 60_000;

/** Starts a server; `operator` and `<tenant>:<role>` are its tokens. */
export async function startServed(
  options: Partial<ServerOptions> & {
    readonly open?: Partial<OpenOptions>;
    /** "really": the database's own authenticator takes the place of tokens that say who they are for. */
    readonly authenticate?: "really";
  } = {},
): Promise<Served> {
  const folder = mkdtempSync(join(tmpdir(), "kimberlite-server-"));
  const keyFile = join(folder, "master.key");
  createMasterKeyFile(keyFile);
  const { open = {}, settings = {}, authenticate, ...rest } = options;
  const db = await Kimberlite.open({
    dataDir: join(folder, "data"),
    masterKey: masterKeyFile(keyFile),
    journalFileBytes: 1024 * 1024,
    ...open,
  });
  const server = await Server.start({
    db,
    authenticator: authenticate === undefined ? tokensThatSay : db.authenticator(),
    settings: { port: 0, ...settings, limits: { maxEventLoopDelayMs: PATIENT_MS, ...settings.limits } },
    ...rest,
  });
  return {
    db,
    server,
    folder,
    url: server.address.url,
    async [Symbol.asyncDispose]() {
      await server.close();
      await db.close();
      rmSync(folder, { recursive: true });
    },
  };
}

/** Believes what a token says: who is let in is tested with the real one, in `test/auth`. */
export const tokensThatSay: Authenticator = {
  authenticate: async (bearer) => principalOf(bearer),
  recheck: () => undefined,
  noteRefusal: () => undefined,
};

function principalOf(bearer: string | undefined): Principal {
  const credential = { kind: "api_key", id: `key-of-${bearer}` } as const;
  if (bearer === "operator") return { kind: "operator", actor: "operator", credential };
  const [, tenant, role] = /^(\d+):(reader|writer|admin)$/.exec(bearer ?? "") ?? [];
  if (tenant === undefined || role === undefined) {
    throw kimberliteError("unauthenticated", "the credential is not valid");
  }
  return {
    kind: "tenant",
    tenant: TenantId(tenant),
    role: role as TenantRole,
    actor: `${role} of ${tenant}`,
    credential,
  };
}
