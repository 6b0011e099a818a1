/** A tenant's keys and log, opened beside the node that serves it, to look at what they open. */
import { join } from "node:path";
import { systemClock } from "../../src/host/clock.ts";
import { systemDisk } from "../../src/host/disk.ts";
import { systemRandomness } from "../../src/host/randomness.ts";
import { masterKeyFile, type TenantId } from "../../src/index.ts";
import { KeyStore } from "../../src/keys/key-store.ts";
import { TenantKeys } from "../../src/keys/tenant-keys.ts";
import { TenantLog } from "../../src/log/tenant-log.ts";
import type { Scratch } from "../isolation/scratch.ts";

export interface OpenedTenant extends AsyncDisposable {
  readonly keys: TenantKeys;
  readonly log: TenantLog;
}

export async function keysOf(scratch: Scratch, tenant: TenantId): Promise<OpenedTenant> {
  const store = await KeyStore.open(join(scratch.path(), "keys"), systemDisk);
  const randomness = systemRandomness();
  const master = masterKeyFile(scratch.masterKeyPath);
  const keys = await TenantKeys.load({ tenant, master, store, randomness, clock: systemClock });
  const log = TenantLog.open({ tenant, root: scratch.path(), disk: systemDisk, randomness });
  return {
    keys,
    log,
    [Symbol.asyncDispose]: async () => {
      log.close();
      keys.close();
      await master.close();
    },
  };
}
