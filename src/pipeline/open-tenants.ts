/**
 * The tenants that are open: an LRU bounded by count, so that descriptors and memory are. Thousands are cold at any
 * time; a cold one opens in milliseconds. A tenant in use is never closed; one that is being opened is opened once.
 */
import type { TenantId } from "../tenant/tenant-id.ts";
import type { TenantEngine } from "./tenant-engine.ts";

interface Slot {
  readonly opening: Promise<TenantEngine>;
  engine: TenantEngine | undefined;
  users: number;
  /** When it was last used, counted in uses. A number, for keeping slots in order of use costs 2 µs a read. */
  usedAt: number;
}

export class OpenTenants {
  readonly #openEngine: (tenant: TenantId) => Promise<TenantEngine>;
  readonly #maxOpen: number;
  readonly #slots: Map<TenantId, Slot> = new Map();
  readonly #closing: Map<TenantId, Promise<void>> = new Map();
  #uses = 0;

  constructor(open: (tenant: TenantId) => Promise<TenantEngine>, maxOpen: number) {
    this.#openEngine = open;
    this.#maxOpen = maxOpen;
  }

  get size(): number {
    return this.#slots.size;
  }

  /** Tenants that are open, or being opened. */
  open(): TenantId[] {
    return [...this.#slots.keys()];
  }

  /** The engine if it is open, marked as used now. Does not pin it: only for work that ends in this turn. */
  peek(tenant: TenantId): TenantEngine | undefined {
    const slot = this.#slots.get(tenant);
    if (slot?.engine === undefined) return undefined;
    this.#touch(slot);
    return slot.engine;
  }

  /** Runs work with the tenant open, opening it if need be; it stays open until the work ends. */
  async use<T>(tenant: TenantId, work: (engine: TenantEngine) => T | Promise<T>): Promise<T> {
    const slot = this.#slots.get(tenant) ?? this.#openSlot(tenant);
    slot.users += 1;
    try {
      const engine = slot.engine ?? (await slot.opening);
      this.#touch(slot);
      return await work(engine);
    } finally {
      slot.users -= 1;
      if (this.#slots.size > this.#maxOpen) this.#evict();
    }
  }

  /** Closes a tenant when its users are done, so that the next use opens it anew. */
  async close(tenant: TenantId): Promise<void> {
    const slot = this.#slots.get(tenant);
    if (slot !== undefined) await this.#closeSlot(tenant, slot);
    await this.#closing.get(tenant);
  }

  /** Closes a tenant and works while nobody can open it; whoever uses it meanwhile waits. */
  async exclusively<T>(tenant: TenantId, work: () => Promise<T>): Promise<T> {
    const slot = this.#slots.get(tenant);
    const before = this.#closing.get(tenant);
    const { promise: done, resolve } = Promise.withResolvers<void>();
    if (slot !== undefined) this.#slots.delete(tenant);
    this.#closing.set(tenant, done);
    try {
      await before;
      const engine = await slot?.opening.catch(() => undefined);
      await engine?.close();
      return await work();
    } finally {
      if (this.#closing.get(tenant) === done) this.#closing.delete(tenant);
      resolve();
    }
  }

  async closeAll(): Promise<void> {
    const closed = await Promise.allSettled([...this.#slots.keys()].map((tenant) => this.close(tenant)));
    await Promise.all(this.#closing.values());
    for (const one of closed) if (one.status === "rejected") throw one.reason;
  }

  #openSlot(tenant: TenantId): Slot {
    const opening = (this.#closing.get(tenant) ?? Promise.resolve()).then(() => this.#openEngine(tenant));
    const slot: Slot = { opening, engine: undefined, users: 0, usedAt: 0 };
    this.#touch(slot);
    this.#slots.set(tenant, slot);
    opening.then(
      (engine) => {
        slot.engine = engine;
      },
      () => {
        if (this.#slots.get(tenant) === slot) this.#slots.delete(tenant);
      },
    );
    return slot;
  }

  #touch(slot: Slot): void {
    this.#uses += 1;
    slot.usedAt = this.#uses;
  }

  #evict(): void {
    for (let excess = this.#slots.size - this.#maxOpen; excess > 0; excess -= 1) {
      const coldest = this.#coldest();
      if (coldest === undefined) return;
      // Failing to close cleanly loses nothing: what was acknowledged is in the log.
      this.#closeSlot(...coldest).catch(() => undefined);
    }
  }

  /** Of the tenants that nobody uses, the one whose last use is longest ago. */
  #coldest(): [TenantId, Slot] | undefined {
    let coldest: [TenantId, Slot] | undefined;
    for (const [tenant, slot] of this.#slots) {
      if (slot.users > 0 || slot.engine === undefined) continue;
      if (coldest !== undefined && coldest[1].usedAt <= slot.usedAt) continue;
      if (!slot.engine.busy) coldest = [tenant, slot];
    }
    return coldest;
  }

  async #closeSlot(tenant: TenantId, slot: Slot): Promise<void> {
    if (this.#slots.get(tenant) === slot) this.#slots.delete(tenant);
    const closed = slot.opening.then(
      (engine) => engine.close(),
      // One that did not open has told those who asked for it.
      () => undefined,
    );
    const settled = closed
      .catch(() => undefined)
      .finally(() => {
        if (this.#closing.get(tenant) === settled) this.#closing.delete(tenant);
      });
    this.#closing.set(tenant, settled);
    await closed;
  }
}
