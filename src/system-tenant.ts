/**
 * The system tenant, which holds the catalogue: opened with the node, and opened anew when its segment or projection
 * could not follow a commit (a full disk, for one), so that the node serves again as soon as the disk does.
 *
 * Kept: there is always an engine whose keys are open, for signing; a change never goes to a broken one.
 */
import type { TenantEngine } from "./pipeline/tenant-engine.ts";

/** Opens the engine; `onBroken` is called when it can take no more commits. */
export type OpenSystemEngine = (onBroken: () => void) => Promise<TenantEngine>;

export class SystemTenant {
  readonly #openEngine: OpenSystemEngine;
  #engine: TenantEngine | undefined;
  #broken = false;
  #reopening: Promise<TenantEngine> | undefined;

  constructor(openEngine: OpenSystemEngine) {
    this.#openEngine = openEngine;
  }

  /** The engine as it is, also if it is broken: for its keys. Undefined before the first `healthy`. */
  get engine(): TenantEngine | undefined {
    return this.#engine;
  }

  /** The engine, opened anew if need be. @throws as `TenantEngine.open`: the next call tries again */
  async healthy(): Promise<TenantEngine> {
    if (this.#engine !== undefined && !this.#broken) return this.#engine;
    this.#reopening ??= this.#reopen().finally(() => {
      this.#reopening = undefined;
    });
    return this.#reopening;
  }

  async close(): Promise<void> {
    await this.#reopening?.catch(() => undefined);
    await this.#engine?.close();
  }

  async #reopen(): Promise<TenantEngine> {
    const former = this.#engine;
    const engine = await this.#openEngine(() => {
      this.#broken = true;
    });
    this.#engine = engine;
    this.#broken = false;
    // Failing to close a broken engine loses nothing: what was acknowledged is in the log.
    await former?.close().catch(() => undefined);
    return engine;
  }
}
