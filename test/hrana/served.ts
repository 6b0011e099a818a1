/** A server with Hrana on a database of its own, and credentials that a test makes up. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import type { Authenticator } from "../../src/auth/authenticator.ts";
import type { Principal, TenantRole } from "../../src/auth/principal.ts";
import { kimberliteError } from "../../src/errors.ts";
import type { HranaLimits } from "../../src/hrana/limits.ts";
import { registerHrana } from "../../src/hrana/register.ts";
import { createMasterKeyFile, Kimberlite, masterKeyFile, Region, TenantId } from "../../src/index.ts";
import { Server } from "../../src/server/server.ts";

export interface Served {
  readonly db: Kimberlite;
  readonly tokens: TokenBook;
  readonly server: Server;
  /** Without a slash at its end. */
  readonly url: string;
  /** Revokes a token that was given out. */
  revoke(token: string): void;
  close(): Promise<void>;
}

const cleanups: (() => Promise<void>)[] = [];
afterAll(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A token that the server's authenticator takes: it says what it stands for. `name~2` is another of the same actor, `grant_x` is of grant x. */
export function tokenOf(tenant: number, role: TenantRole = "admin", name = "test"): string {
  return `t${tenant}.${role}.${name}`;
}

export class TokenBook implements Authenticator {
  readonly revoked: Set<string> = new Set();
  /** What was refused to whom. */
  readonly refusals: string[] = [];
  /** How long it takes to authenticate. */
  delayMs = 0;
  /** Authentications that went on at once, at most. */
  most = 0;
  #running = 0;

  async authenticate(bearer: string | undefined): Promise<Principal> {
    this.#running += 1;
    this.most = Math.max(this.most, this.#running);
    if (this.delayMs > 0) await new Promise((resolve) => setTimeout(resolve, this.delayMs));
    this.#running -= 1;
    const match = /^t(\d+)\.(reader|writer|admin)\.(\w+)(?:~\d)?$/.exec(bearer ?? "");
    if (bearer === undefined || match === null || this.revoked.has(bearer)) throw refused();
    return {
      kind: "tenant",
      tenant: TenantId(match[1] as string),
      role: match[2] as TenantRole,
      ...(match[3]?.startsWith("grant_") === true ? { grant: match[3].slice("grant_".length) } : {}),
      actor: `test:${match[3]}`,
      credential: { kind: "api_key", id: bearer },
    };
  }

  noteRefusal(principal: Principal, action: string): void {
    this.refusals.push(`${principal.actor} ${action}`);
  }

  recheck(principal: Principal): void {
    if (this.revoked.has(principal.credential.id)) throw refused();
  }
}

function refused(): Error {
  return kimberliteError("unauthenticated", "the credential is not valid");
}

/** Tenants 1 and 2 exist. */
export async function serve(
  options: { readonly limits?: Partial<HranaLimits>; readonly settings?: object } = {},
): Promise<Served> {
  const folder = mkdtempSync(join(tmpdir(), "kimberlite-hrana-"));
  const key = join(folder, "master.key");
  createMasterKeyFile(key);
  const db = await Kimberlite.open({
    dataDir: join(folder, "data"),
    masterKey: masterKeyFile(key),
    journalFileBytes: 1024 * 1024,
  });
  for (const id of [1, 2]) {
    await db.createTenant({ id: TenantId(id), name: `Tenant ${id}`, region: Region.UsEast });
  }
  const authenticator = new TokenBook();
  const server = await Server.start({
    db,
    authenticator,
    settings: { port: 0, metrics: { open: true }, ...options.settings },
    register: (app, host) => registerHrana(app, host, options.limits),
  });
  let closed: Promise<void> | undefined;
  const close = (): Promise<void> => {
    closed ??= (async () => {
      await server.close();
      await db.close();
      rmSync(folder, { recursive: true, force: true });
    })();
    return closed;
  };
  cleanups.push(close);
  return {
    db,
    tokens: authenticator,
    server,
    url: server.address.url,
    revoke: (token) => void authenticator.revoked.add(token),
    close,
  };
}
