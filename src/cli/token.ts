/** `kimberlite token …` and `kimberlite issuer …` */
import { readFileSync } from "node:fs";
import type { ApiKeyDescription } from "../auth/api-key.ts";
import type { IssuerConfig } from "../auth/issuer.ts";
import type { PublicJwk } from "../auth/jwk.ts";
import type { TenantRole } from "../auth/principal.ts";
import { kimberliteError } from "../errors.ts";
import { Duration } from "../tenant/duration.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import type { RecordedOptions } from "./arguments.ts";
import { recorded } from "./installation.ts";
import { withNode } from "./open-node.ts";
import { escapeLine, formatTime, renderTable, toJson } from "./render.ts";

interface CreateFlags extends RecordedOptions {
  readonly tenant?: TenantId;
  readonly role: TenantRole | "operator" | "enrolment";
  readonly name?: string;
  readonly expiresDays?: number;
  readonly grant?: string;
}

/** Prints the token alone: it can be read nowhere afterwards. */
export async function createToken(options: CreateFlags): Promise<undefined> {
  const { role, tenant, grant } = options;
  const request = {
    ...recorded(options),
    ...(options.name === undefined ? {} : { name: options.name }),
    ...(options.expiresDays === undefined ? {} : { expiresIn: Duration.days(options.expiresDays) }),
  };
  if ((role === "operator") !== (tenant === undefined)) {
    throw kimberliteError("invalid_argument", "a token has --tenant, unless its role is operator");
  }
  if (grant !== undefined && (role === "operator" || role === "enrolment")) {
    throw kimberliteError("invalid_argument", "a grant is read as reader, writer or admin");
  }
  const made = await withNode(options, (db) => {
    if (role === "operator" || tenant === undefined) return db.createOperatorKey(request);
    if (role === "enrolment") return db.enrolTenant(tenant, request);
    return db.createApiKey(tenant, { ...request, role, ...(grant === undefined ? {} : { grant }) });
  });
  console.log(options.json === true ? toJson(made) : made.token);
}

interface OwnerFlags extends RecordedOptions {
  readonly tenant?: TenantId;
}

export async function listTokens(options: OwnerFlags): Promise<undefined> {
  const { tenant } = options;
  const keys = await withNode(options, (db) =>
    tenant === undefined ? db.listOperatorKeys() : db.listApiKeys(tenant),
  );
  if (options.json === true) return void console.log(toJson(keys));
  const rows = keys.map((key) => [key.id, roleOf(key), key.name, stateOf(key), usedAt(key)].map(escapeLine));
  console.log(
    rows.length === 0
      ? "there are no tokens"
      : renderTable(["id", "role", "name", "state", "last used"], rows),
  );
}

export async function revokeToken(id: string, options: OwnerFlags): Promise<undefined> {
  const { tenant } = options;
  const key = await withNode(options, (db) =>
    tenant === undefined
      ? db.revokeOperatorKey(id, recorded(options))
      : db.revokeApiKey(tenant, id, recorded(options)),
  );
  console.log(options.json === true ? toJson(key) : `token ${key.id} opens nothing any more`);
}

interface IssuerFlags extends RecordedOptions {
  readonly tenant: TenantId;
  readonly issuer: string;
  readonly audience: string;
  readonly jwksUri?: string;
  readonly keys?: string;
  readonly maxRole?: TenantRole;
  readonly defaultRole?: TenantRole;
}

export async function registerIssuer(options: IssuerFlags): Promise<undefined> {
  const { tenant, issuer, audience, jwksUri, keys, maxRole, defaultRole } = options;
  const config: IssuerConfig = {
    issuer,
    audience,
    ...(jwksUri === undefined ? {} : { jwksUri }),
    ...(keys === undefined ? {} : { keys: readKeys(keys) }),
    ...(maxRole === undefined ? {} : { maxRole }),
    ...(defaultRole === undefined ? {} : { defaultRole }),
  };
  const registered = await withNode(options, (db) => db.registerIssuer(tenant, config, recorded(options)));
  console.log(
    options.json === true
      ? toJson(registered)
      : `${escapeLine(registered.issuer)} issues tokens of tenant ${tenant}, up to ${registered.maxRole}`,
  );
}

export async function listIssuers(options: IssuerFlags): Promise<undefined> {
  const issuers = await withNode(options, (db) => db.listIssuers(options.tenant));
  if (options.json === true) return void console.log(toJson(issuers));
  const rows = issuers.map((one) => [one.issuer, one.audience, one.maxRole, one.jwksUri ?? "given keys"]);
  console.log(
    rows.length === 0
      ? "there are no issuers"
      : renderTable(
          ["issuer", "audience", "up to", "keys"],
          rows.map((row) => row.map(escapeLine)),
        ),
  );
}

export async function removeIssuer(options: IssuerFlags): Promise<undefined> {
  const { tenant, issuer } = options;
  await withNode(options, (db) => db.removeIssuer(tenant, issuer, recorded(options)));
  const removed = { tenant, issuer };
  console.log(
    options.json === true ? toJson(removed) : `tokens of ${escapeLine(issuer)} open nothing any more`,
  );
}

function readKeys(path: string): readonly PublicJwk[] {
  try {
    const parsed = JSON.parse(readFileSync(path, "utf8")) as { readonly keys?: readonly PublicJwk[] };
    if (Array.isArray(parsed.keys)) return parsed.keys;
  } catch (cause) {
    throw kimberliteError("invalid_argument", `${path} cannot be read as JSON`, { cause });
  }
  throw kimberliteError("invalid_argument", `${path} is no JSON Web Key Set: {"keys": [...]}`);
}

function roleOf({ role, enrolment, grant }: ApiKeyDescription): string {
  if (enrolment === true) return "enrolment";
  return grant === undefined ? role : `${role} of grant ${grant}`;
}

function stateOf({ revokedAtUs, expiresAtUs }: ApiKeyDescription): string {
  if (revokedAtUs !== undefined) return `revoked ${formatTime(revokedAtUs)}`;
  return expiresAtUs === undefined ? "stands" : `until ${formatTime(expiresAtUs)}`;
}

function usedAt({ lastUsedAtUs }: ApiKeyDescription): string {
  return lastUsedAtUs === undefined ? "never" : formatTime(lastUsedAtUs);
}
