/**
 * Reads of what is shared: one tenant's table or event stream, read by another under a grant.
 *
 * A read runs in the owner's engine under the owner's keys. The grant is looked at before it runs, after it ran, and at
 * every row or event that is handed out; the record of the use is durable in both tenants' audit streams before any is.
 * Refusals are recorded too, and say nothing of the owner.
 *
 * Kept: without a standing grant nothing leaves, and nothing leaves unrecorded. Survives: a log of either tenant that
 * cannot be written, an owner that is suspended, frozen, damaged or erased meanwhile, a grant that ends meanwhile.
 */
import { auditTenant } from "./administration.ts";
import type { AuditEvent } from "./audit/audit-event.ts";
import { recordAudit } from "./audit/audit-stream.ts";
import { type ErrorCode, KimberliteError, kimberliteError } from "./errors.ts";
import { type Granting, grantEvent } from "./granting.ts";
import type { NodeState } from "./node-state.ts";
import { type OperationOptions, parseContext } from "./operations.ts";
import type { TenantEngine } from "./pipeline/tenant-engine.ts";
import type { SharedStep } from "./projection/lane-protocol.ts";
import type { SharedShape } from "./projection/shared-table.ts";
import { isProjectionDamage } from "./projection/sqlite-error.ts";
import type { StatementDescription } from "./projection/statement-cache.ts";
import type { StatementRequest, StatementResult } from "./projection/writer.ts";
import type { QuotaGate } from "./quota/quota-gate.ts";
import { chooseGrant, type GrantRow, grantError, refusalOf } from "./sharing/grant.ts";
import { ReaderTurns } from "./sharing/reader-turns.ts";
import type { EventValue } from "./stream/event.ts";
import { readItems } from "./stream/stream-reader.ts";
import { isStreamId, type StreamId, type TenantId } from "./tenant/tenant-id.ts";

/** Under which grant something is read, and for whom it is recorded. */
export interface SharedOptions extends OperationOptions {
  /** Id of the grant; unless given, the newest of the stream to the reader that stands. */
  readonly grant?: string;
}

/** An event of a stream that is shared. */
export interface SharedItem {
  /** Place in the stream: dense, from 0. */
  readonly offset: bigint;
  /** Commit time, microseconds since 1970-01-01T00:00:00Z. */
  readonly timeUs: bigint;
  readonly kind: "event";
  readonly data: EventValue;
}

/** What the reader has to know of a failure; any other is the owner's alone. */
const TOLD: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "invalid_sql",
  "invalid_parameter",
  "invalid_argument",
  "unsupported_sql",
  "read_only",
  "statement_timeout",
  "result_too_large",
  "value_too_large",
  "grant_ended",
  "overloaded",
  "aborted",
  "closed",
]);

const PAGE_ITEMS = 256;
const PAGE_BYTES = 1024 * 1024;
/** How often a refusal of a tenant that was granted nothing is told to the owner that it named. */
const TELL_MS = 60_000;
const MAX_TOLD = 10_000;

interface Use {
  readonly grant: GrantRow;
  readonly context: { readonly actor: string; readonly correlationId?: string | undefined };
}

export class Sharing {
  readonly #node: NodeState;
  readonly #granting: Granting;
  readonly #admit: (id: TenantId) => TenantId;
  readonly #turns: ReaderTurns = new ReaderTurns();
  readonly #background: Set<Promise<void>> = new Set();
  readonly #toldAtMs: Map<string, number> = new Map();

  /** @param admit throws if a tenant is not served. */
  constructor(node: NodeState, granting: Granting, admit: (id: TenantId) => TenantId) {
    this.#node = node;
    this.#granting = granting;
    this.#admit = admit;
  }

  /** Runs one statement of the reader on what is shared. */
  async query(
    reader: TenantId,
    stream: StreamId,
    request: StatementRequest,
    options: SharedOptions | undefined,
  ): Promise<StatementResult> {
    return (await this.ask(reader, stream, { kind: "run", request }, options)) as StatementResult;
  }

