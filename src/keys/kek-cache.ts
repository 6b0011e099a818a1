/**
 * Unwrapped KEKs of remote master keys, kept for a bounded time, so that a tenant which is closed and opened again and
 * again asks its KMS once in that time and not each time.
 *
 * Kept: a key stays at most `ttlMs` after it was unwrapped, and there are at most `maxEntries`; every Buffer is zeroed
 * when it leaves; an entry answers only for the very bytes and context that gave it, so what was rotated, moved or
 * replaced is asked for again; what is wrong or refused is never kept.
 */
import { createHash } from "node:crypto";
import type { Clock } from "../host/clock.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import { encodeKeyContext, type KeyContext, type MasterKeyProvider } from "./master-key.ts";

interface Kept {
  readonly tenant: TenantId;
  readonly key: Buffer;
  readonly untilMs: number;
}

const MAX_ENTRIES = 10_000;

export class KekCache {
  readonly #clock: Clock;
  readonly #ttlMs: number;
  readonly #kept: Map<string, Kept> = new Map();
  #timer: NodeJS.Timeout | undefined;

  constructor(clock: Clock, ttlMs: number) {
    this.#clock = clock;
    this.#ttlMs = ttlMs;
  }

  /** The provider, asked only for what is not kept. The file's key is at hand anyway: it is returned as it is. */
  over(provider: MasterKeyProvider): MasterKeyProvider {
    if (provider.uri.startsWith("file:") || this.#ttlMs === 0) return provider;
    return new CachedProvider(provider, this);
  }

  /** A copy of the key, which is the caller's to zero. */
  take(entry: string): Buffer | undefined {
    const kept = this.#kept.get(entry);
    if (kept === undefined) return undefined;
    if (kept.untilMs > this.#clock.monotonicMs()) return Buffer.from(kept.key);
    this.#drop(entry, kept);
    return undefined;
  }

  /** Keeps a copy. */
  keep(entry: string, tenant: TenantId, key: Buffer): void {
    const before = this.#kept.get(entry);
    if (before !== undefined) this.#drop(entry, before);
    const oldest = this.#kept.size >= MAX_ENTRIES ? this.#kept.entries().next().value : undefined;
    if (oldest !== undefined) this.#drop(...oldest);
    this.#kept.set(entry, {
      tenant,
      key: Buffer.from(key),
      untilMs: this.#clock.monotonicMs() + this.#ttlMs,
    });
    this.#sweepLater();
  }

  /** Forgets what is kept of a tenant: it was erased or frozen. */
  forget(tenant: TenantId): void {
    for (const [entry, kept] of this.#kept) if (kept.tenant === tenant) this.#drop(entry, kept);
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    for (const [entry, kept] of this.#kept) this.#drop(entry, kept);
  }

  #drop(entry: string, kept: Kept): void {
    kept.key.fill(0);
    this.#kept.delete(entry);
  }

  /** What nobody asks for again is zeroed in time too. */
  #sweepLater(): void {
    if (this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      const nowMs = this.#clock.monotonicMs();
      for (const [entry, kept] of this.#kept) if (kept.untilMs <= nowMs) this.#drop(entry, kept);
      if (this.#kept.size > 0) this.#sweepLater();
    }, this.#ttlMs);
    this.#timer.unref();
  }
}

class CachedProvider implements MasterKeyProvider {
  readonly #inner: MasterKeyProvider;
  readonly #cache: KekCache;

  constructor(inner: MasterKeyProvider, cache: KekCache) {
    this.#inner = inner;
    this.#cache = cache;
  }

  get uri(): string {
    return this.#inner.uri;
  }

  get keyId(): string {
    return this.#inner.keyId;
  }

  wrap(key: Buffer, context: KeyContext): Promise<Uint8Array> {
    return this.#inner.wrap(key, context);
  }

  async unwrap(wrapped: Uint8Array, context: KeyContext): Promise<Buffer> {
    const entry = createHash("sha256")
      .update(this.#inner.keyId)
      .update("\0")
      .update(encodeKeyContext(context))
      .update(wrapped)
      .digest("base64");
    const kept = this.#cache.take(entry);
    if (kept !== undefined) return kept;
    const key = await this.#inner.unwrap(wrapped, context);
    this.#cache.keep(entry, context.tenant, key);
    return key;
  }

  close(): Promise<void> {
    return this.#inner.close();
  }
}
