/**
 * A server in the place of the library: each call is one of the admin API.
 *
 * Kept: what a caller said why is never dropped. Where the API takes no reason, one that is given is refused.
 */

import type { AuditRange } from "../audit/audit-stream.ts";
import { KimberliteClient } from "../client/client.ts";
import { kimberliteError } from "../errors.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import type { ServerAddress } from "./arguments.ts";
import type { Node } from "./node.ts";
import { type Answer, of, requireNoReason, revive, why } from "./server-answers.ts";
import { issuersOver, lifecycleOver, subjectsOver } from "./server-lifecycle.ts";

type AuditItem = Answer<"audit"> extends AsyncGenerator<infer Item, void> ? Item : never;

export function serverNode(server: ServerAddress): Node {
  const client = new KimberliteClient(server);
  return {
    ...tenants(client),
    ...records(client),
    ...keys(client),
    ...tokens(client),
    ...grants(client),
    ...lifecycleOver(client),
    ...subjectsOver(client),
    ...issuersOver(client),
  };
}

function tenants(
  client: KimberliteClient,
): Pick<
  Node,
  | "createTenant"
  | "listTenants"
  | "describeTenant"
  | "refusedErasures"
  | "suspendTenant"
  | "resumeTenant"
  | "setQuota"
> {
  return {
    createTenant: async ({ id, retention, masterKey, quota, ...rest }, options) => {
      if (masterKey !== undefined) {
        throw kimberliteError(
          "unsupported",
          "over a server a tenant is made without a master key of its own",
        );
      }
      const kept = retention === undefined ? {} : { retentionMs: retention.ms };
      const limits = quota === undefined ? {} : { quota };
      const body = { ...rest, ...kept, ...limits, id: String(id), ...why(options) };
      return revive<Answer<"createTenant">>(await client.call("tenants.create", { body }), ["id"]);
    },
    listTenants: async (page?: { readonly after?: TenantId; readonly limit?: number }) => {
      const { after = 0n, limit = Number.MAX_SAFE_INTEGER } = page ?? {};
      const entries: Answer<"listTenants"> = [];
      for await (const item of client.items("tenants.list", {})) {
        if (entries.length === limit) break;
        if (BigInt(item.id) > after) entries.push(revive<Answer<"createTenant">>(item, ["id"]));
      }
      return entries;
    },
    describeTenant: async (id) =>
      revive<Answer<"describeTenant">>(await client.call("tenants.describe", of(id)), [
        "id",
        "size",
        "firstOffset",
      ]),
    refusedErasures: async (id) =>
      revive<Answer<"refusedErasures">>((await client.call("erasure.refused", of(id))).items, ["tenant"]),
    suspendTenant: async (id, options) =>
      revive<Answer<"suspendTenant">>(
        await client.call("tenants.suspend", { ...of(id), body: why(options) }),
        ["id"],
      ),
    resumeTenant: async (id, options) =>
      revive<Answer<"resumeTenant">>(await client.call("tenants.resume", { ...of(id), body: why(options) }), [
        "id",
      ]),
    setQuota: async (id, quota, options) =>
      revive<Answer<"setQuota">>(
        await client.call("quota.set", { ...of(id), body: { quota, ...why(options) } }),
        ["id"],
      ),
  };
}

function records(
  client: KimberliteClient,
): Pick<
  Node,
  "placeLegalHold" | "releaseLegalHold" | "audit" | "nodeAudit" | "checkpoint" | "verifierKey" | "streams"
> {
  const names = ["offset", "logOffset", "tenant"];
  return {
    placeLegalHold: async (id, { name, reason }) =>
      revive<Answer<"placeLegalHold">>(
        await client.call("holds.place", { ...of(id), body: { name, reason } }),
        [],
      ),
    releaseLegalHold: async (id, { name, reason }) =>
      revive<Answer<"releaseLegalHold">>(
        await client.call("holds.release", { ...of(id), body: { name, reason } }),
        ["tenant"],
      ),
    audit: async function* (id: TenantId, range?: AuditRange) {
      const items = client.items("audit.list", { ...of(id), query: pageOf(range ?? {}) });
      for await (const item of first(items, range?.limit)) yield revive<AuditItem>(item, names);
    },
    nodeAudit: async function* (range?: AuditRange) {
      const items = client.items("node.audit", { query: pageOf(range ?? {}) });
      for await (const item of first(items, range?.limit)) yield revive<AuditItem>(item, names);
    },
    checkpoint: async (id) => (await client.call("proofs.checkpoint", of(id))).note,
    verifierKey: async () => (await client.call("node.verifierKey", {})).verifierKey,
    streams: async (id) =>
      revive<Answer<"streams">>((await client.call("streams.list", of(id))).items, ["tenant"]),
  };
}