  /** Runs or describes one statement of the reader. */
  async ask(
    reader: TenantId,
    stream: StreamId,
    step: SharedStep,
    options: SharedOptions | undefined,
  ): Promise<StatementResult | StatementDescription> {
    const gate = this.#gate(reader);
    gate.enter();
    try {
      const use = await this.#begin(reader, stream, options);
      requireKind(use.grant, "table");
      return await this.#turns.run(reader, () => this.#run(use, step));
    } finally {
      gate.leave();
    }
  }

  /** As `query`; the grant is asked for again at each row. */
  async *iterate(
    reader: TenantId,
    stream: StreamId,
    request: StatementRequest,
    options: SharedOptions | undefined,
  ): AsyncGenerator<StatementResult["rows"][number], void> {
    const grant = this.#pick(reader, stream, options);
    const pinned = grant === undefined ? options : { ...options, grant: grant.id };
    const { rows } = await this.query(reader, stream, request, pinned);
    yield* this.#handOut({ grant: grant as GrantRow, context: parseContext(options) }, rows);
  }

  /** Asked while rows that were found are handed out. @throws why the grant stands no more, after that was recorded */
  async requireStanding(
    reader: TenantId,
    stream: StreamId,
    options: SharedOptions & { readonly grant: string },
  ): Promise<void> {
    const grant = this.#pick(reader, stream, options);
    const refusal = grant === undefined ? "grant_ended" : this.#refusal(grant);
    if (refusal === undefined) return;
    if (grant === undefined) throw grantError(refusal);
    const use = { grant, context: parseContext(options) };
    await this.#recorded(use, () => Promise.reject(grantError(refusal, grant)));
  }

  /** Events that are shared, in order. */
  async *read(
    reader: TenantId,
    stream: StreamId,
    range: { readonly from: bigint; readonly limit: number },
    options: SharedOptions | undefined,
  ): AsyncGenerator<SharedItem, void> {
    const gate = this.#gate(reader);
    gate.enter();
    try {
      const use = await this.#begin(reader, stream, options);
      requireKind(use.grant, "events");
      yield* this.#pages(use, range);
    } finally {
      gate.leave();
    }
  }

