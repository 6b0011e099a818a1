/**
 * The audit stream: local stream 1 of every tenant, the system's included, made with its first event.
 *
 * Tenants read it and cannot write it. Its records are not metered: a tenant at its quota is still audited.
 */
import { kimberliteError } from "../errors.ts";
import type { TenantEngine } from "../pipeline/tenant-engine.ts";
import type { WriteSession } from "../projection/writer.ts";
import { parseOffset, readItems } from "../stream/stream-reader.ts";
import { parseCount, parseOptions } from "../tenant/call-options.ts";
import { type AuditAction, type AuditEntry, type AuditEvent, encodeAuditEvent } from "./audit-event.ts";

export const AUDIT_STREAM = 1;
/** As its records name it; `streams()` calls it "audit". */
const AUDIT_STREAM_NAME = "_kimberlite_audit";

/** Which events are wanted. */
export interface AuditRange {
  /** First offset of the audit stream; 0 unless given. */
  readonly from?: bigint | number;
  /** Most events; all unless given. */
  readonly limit?: number;
  /** Only events of this action. */
  readonly action?: AuditAction;
}

/** Adds an event to the transaction of the session: both are there, or neither. */
export function noteAudit(session: WriteSession, event: AuditEvent): void {
  session.ensureStream(AUDIT_STREAM, AUDIT_STREAM_NAME);
  session.appendEvents(AUDIT_STREAM, [encodeAuditEvent(event)]);
}

/** Records an event in a tenant's audit stream; durable when it resolves. @throws `disk_full`, `disk_failed`, `closed` */
export async function recordAudit(engine: TenantEngine, event: AuditEvent): Promise<void> {
  const context = { actor: event.actor, correlationId: event.correlationId, unmetered: true };
  await engine.pipeline.submit(context, (session) => noteAudit(session, event));
}

/** What `readAudit` takes. */
interface ParsedRange {
  readonly from: bigint;
  readonly limit: number;
  readonly action: AuditAction | undefined;
}

/** @throws `invalid_argument` */
export function parseAuditRange(range: AuditRange): ParsedRange {
  const { from = 0n, limit = Number.MAX_SAFE_INTEGER, action } = parseOptions(range);
  if (action !== undefined && typeof action !== "string") {
    throw kimberliteError("invalid_argument", "an action is text such as tenant.erase");
  }
  return { from: parseOffset(from, "from"), limit: parseCount(limit, { name: "limit", min: 0 }), action };
}

const PAGE = 500;

/** Events in order, as many as there are, in pages: the tenant is held open for one page at a time. */
export async function* auditPages(
  use: (work: (engine: TenantEngine) => Promise<AuditEntry[]>) => Promise<AuditEntry[]>,
  range: ParsedRange,
): AsyncGenerator<AuditEntry, void> {
  let { from, limit } = range;
  while (limit > 0) {
    const wanted = { ...range, from, limit: Math.min(limit, PAGE) };
    const page = await use((engine) => Array.fromAsync(readAudit(engine, wanted)));
    yield* page;
    limit -= page.length;
    if (page.length < wanted.limit) return;
    from = (page.at(-1) as AuditEntry).offset + 1n;
  }
}

async function* readAudit(engine: TenantEngine, range: ParsedRange): AsyncGenerator<AuditEntry, void> {
  const { bookkeeping } = await engine.settledReader();
  const stream = bookkeeping.stream(AUDIT_STREAM);
  if (stream === undefined || range.limit === 0) return;
  const first = engine.firstOffset === 0n ? 0n : bookkeeping.firstItemFrom(AUDIT_STREAM, engine.firstOffset);
  const from = range.from > first ? range.from : first;
  let left = range.limit;
  for await (const item of readItems(engine, stream, { from, limit: Number.MAX_SAFE_INTEGER })) {
    if (item.kind !== "event") continue;
    const event = item.data as unknown as AuditEvent;
    if (range.action !== undefined && event.action !== range.action) continue;
    const { offset, logOffset, timeUs } = item;
    const tenant = event.tenant === undefined ? {} : { tenant: BigInt(event.tenant) };
    yield { ...event, ...tenant, offset, logOffset, timeUs };
    left -= 1;
    if (left === 0) return;
  }
}
