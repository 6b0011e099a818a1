/**
 * Failed authentications and refusals on their way into audit streams, counted so that nobody fills a log with them.
 *
 * What is alike (tenant, reason, credential) becomes one record with a count. A tenant's first is due at once; while more
 * keep coming, the time until its next records doubles, up to an hour, and is short again only after a quiet that is much
 * longer than it was. Bounded: kinds a tenant, and tenants; what goes
 * beyond is counted without its credential, or as the system's.
 */
import type { TenantId } from "../tenant/tenant-id.ts";

export interface Incident {
  /** In whose audit stream it belongs; undefined for the system's. */
  readonly tenant: TenantId | undefined;
  readonly action: "auth.fail" | "auth.refuse";
  /** The reason of a failure, or the action that was refused. */
  readonly about: string;
  readonly actor: string;
  /** Public id of a credential that exists. */
  readonly credential: string | undefined;
  readonly remoteAddress: string;
  readonly requestId: string;
}

/** The first of what is alike, and how many there were. */
export interface CountedIncident extends Incident {
  readonly count: number;
}

const MAX_KINDS = 8;
const MAX_TENANTS = 5_000;
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 3_600_000;
/** Whoever fails just seldom enough to find the pause over is not recorded each time. */
const FORGET_AFTER_PAUSES = 8;

interface Pending {
  readonly kinds: Map<string, { readonly first: Incident; count: number }>;
  lastMs: number;
  dueMs: number;
  pauseMs: number;
}

export class Incidents {
  readonly #tenants: Map<TenantId | undefined, Pending> = new Map();

  note(incident: Incident, nowMs: number, count = 1): void {
    const { tenant, action, about, credential } = incident;
    const pending = this.#tenants.get(tenant) ?? this.#begin(tenant, nowMs);
    if (pending === undefined) return this.note({ ...incident, tenant: undefined }, nowMs, count);
    pending.lastMs = nowMs;
    const kind = `${action} ${about} ${credential ?? ""}`;
    const known =
      pending.kinds.get(kind) ?? (pending.kinds.size >= MAX_KINDS ? pending.kinds.get("other") : undefined);
    if (known !== undefined) known.count += count;
    else if (pending.kinds.size < MAX_KINDS) pending.kinds.set(kind, { first: incident, count });
    else
      pending.kinds.set("other", {
        first: { ...incident, about: "several", credential: undefined },
        count,
      });
  }

  /** What is to be recorded now, of at most `maxTenants` tenants; it is taken out. */
  take(nowMs: number, maxTenants: number): CountedIncident[] {
    const taken: CountedIncident[] = [];
    let tenants = 0;
    for (const [tenant, pending] of this.#tenants) {
      if (nowMs < pending.dueMs || tenants >= maxTenants) continue;
      if (pending.kinds.size === 0) {
        if (nowMs - pending.lastMs >= pending.pauseMs * FORGET_AFTER_PAUSES) this.#tenants.delete(tenant);
        continue;
      }
      tenants += 1;
      for (const { first, count } of pending.kinds.values()) taken.push({ ...first, count });
      pending.kinds.clear();
      pending.dueMs = nowMs + pending.pauseMs;
      pending.pauseMs = Math.min(pending.pauseMs * 2, LONGEST_PAUSE_MS);
    }
    return taken;
  }

  /** All that is left, at the end. */
  takeAll(): CountedIncident[] {
    const all = [...this.#tenants.values()].flatMap(({ kinds }) => [...kinds.values()]);
    this.#tenants.clear();
    return all.map(({ first, count }) => ({ ...first, count }));
  }

  get size(): number {
    return this.#tenants.size;
  }

  #begin(tenant: TenantId | undefined, nowMs: number): Pending | undefined {
    if (this.#tenants.size >= MAX_TENANTS && tenant !== undefined) return undefined;
    const pending = { kinds: new Map(), lastMs: nowMs, dueMs: nowMs, pauseMs: FIRST_PAUSE_MS };
    this.#tenants.set(tenant, pending);
    return pending;
  }
}
