/** How many requests of one kind each tenant has under way: one tenant's cannot take all there is. */
import { kimberliteError } from "../errors.ts";
import type { TenantId } from "../tenant/tenant-id.ts";

export class AdminGate {
  readonly #policy: string;
  readonly #limit: number;
  readonly #running = new Map<TenantId, number>();

  constructor(policy: string, limit: number) {
    this.#policy = policy;
    this.#limit = limit;
  }

  /** @throws `quota_exceeded` @returns what ends it */
  enter(tenant: TenantId): () => void {
    const running = this.#running.get(tenant) ?? 0;
    if (running >= this.#limit) {
      throw kimberliteError("quota_exceeded", "the tenant has too many requests under way", {
        detail: { tenant, policy: this.#policy, limit: this.#limit },
      });
    }
    this.#running.set(tenant, running + 1);
    return () => {
      const left = (this.#running.get(tenant) ?? 1) - 1;
      if (left === 0) this.#running.delete(tenant);
      else this.#running.set(tenant, left);
    };
  }
}