  #gate(reader: TenantId): QuotaGate {
    return this.#node.gate(reader, this.#node.directory.get(this.#admit(reader)).quota);
  }

  /** Waits for what goes on behind refusals. */
  async close(): Promise<void> {
    await Promise.all(this.#background);
  }

  async *#pages(
    use: Use,
    range: { readonly from: bigint; readonly limit: number },
  ): AsyncGenerator<SharedItem, void> {
    const end = BigInt(use.grant.maxRows ?? Number.MAX_SAFE_INTEGER);
    let { from, limit } = range;
    while (limit > 0 && from < end) {
      const most = Math.min(limit, PAGE_ITEMS, Number(end - from));
      const page = await this.#turns.run(use.grant.toTenant, () => this.#page(use, { from, limit: most }));
      yield* this.#handOut(use, page);
      const last = page.at(-1);
      if (last === undefined) return;
      limit -= page.length;
      from = last.offset + 1n;
    }
  }

  async #page(use: Use, range: { readonly from: bigint; readonly limit: number }): Promise<SharedItem[]> {
    const { grant } = use;
    return this.#recorded(use, async () => {
      const rows = await this.#withOwner(grant, async (engine) => {
        const row = (await engine.settledReader()).bookkeeping.stream(grant.stream.local);
        if (row === undefined || row.dropped || row.kind !== "events" || row.name !== grant.name) {
          throw grantError("grant_ended", grant);
        }
        const items: SharedItem[] = [];
        let bytes = 0;
        for await (const item of readItems(engine, row, range)) {
          if (item.kind !== "event") continue;
          const { offset, timeUs, kind, data } = item;
          items.push({ offset, timeUs, kind, data });
          bytes += sizeOf(data);
          if (bytes > PAGE_BYTES) break;
        }
        return items;
      });
      return { value: rows, rows: rows.length };
    });
  }

  #run(use: Use, step: SharedStep): Promise<StatementResult | StatementDescription> {
    const { grant } = use;
    return this.#recorded(use, async () => {
      this.#requireStanding(grant);
      const where = await this.#granting.predicateOf(grant);
      const { stream, name: table, columns = [], maxRows } = grant;
      const shape = grant.shape as SharedShape;
      const view = { stream: stream.local, table, shape, columns, where, maxRows };
      const result = await this.#withOwner(grant, async (engine) => {
        await engine.pipeline.settled();
        this.#requireStanding(grant, engine);
        const target = engine.laneTarget(engine.projectionPath);
        return this.#node.lanes.lease(target.path, (lease) => lease.shared(target, view, step));
      });
      return { value: result, rows: "rows" in result ? result.rows.length : 0 };
    });
  }

  /**
   * Runs what reads, and records the use before its result is handed on: with the count of rows, or why there are none.
   */
  async #recorded<T>(
    use: Use,
    work: () => Promise<{ readonly value: T; readonly rows: number }>,
  ): Promise<T> {
    const { grant, context } = use;
    const about = { ...context, reason: grant.purpose };
    try {
      const { value, rows } = await work();
      await this.#tellBoth(grant, grantEvent(grant, "grant.use", { ...about, detail: { rows } }));
      this.#requireStanding(grant);
      return value;
    } catch (thrown) {
      const error = await this.#told(grant, thrown);
      const outcome = isRefusal(error) ? ("refused" as const) : ("failed" as const);
      const event = grantEvent(grant, "grant.use", { ...about, outcome, code: error.code });
      await this.#tellWhomItCan(grant, event);
      throw error;
    }
  }

  /** The error for the reader, who learns nothing of the owner by it; a grant of what is gone ends. */
  async #told(grant: GrantRow, thrown: unknown): Promise<KimberliteError> {
    if (!(thrown instanceof KimberliteError)) throw thrown;
    const refusal = this.#refusal(grant);
    const present = this.#node.grants.find(grant.id);
    if (present !== undefined) await this.#granting.expire([present]);
    if (refusal !== undefined) return grantError(refusal, grant);
    if (thrown.code === "grant_ended") {
      await this.#granting.endLost(grant, "what it shared was dropped, renamed or altered");
      return grantError("grant_ended", grant);
    }
    if (!TOLD.has(thrown.code)) return grantError("grant_unavailable", grant);
    return thrown;
  }

  /** Work with the owner's engine; a projection that turns out to be damaged is rebuilt once. */
  async #withOwner<T>(grant: GrantRow, work: (engine: TenantEngine) => Promise<T>): Promise<T> {
    const { tenants } = this.#node;
    this.#admit(grant.fromTenant);
    try {
      return await tenants.use(grant.fromTenant, work);
    } catch (error) {
      if (!isProjectionDamage(error)) throw error;
      await this.#node.rebuildProjection(grant.fromTenant);
      return tenants.use(grant.fromTenant, work);
    }
  }

  #pick(reader: TenantId, stream: StreamId, options: SharedOptions | undefined): GrantRow | undefined {
    if (!isStreamId(stream)) throw kimberliteError("invalid_argument", "a stream is named by a StreamId");
    const { grant: id } = options ?? {};
    const grants = this.#node.grants.to(reader, stream);
    return id === undefined
      ? chooseGrant(grants, this.#granting.times())
      : grants.find((grant) => grant.id === id);
  }

  /** The grant that the read is made under. @throws why there is none that stands, after that was recorded */
  async #begin(reader: TenantId, stream: StreamId, options: SharedOptions | undefined): Promise<Use> {
    const context = parseContext(options);
    const grant = this.#pick(reader, stream, options);
    if (grant === undefined) {
      await this.#refuseStranger(reader, stream, context);
      throw grantError("grant_not_found");
    }
    const refusal = this.#refusal(grant);
    if (refusal !== undefined) {
      await this.#recorded({ grant, context }, () => Promise.reject(grantError(refusal, grant)));
    }
    return { grant, context };
  }

  /** Why nothing may leave under the grant now: asked at each fetch, for a read outlives what let it begin. */
  #refusal(grant: GrantRow, engine?: TenantEngine): ErrorCode | undefined {
    const present = this.#node.grants.find(grant.id);
    if (present === undefined) return "grant_ended";
    const refusal = refusalOf(present, this.#granting.times(engine));
    if (refusal !== undefined) return refusal;
    this.#admit(grant.toTenant);
    try {
      this.#admit(grant.fromTenant);
    } catch (error) {
      if (error instanceof KimberliteError) return "grant_unavailable";
      throw error;
    }
    return undefined;
  }

  /** @throws why nothing may leave under the grant now */
  #requireStanding(grant: GrantRow, engine?: TenantEngine): void {
    const refusal = this.#refusal(grant, engine);
    if (refusal !== undefined) throw grantError(refusal, grant);
  }

  /** What is read already, one by one, as long as the grant stands. */
  async *#handOut<T>(use: Use, items: readonly T[]): AsyncGenerator<T, void> {
    for (const item of items) {
      const refusal = this.#refusal(use.grant);
      if (refusal !== undefined)
        await this.#recorded(use, () => Promise.reject(grantError(refusal, use.grant)));
      yield item;
    }
  }

  /** Both records, or nothing leaves. */
  async #tellBoth({ fromTenant, toTenant }: GrantRow, event: AuditEvent): Promise<void> {
    const { tenants } = this.#node;
    await Promise.all(
      [fromTenant, toTenant].map((tenant) => tenants.use(tenant, (engine) => recordAudit(engine, event))),
    );
  }

  /** Of a refusal: where a tenant's own stream cannot be written, the system's says so. */
  async #tellWhomItCan({ fromTenant, toTenant }: GrantRow, event: AuditEvent): Promise<void> {
    for (const tenant of [fromTenant, toTenant]) {
      const told = await auditTenant(this.#node, tenant, { ...event, tenant });
      if (told.detail?.["tenantStream"] !== undefined) await this.#node.directory.note(told);
    }
  }

  /**
   * A tenant asked for what was never granted to it. Its own stream says so before it is refused; the owner that it named
   * is told afterwards, and seldom, so that neither the time of the refusal nor its cost depend on who that is.
   */
  async #refuseStranger(reader: TenantId, stream: StreamId, context: Use["context"]): Promise<void> {
    const { actor, correlationId } = context;
    const detail = { owner: stream.tenant, reader, stream: stream.local };
    const event: AuditEvent = {
      action: "grant.use",
      outcome: "refused",
      actor,
      correlationId,
      code: "grant_not_found",
      detail,
    };
    await this.#node.tenants.use(reader, (engine) => recordAudit(engine, event));
    const telling = this.#tellOwner(stream.tenant, reader, event)
      .catch(() => undefined)
      .finally(() => this.#background.delete(telling));
    this.#background.add(telling);
  }

  async #tellOwner(owner: TenantId, reader: TenantId, event: AuditEvent): Promise<void> {
    const key = `${owner} ${reader}`;
    const nowMs = this.#node.clock.monotonicMs();
    const lastMs = this.#toldAtMs.get(key);
    if (lastMs !== undefined && nowMs - lastMs < TELL_MS) return;
    if (this.#toldAtMs.size >= MAX_TOLD) this.#toldAtMs.clear();
    this.#toldAtMs.set(key, nowMs);
    if (this.#node.tenants.peek(owner) === undefined)
      return this.#node.directory.note({ ...event, tenant: owner });
    await this.#node.tenants.use(owner, (engine) => recordAudit(engine, event));
  }
}

function requireKind(grant: GrantRow, kind: GrantRow["kind"]): void {
  if (grant.kind === kind) return;
  const message =
    kind === "table" ? "an event stream is read with readShared()" : "a table is read with queryShared()";
  throw kimberliteError("invalid_argument", message);
}

function isRefusal({ code }: KimberliteError): boolean {
  return code.startsWith("grant_");
}

/** About the bytes of an event. */
function sizeOf(data: EventValue): number {
  if (typeof data === "string" || data instanceof Uint8Array) return data.length;
  if (typeof data !== "object" || data === null) return 8;
  return Object.values(data).reduce<number>((sum, value) => sum + 8 + sizeOf(value as EventValue), 8);
}
