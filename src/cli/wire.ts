/** What the admin API says of tenants, as the library would: ids, times and counts are bigints again. */
import type { Calls } from "../client/calls.ts";
import type { TenantDescription } from "../operations.ts";
import { Region } from "../tenant/region.ts";
import type { TenantEntry } from "../tenant/tenant-config.ts";
import { TenantId } from "../tenant/tenant-id.ts";

type EntryOnWire = Calls["tenants.create"]["answer"];

function entryFromWire(entry: EntryOnWire): TenantEntry {
  return {
    ...entry,
    id: TenantId(entry.id),
    region: Region.of(entry.region),
    legalHolds: entry.legalHolds.map((hold) => ({ ...hold, placedAtUs: BigInt(hold.placedAtUs) })),
    createdAtUs: BigInt(entry.createdAtUs),
  };
}

export function descriptionFromWire(description: Calls["tenants.describe"]["answer"]): TenantDescription {
  const { size, firstOffset, logBytes, projectionBytes, ...entry } = description;
  return {
    ...entryFromWire(entry),
    size: BigInt(size),
    firstOffset: BigInt(firstOffset),
    logBytes,
    projectionBytes,
  };
}
