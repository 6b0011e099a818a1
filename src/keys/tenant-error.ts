/** Errors of the disk and of the master key know no tenant; those that leave this room name theirs. */
import { KimberliteError, kimberliteError } from "../errors.ts";
import type { TenantId } from "../tenant/tenant-id.ts";

/** Runs `work`; an error of the family that names no tenant is thrown again with this one in `detail`. */
export async function namingTenant<T>(tenant: TenantId, work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw nameTenant(tenant, error);
  }
}

/** `error` with the tenant in `detail`; anything outside the family, or that names a tenant, as it is. */
export function nameTenant(tenant: TenantId, error: unknown): unknown {
  if (!(error instanceof KimberliteError) || error.detail.tenant !== undefined) return error;
  const { code, message, detail, retryAfterMs } = error;
  return kimberliteError(code, message, {
    detail: { ...detail, tenant },
    cause: error,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
}
