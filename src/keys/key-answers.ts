/**
 * What the holders of tenants' own master keys answered last, so that it can be told without asking them.
 *
 * Kept: a key that merely could not be reached changes nothing of what is known; after a restart nothing is known.
 */
import { type ErrorCode, KimberliteError } from "../errors.ts";
import type { KeyAccess } from "../tenant/tenant-config.ts";
import type { TenantId } from "../tenant/tenant-id.ts";

/** What a key's holder says, as against what stands between us and the key. */
const REFUSALS: ReadonlySet<ErrorCode> = new Set([
  "master_key_denied",
  "master_key_disabled",
  "master_key_pending_deletion",
  "master_key_missing",
  "master_key_wrong",
]);

/** True for the answer of a key's holder that freezes its tenant. */
export function isKeyRefusal(error: unknown): error is KimberliteError {
  return error instanceof KimberliteError && REFUSALS.has(error.code);
}

export class KeyAnswers {
  readonly #last: Map<TenantId, Exclude<KeyAccess, "unknown">> = new Map();

  last(tenant: TenantId): KeyAccess {
    return this.#last.get(tenant) ?? "unknown";
  }

  /** Asks, and keeps what was answered. @throws what `ask` does */
  async noting<T>(tenant: TenantId, ask: () => Promise<T>): Promise<T> {
    try {
      const answer = await ask();
      this.#last.set(tenant, "available");
      return answer;
    } catch (error) {
      if (isKeyRefusal(error)) this.#last.set(tenant, "withdrawn");
      throw error;
    }
  }

  /** The tenant has another key, or was erased. */
  forget(tenant: TenantId): void {
    this.#last.delete(tenant);
  }
}
