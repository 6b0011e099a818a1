/** A tenant over a server: SQL by Hrana, the rest by the admin API. The tenant is the token's; one that is named must agree. */
import type { Calls } from "../client/calls.ts";
import { KimberliteClient } from "../client/client.ts";
import { type HranaResult, type HranaStatement, HranaStream, type HranaValue } from "../client/hrana.ts";
import { KimberliteError, kimberliteError } from "../errors.ts";
import type { Moment } from "../pipeline/time-travel.ts";
import { narrowInteger, type SqlInput, type SqlParams, type SqlValue } from "../projection/values.ts";
import { toTyped } from "../server/typed-value.ts";
import { TenantId } from "../tenant/tenant-id.ts";
import type { ServerAddress } from "./arguments.ts";
import type { Place, Verified } from "./place.ts";
import { toReadOutcome } from "./server-answers.ts";
import type { Outcome } from "./statement.ts";
import { descriptionFromWire } from "./wire.ts";

/** Works on the tenant, and lets go what the server holds for it. */
export async function withServer<T>(
  server: ServerAddress,
  named: TenantId | undefined,
  work: (place: Place) => Promise<T>,
): Promise<T> {
  const client = new KimberliteClient(server);
  const { kind, tenant } = await client.call("whoami", {}).catch((error: unknown) => {
    if (error instanceof KimberliteError) throw error;
    throw kimberliteError("route_not_found", "what answers there is no server of Kimberlite", {
      cause: error,
    });
  });
  if (kind !== "tenant" || tenant === undefined) {
    throw kimberliteError("not_authorized", "an operator reads no tenant's data; take a token of the tenant");
  }
  if (named !== undefined && String(named) !== tenant) {
    throw kimberliteError("not_authorized", "the token is not of the tenant that --tenant names");
  }
  const stream = new HranaStream({ ...server, nowMs: () => performance.now() });
  try {
    return await work(serverPlace(client, stream, TenantId(tenant)));
  } finally {
    await stream.close();
  }
}

/** Has the server look at a tenant's whole log, and that it contains a checkpoint. @throws `checkpoint_mismatch`, … */
export async function verifyOverServer(
  server: ServerAddress,
  tenant: TenantId,
  checkpoint: string | undefined,
): Promise<Verified> {
  const params = { tenant: String(tenant) };
  const body = checkpoint === undefined ? {} : { checkpoint };
  return toVerified(await new KimberliteClient(server).call("tenants.verify", { params, body }));
}

function serverPlace(client: KimberliteClient, stream: HranaStream, tenant: TenantId): Place {
  const params = { tenant: String(tenant) };
  return {
    tenant,
    run: async (sql, given, at) =>
      at === undefined
        ? toOutcome(await stream.execute(toStatement(sql, given)))
        : readAsItWas(client, params, { sql, given, at }),
    runAsOne: async (list) => (await stream.transaction(list.map((sql) => ({ sql })))).map(toOutcome),
    describe: async () => descriptionFromWire(await client.call("tenants.describe", { params })),
    streams: async () => (await client.call("streams.list", { params })).items,
    verify: async () => toVerified(await client.call("tenants.verify", { params })),
  };
}

async function readAsItWas(
  client: KimberliteClient,
  params: { readonly tenant: string },
  asked: { readonly sql: string; readonly given: SqlParams | undefined; readonly at: Moment },
): Promise<Outcome> {
  const { sql, given = [], at } = asked;
  const body = {
    sql,
    params: Array.isArray(given)
      ? given.map(toTyped)
      : Object.fromEntries(Object.entries(given).map(([name, value]) => [name, toTyped(value)])),
    at: at instanceof Date ? at.toISOString() : at.toString(),
  };
  return toReadOutcome(await client.call("history.query", { params, body }));
}

function toVerified(report: Calls["tenants.verify"]["answer"]): Verified {
  const { tenant, size, trimmed, root, firstBadOffset, ...rest } = report;
  return {
    ...rest,
    tenant: TenantId(tenant),
    size: BigInt(size),
    trimmed: BigInt(trimmed),
    root: Buffer.from(root, "base64"),
    ...(firstBadOffset === undefined ? {} : { firstBadOffset: BigInt(firstBadOffset) }),
  };
}

function toStatement(sql: string, params: SqlParams = []): HranaStatement {
  if (Array.isArray(params)) return { sql, args: params.map(toExact) };
  const named = Object.entries(params as Readonly<Record<string, SqlInput>>);
  return { sql, args: Object.fromEntries(named.map(([name, value]) => [name, toExact(value)])) };
}

/** As the library binds it: a whole number is an INTEGER. */
function toExact(value: SqlInput): HranaValue {
  if (typeof value === "boolean") return value ? 1n : 0n;
  return typeof value === "number" && Number.isSafeInteger(value) ? BigInt(value) : value;
}

function toOutcome(result: HranaResult): Outcome {
  const narrow = (value: HranaValue): SqlValue => (typeof value === "bigint" ? narrowInteger(value) : value);
  const { columns, rows, rowsAffected, lastInsertRowid, offset } = result;
  return {
    columns,
    rows: rows.map((row) => row.map(narrow)),
    rowsAffected,
    lastInsertRowid: lastInsertRowid === undefined ? undefined : narrowInteger(lastInsertRowid),
    offset,
    ...(offset === undefined ? { offsetUntold: true } : {}),
  };
}