function keys(client: KimberliteClient): Pick<Node, "keys" | "rotateDek" | "rotateKek"> {
  return {
    keys: async (id) => revive<Answer<"keys">>(await client.call("keys.list", of(id)), ["tenant"]),
    rotateDek: async (id, options) => {
      const body = { key: "dek", ...why(options) } as const;
      const { deks } = await client.call("keys.rotate", { ...of(id), body });
      return Math.max(...deks.map(({ version }) => version));
    },
    rotateKek: async (id, options) => {
      await client.call("keys.rotate", { ...of(id), body: { key: "kek", ...why(options) } });
    },
  };
}

function tokens(
  client: KimberliteClient,
): Pick<
  Node,
  | "createApiKey"
  | "createOperatorKey"
  | "enrolTenant"
  | "listApiKeys"
  | "listOperatorKeys"
  | "revokeApiKey"
  | "revokeOperatorKey"
> {
  type Keys = Answer<"listApiKeys">;
  const asked = (request: Parameters<Node["enrolTenant"]>[1] = {}) => ({
    ...why(request),
    ...(request.name === undefined ? {} : { name: request.name }),
    ...(request.expiresIn === undefined ? {} : { expiresInMs: request.expiresIn.ms }),
  });
  const made = (answer: unknown) => revive<Answer<"createApiKey">>(answer, ["tenant"]);
  return {
    createApiKey: async (id, { role, grant, ...rest }) => {
      const body = { ...asked(rest), role, ...(grant === undefined ? {} : { grant }) };
      return made(await client.call("tokens.create", { ...of(id), body }));
    },
    createOperatorKey: async (request) =>
      made(await client.call("node.createToken", { body: asked(request) })),
    enrolTenant: async (id, request) =>
      made(await client.call("tokens.enrol", { ...of(id), body: asked(request) })),
    listApiKeys: async (id) => revive<Keys>((await client.call("tokens.list", of(id))).items, ["tenant"]),
    listOperatorKeys: async () => revive<Keys>((await client.call("node.listTokens", {})).items, ["tenant"]),
    revokeApiKey: async (id, token, options) => {
      requireNoReason(options, "the end of a token");
      const params = { tenant: String(id), token };
      return revive<Keys[number]>(await client.call("tokens.revoke", { params }), ["tenant"]);
    },
    revokeOperatorKey: async (token, options) => {
      requireNoReason(options, "the end of a token");
      return revive<Keys[number]>(await client.call("node.revokeToken", { params: { token } }), ["tenant"]);
    },
  };
}

function grants(client: KimberliteClient): Pick<Node, "grantAccess" | "listGrants" | "revokeAccess"> {
  type Grant = Answer<"grantAccess">;
  const names = ["fromTenant", "toTenant", "tenant"];
  return {
    grantAccess: async (request) => {
      const { fromTenant, toTenant, stream, purpose, columns, where, maxRows, notBefore, expiration } =
        request;
      const terms = {
        columns,
        where,
        maxRows,
        notBefore: notBefore?.toISOString(),
        expiresInMs: expiration?.ms,
      };
      const body = {
        toTenant: String(toTenant),
        stream: stream.local,
        purpose,
        ...(Object.fromEntries(Object.entries(terms).filter(([, term]) => term !== undefined)) as object),
      };
      return revive<Grant>(await client.call("grants.create", { ...of(fromTenant), body }), names);
    },
    listGrants: async (id) => revive<Grant[]>((await client.call("grants.list", of(id))).items, names),
    revokeAccess: async (grant, { reason }) => {
      const { tenant = "" } = await client.call("whoami", {});
      const params = { tenant, grant };
      return revive<Grant>(await client.call("grants.revoke", { params, body: { reason } }), names);
    },
  };
}

interface Range {
  readonly action?: string | undefined;
  readonly from?: bigint | number | undefined;
}

function pageOf({ action, from }: Range): { readonly action?: string; readonly from?: string } {
  return {
    ...(action === undefined ? {} : { action }),
    ...(from === undefined ? {} : { from: String(from) }),
  };
}

async function* first<T>(items: AsyncIterable<T>, count = Number.POSITIVE_INFINITY): AsyncGenerator<T, void> {
  let left = count;
  if (left <= 0) return;
  for await (const item of items) {
    yield item;
    left -= 1;
    if (left <= 0) return;
  }
}
