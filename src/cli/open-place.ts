/** Opens the place that a command's options name. */
import { kimberliteError } from "../errors.ts";
import type { Kimberlite } from "../kimberlite.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import type { GlobalOptions } from "./arguments.ts";
import { actorName, installationPaths, withInstallation } from "./installation.ts";
import type { Place } from "./place.ts";
import { toArrays } from "./statement.ts";

export interface PlaceOptions extends GlobalOptions {
  readonly tenant?: TenantId;
}

/** Opens the place that the options name, works, and closes it. @throws `invalid_argument` without a tenant */
export async function withPlace<T>(options: PlaceOptions, work: (place: Place) => Promise<T>): Promise<T> {
  const { server, tenant } = options;
  if (server !== undefined) {
    const { withServer } = await import("./server-place.ts");
    return withServer(server, tenant, work);
  }
  if (tenant === undefined)
    throw kimberliteError("invalid_argument", "required option '--tenant <id>' not specified");
  const actor = actorName(options);
  return withInstallation(installationPaths(options.dir), (db) => work(directoryPlace(db, tenant, actor)));
}

function directoryPlace(db: Kimberlite, tenant: TenantId, actor: string): Place {
  return {
    tenant,
    run: (sql, params, at) =>
      db.executeArrays(tenant, sql, params, at === undefined ? { actor } : { actor, at }),
    runAsOne: async (statements) => (await db.transaction(tenant, statements, { actor })).map(toArrays),
    describe: () => db.describeTenant(tenant),
    streams: () => db.streams(tenant),
    verify: () => db.verifyTenant(tenant),
  };
}
