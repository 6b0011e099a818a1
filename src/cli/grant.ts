/** `kimberlite grant …`: what one tenant lets another read, and reading it. */
import { kimberliteError } from "../errors.ts";
import type { Kimberlite } from "../kimberlite.ts";
import type { SqlParams } from "../projection/values.ts";
import { type Grant, Permissions } from "../sharing/grant.ts";
import type { GrantRequest } from "../sharing/grant-terms.ts";
import type { Duration } from "../tenant/duration.ts";
import type { StreamId, TenantId } from "../tenant/tenant-id.ts";
import type { RecordedOptions } from "./arguments.ts";
import { actorName, installationPaths, recorded, withInstallation } from "./installation.ts";
import type { Node } from "./node.ts";
import { withNode } from "./open-node.ts";
import { escapeLine, formatTime, renderTable, toJson } from "./render.ts";
import { statementJson, statementText } from "./statement.ts";

interface CreateFlags extends RecordedOptions {
  readonly from: TenantId;
  readonly to: TenantId;
  readonly of: string;
  readonly columns?: readonly string[];
  readonly where?: string;
  readonly maxRows?: number;
  readonly expires?: Duration;
  readonly notBefore?: Date;
  readonly purpose: string;
}

export async function createGrant(options: CreateFlags): Promise<undefined> {
  const { from, to, of, purpose, expires } = options;
  const { columns, where, maxRows, notBefore } = options;
  const given = { columns, where, maxRows, notBefore, expiration: expires };
  const terms = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  const grant = await withNode(options, async (db) => {
    const stream = await streamNamed(db, from, of);
    const request: GrantRequest = {
      fromTenant: from,
      toTenant: to,
      stream,
      permissions: Permissions.Read,
      purpose,
      actor: actorName(options),
      ...terms,
    };
    return db.grantAccess(request);
  });
  const until = grant.expiresAtUs === undefined ? "it is revoked" : formatTime(grant.expiresAtUs);
  report(
    options,
    grant,
    `grant ${grant.id}: tenant ${to} reads "${escapeLine(grant.name)}" of tenant ${from} until ${until}`,
  );
}

interface TenantFlags extends RecordedOptions {
  readonly tenant: TenantId;
}

export async function listGrants(options: TenantFlags): Promise<undefined> {
  const grants = await withNode(options, (db) => db.listGrants(options.tenant));
  if (options.json === true) return void console.log(toJson(grants));
  const rows = grants.map((grant) => [
    grant.id,
    grant.fromTenant === options.tenant ? `to ${grant.toTenant}` : `from ${grant.fromTenant}`,
    escapeLine(grant.name),
    escapeLine(sharedPart(grant)),
    grant.state,
    grant.expiresAtUs === undefined ? "" : formatTime(grant.expiresAtUs),
    escapeLine(grant.purpose),
  ]);
  const head = ["grant", "tenant", "of", "shared", "state", "until", "purpose"];
  console.log(rows.length === 0 ? "no grant" : renderTable(head, rows));
}

export async function revokeGrant(id: string, options: RecordedOptions): Promise<undefined> {
  const { actor, reason } = recorded(options);
  if (reason === undefined) throw kimberliteError("invalid_argument", "a revocation takes --reason");
  const grant = await withNode(options, (db) => db.revokeAccess(id, { actor, reason }));
  report(options, grant, `grant ${grant.id} is ${grant.state}`);
}

interface ReadFlags extends TenantFlags {
  readonly grant: string;
  readonly params?: SqlParams;
  readonly first?: number;
  readonly limit?: number;
}

export async function queryGrant(sql: string, options: ReadFlags): Promise<undefined> {
  const { tenant, grant: id, params, server } = options;
  const result =
    server === undefined
      ? await open(options, async (db) => {
          const { stream } = await db.describeGrant(tenant, id);
          return db.sharedArrays(tenant, stream, sql, params, { grant: id, actor: actorName(options) });
        })
      : await (await import("./server-grant.ts")).queryOver(server, { tenant, grant: id, sql, params });
  console.log(options.json === true ? statementJson(result) : statementText(result));
}

/** One event a line, as JSON. */
export async function readGrant(options: ReadFlags): Promise<undefined> {
  const { tenant, grant: id, first = 0, limit, server } = options;
  if (server !== undefined) {
    const items = (await import("./server-grant.ts")).readOver(server, { tenant, grant: id, first, limit });
    for await (const item of items) console.log(toJson(item));
    return;
  }
  await open(options, async (db) => {
    const { stream } = await db.describeGrant(tenant, id);
    const range = { from: first, ...(limit === undefined ? {} : { limit }) };
    const items = db.readShared(tenant, stream, range, { grant: id, actor: actorName(options) });
    for await (const item of items) console.log(toJson(item));
  });
}

async function streamNamed(db: Node, owner: TenantId, name: string): Promise<StreamId> {
  const found = (await db.streams(owner)).find((stream) => stream.name === name);
  if (found !== undefined) return found.id;
  throw kimberliteError("stream_not_found", "the tenant has no table or event stream of that name");
}

function sharedPart({ columns, where, maxRows }: Grant): string {
  const parts = [
    ...(columns === undefined ? [] : [columns.join(", ")]),
    ...(where === undefined ? [] : [`where ${where}`]),
    ...(maxRows === undefined ? [] : [`at most ${maxRows}`]),
  ];
  return parts.join("; ");
}

function open<T>(options: RecordedOptions, work: (db: Kimberlite) => Promise<T>): Promise<T> {
  return withInstallation(installationPaths(options.dir), work);
}

function report(options: RecordedOptions, json: unknown, text: string): void {
  console.log(options.json === true ? toJson(json) : text);
}
