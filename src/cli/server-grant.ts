/** Reading what another tenant shares, by a server. */
import { KimberliteClient } from "../client/client.ts";
import { kimberliteError } from "../errors.ts";
import type { SqlInput, SqlParams } from "../projection/values.ts";
import { toTyped } from "../server/typed-value.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import type { ServerAddress } from "./arguments.ts";
import { of, toReadOutcome } from "./server-answers.ts";
import type { Outcome } from "./statement.ts";

interface Shared {
  readonly tenant: TenantId;
  readonly grant: string;
}

/** @throws `unsupported` for parameters by name */
export async function queryOver(
  server: ServerAddress,
  { tenant, grant, sql, params }: Shared & { readonly sql: string; readonly params: SqlParams | undefined },
): Promise<Outcome> {
  if (params !== undefined && !Array.isArray(params)) {
    throw kimberliteError("unsupported", "over a server the parameters of a shared read are an array");
  }
  const given = (params as readonly SqlInput[] | undefined)?.map(toTyped) ?? [];
  const body = { grant, sql, params: given };
  return toReadOutcome(await new KimberliteClient(server).call("shared.query", { ...of(tenant), body }));
}

/** Events as the library gives them; what JSON does not hold is the server's text of it. */
export async function* readOver(
  server: ServerAddress,
  about: Shared & { readonly first: number; readonly limit: number | undefined },
): AsyncGenerator<Readonly<Record<string, unknown>>, void> {
  let left = about.limit ?? Number.POSITIVE_INFINITY;
  if (left <= 0) return;
  const query = { grant: about.grant, from: String(about.first) };
  for await (const item of new KimberliteClient(server).items("shared.read", {
    ...of(about.tenant),
    query,
  })) {
    const { offset, timeUs, ...rest } = item;
    yield { offset: BigInt(offset), timeUs: BigInt(timeUs), ...rest };
    left -= 1;
    if (left <= 0) return;
  }
}
