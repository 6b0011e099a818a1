/**
 * Subjects: the persons in a tenant's tables, each of whom can be erased alone (GDPR Art. 17).
 *
 * A table is declared with the column that says whose a row is. From then on the log has its rows sealed once more, under
 * a key of that person; to erase the person is to destroy that key. Order of an erasure: holds and retention are checked →
 * who and why is recorded in both audit streams → a mark says that this tenant is to be looked at → one transaction
 * deletes the rows, as SQL does, and records the erasure, which is the point of no return → the key is overwritten → the
 * projection is built anew from the log, beside, and takes the place of the one that had the rows → the signed certificate
 * is in the log.
 *
 * Kept: nothing is destroyed before the log says so durably; a person never comes half back, from whatever log or key
 * store; nobody else's rows, no offset, leaf or proof changes. Survives: a kill or a failing disk at any step: the next
 * start goes on.
 */
import { join } from "node:path";
import { auditTenant, type GovernanceOptions, governanceEvent } from "./administration.ts";
import { type AuditEvent, parseReason } from "./audit/audit-event.ts";
import { noteAudit } from "./audit/audit-stream.ts";
import {
  type ErasedTable,
  OUTSIDE_REACH_OF_SUBJECT,
  readSubjectCertificate,
  type SubjectErasureBegun,
  type SubjectErasureCertificate,
  signSubjectCertificate,
} from "./erasure/subject-certificate.ts";
import { KimberliteError, kimberliteError } from "./errors.ts";
import { isoTime } from "./host/clock.ts";
import { failpoint } from "./host/failpoint.ts";
import { isHollow, openBlock } from "./log/block.ts";
import { signCheckpoint } from "./log/checkpoint.ts";
import { decodeRecord } from "./log/record.ts";
import type { NodeState } from "./node-state.ts";
import { type OperationOptions, parseAddress, parseContext } from "./operations.ts";
import type { LaneTransaction } from "./pipeline/lane-transaction.ts";
import { findBase } from "./pipeline/projection-base.ts";
import type { TenantEngine } from "./pipeline/tenant-engine.ts";
import type { ErasedSubject } from "./projection/bookkeeping.ts";
import { parseValue } from "./projection/parameters.ts";
import { subjectCondition } from "./projection/scrub-subjects.ts";
import { subjectOf } from "./projection/subject-value.ts";
import { quoteName } from "./projection/tables.ts";
import type { SqlInput, SqlValue } from "./projection/values.ts";
import { rebuildWithoutErased } from "./rebuild-beside.ts";
import { markRecorded } from "./refusals.ts";
import { requireDisposable, retainedUntilUs } from "./retention/retention.ts";
import { parseOptions } from "./tenant/call-options.ts";
import { TenantId } from "./tenant/tenant-id.ts";

export interface SubjectDeclaration {
  readonly table: string;
  /** Column that says whose a row is; NULL is nobody. */
  readonly column: string;
}

export interface DeclaredSubject extends SubjectDeclaration {
  /** Offset of the record from which on the table's rows are sealed under their subjects. */
  readonly declaredAt: bigint;
}

export interface EraseSubjectOptions extends OperationOptions {
  /** Why, 1 to 1,000 characters: it is in the certificate. Name a request, not the person. */
  readonly reason: string;
  /** True to erase what is younger than its retention; governance mode alone allows it. */
  readonly overrideRetention?: boolean;
}

interface EraseRequest {
  readonly actor: string;
  readonly correlationId?: string;
  readonly address?: string;
  readonly reason: string;
  readonly overrideRetention: boolean;
}

interface Found {
  readonly value: SqlValue;
  readonly subject: Buffer;
}

/** Folder with the name of each tenant that is looked at when the node starts. */
export const SUBJECT_ERASURES = "subject-erasures";

/** @throws as `Kimberlite.declareSubject` */
export async function declareSubject(
  node: NodeState,
  id: TenantId,
  declaration: SubjectDeclaration,
  options: GovernanceOptions | undefined,
): Promise<DeclaredSubject> {
  const { table, column } = parseOptions(declaration);
  for (const name of [table, column]) {
    if (typeof name !== "string" || name === "" || name.length > 1_000)
      throw kimberliteError("invalid_argument", "a declaration names a table and a column");
  }
  const named = { table: table as string, column: column as string };
  node.directory.get(id);
  const event = governanceEvent(id, { action: "subject.declare", options, detail: named });
  const { tenant: _, ...own } = event;
  const context = { actor: event.actor, correlationId: event.correlationId, unmetered: true };
  return node.tenants.use(id, async (engine) => {
    await engine.keys.makeSubjectRoot();
    await engine.pipeline.submit(context, (session) => {
      if (session.declareSubject(named.table, named.column)) noteAudit(session, own);
    });
    const declared = await declarationsOf(engine);
    return declared.find((one) => one.table.toLowerCase() === named.table.toLowerCase()) as DeclaredSubject;
  });
}

/** Declarations of the tenant's tables. */
export async function declarationsOf(engine: TenantEngine): Promise<DeclaredSubject[]> {
  const { bookkeeping } = await engine.settledReader();
  return bookkeeping.subjectColumns().map(({ stream, column, logOffset }) => ({
    table: bookkeeping.stream(stream)?.name ?? "",
    column,
    declaredAt: logOffset,
  }));
}

/** Certificates of the subjects that were erased, oldest first. */
export async function subjectCertificatesOf(engine: TenantEngine): Promise<SubjectErasureCertificate[]> {
  const { bookkeeping } = await engine.settledReader();
  return bookkeeping
    .erasedSubjects()
    .flatMap(({ certificate }) => (certificate === undefined ? [] : [readSubjectCertificate(certificate)]));
}

export class SubjectErasures {
  readonly #node: NodeState;

  constructor(node: NodeState) {
    this.#node = node;
  }

  /** @throws as `Kimberlite.eraseSubject` */
  async erase(
    id: TenantId,
    value: SqlInput,
    options: EraseSubjectOptions,
  ): Promise<SubjectErasureCertificate> {
    const request = parseRequest(options);
    const parsed: SqlValue = parseValue(value, 1);
    const form = subjectOf(parsed);
    if (form === undefined) throw kimberliteError("invalid_argument", "NULL is no subject");
    this.#node.directory.get(id);
    return this.#node.maintain(id, async () => {
      const subject = await this.#node.tenants.use(id, async (engine) => {
        const known = engine.keys.hasSubjects ? engine.keys.subjects.find(form) : undefined;
        if (known === undefined) throw notFound(id);
        await this.#begin(engine, { value: parsed, subject: known }, request);
        return known;
      });
      const certificates = await this.#finish(id);
      const certificate = certificates.find((one) => one.subject === subject.toString("hex"));
      if (certificate === undefined) throw notFound(id);
      return certificate;
    });
  }

  /** Finishes what a crash interrupted. One that still cannot be finished is tried again at the next start. */
  async resume(): Promise<void> {
    for (const name of this.#node.disk.list(join(this.#node.root, SUBJECT_ERASURES))) {
      const id = TenantId(name);
      const state = this.#node.directory.has(id) ? this.#node.directory.entry(id).state : "erased";
      if (state.startsWith("eras")) this.#removeMark(id);
      else {
        await this.#node
          .maintain(id, () => this.#finish(id))
          .catch((error: unknown) => {
            if (!(error instanceof KimberliteError)) throw error;
          });
      }
    }
  }

  /** Up to the point of no return. Throwing leaves everything as it was. */
  async #begin(engine: TenantEngine, found: Found, request: EraseRequest): Promise<void> {
    const id = engine.tenant;
    const { subjects } = engine.keys;
    subjects.closeTo(found.subject);
    try {
      // A hold that is acknowledged before stands before it; one that comes meanwhile waits until it is done.
      await this.#node.directory.changing(id, async () => {
        const overriddenUntilUs = await this.#requireAllowed(engine, found.subject, request);
        const event = this.#event(id, request, found.subject);
        await this.#node.directory.note(await auditTenant(this.#node, id, { ...event, outcome: "began" }));
        this.#putMark(id);
        failpoint("subject-after-mark");
        await this.#deleteRows(engine, found, { request, overriddenUntilUs });
      });
      failpoint("subject-after-tombstone");
      await subjects.destroy(found.subject);
    } finally {
      subjects.reopen(found.subject);
    }
    failpoint("subject-after-key");
  }

  /** @returns when the retention ends that was overridden; undefined if it is over. */
  async #requireAllowed(
    engine: TenantEngine,
    subject: Buffer,
    request: EraseRequest,
  ): Promise<bigint | undefined> {
    const { directory, clock } = this.#node;
    const { tenant } = engine;
    const { retentionMs, retentionMode, legalHolds: holds } = directory.get(tenant);
    const sinceUs = clock.trustedUs() - BigInt(retentionMs) * 1000n;
    const youngestUs = retentionMs === 0 ? undefined : youngestOf(engine, subject, sinceUs);
    const facts = { tenant, retentionMs, retentionMode, holds, youngestUs, nowUs: clock.trustedUs() };
    try {
      requireDisposable(facts, request.overrideRetention);
    } catch (error) {
      if (error instanceof KimberliteError) {
        const refused = {
          ...this.#event(tenant, request, subject),
          outcome: "refused" as const,
          code: error.code,
        };
        await directory.note(await auditTenant(this.#node, tenant, refused));
        markRecorded(error);
      }
      throw error;
    }
    const untilUs = retainedUntilUs(facts);
    return facts.nowUs < untilUs ? untilUs : undefined;
  }

  #event(id: TenantId, request: EraseRequest, subject: Buffer): AuditEvent {
    const detail = { subject: subject.toString("hex") };
    return governanceEvent(id, { action: "subject.erase", options: request, detail });
  }

  /** The rows go as SQL deletes them, with what follows from it by the tenant's schema, and with them the subject. */
  async #deleteRows(
    engine: TenantEngine,
    { value, subject }: Found,
    about: { readonly request: EraseRequest; readonly overriddenUntilUs: bigint | undefined },
  ): Promise<void> {
    const { actor, correlationId, reason } = about.request;
    const { overriddenUntilUs } = about;
    const declared = await declarationsOf(engine);
    const beganAt = isoTime(this.#node.clock.wallTimeUs());
    const work = async (transaction: LaneTransaction): Promise<void> => {
      const tables: ErasedTable[] = [];
      for (const one of declared) {
        const rows = await deleteIn(transaction, one, value);
        tables.push({ table: one.table, column: one.column, declaredAt: one.declaredAt.toString(), rows });
      }
      for (const one of declared) await requireGone(transaction, one, value);
      const facts: SubjectErasureBegun = {
        actor,
        reason,
        beganAt,
        tables,
        ...(overriddenUntilUs === undefined ? {} : { retentionOverriddenUntil: isoTime(overriddenUntilUs) }),
      };
      await transaction.eraseSubject({ subject, facts: JSON.stringify(facts) });
    };
    const context = { actor, correlationId, unmetered: true, erasing: subject };
    const { timeLimitMs } = this.#node.limits;
    await engine.pipeline.interact(context, work, { timeLimitMs: timeLimitMs * (1 + declared.length) });
  }

  /** All steps after the point of no return; each may have been taken already. */
  async #finish(id: TenantId): Promise<SubjectErasureCertificate[]> {
    // What the log says was erased has no key any more: opening the tenant has seen to that.
    const open = await this.#node.tenants.use(id, uncertified);
    // The base of a trimmed tenant may have come back from a backup, from before.
    if (open.length > 0 || findBase({ ...this.#node, tenant: id }) !== undefined)
      await rebuildWithoutErased(this.#node, id);
    failpoint("subject-after-rebuild");
    const certificates = await this.#node.tenants.use(id, (engine) => this.#certify(engine, open));
    failpoint("subject-after-certificate");
    this.#removeMark(id);
    return certificates;
  }

  async #certify(engine: TenantEngine, open: readonly ErasedSubject[]): Promise<SubjectErasureCertificate[]> {
    const certificates: SubjectErasureCertificate[] = [];
    for (const erased of open) {
      const certificate = this.#sign(engine, erased);
      const { actor, reason } = certificate;
      const event = this.#event(engine.tenant, { actor, reason, overrideRetention: false }, erased.subject);
      const { tenant: _, ...own } = event;
      await engine.pipeline.submit({ actor, unmetered: true }, (session) => {
        session.eraseSubject({ subject: erased.subject, facts: "", certificate: certificate.note });
        noteAudit(session, own);
      });
      await this.#node.directory.note(event);
      certificates.push(certificate);
    }
    return certificates;
  }

  #sign(engine: TenantEngine, erased: ErasedSubject): SubjectErasureCertificate {
    const { installation, signer, clock } = this.#node;
    const { tenant, log } = engine;
    const begun = JSON.parse(erased.facts) as SubjectErasureBegun;
    const frontier = log.frontier();
    const head = { size: frontier.size, root: frontier.root() };
    const checkpoint = signCheckpoint({ origin: `${signer.keyName}/tenant/${tenant}`, ...head }, signer);
    return signSubjectCertificate(
      {
        tenant: tenant.toString(),
        installation: installation.id,
        subject: erased.subject.toString("hex"),
        ...begun,
        endedAt: isoTime(clock.wallTimeUs()),
        offset: erased.logOffset.toString(),
        log: { size: head.size.toString(), root: head.root.toString("base64"), checkpoint },
        removed: [
          { what: "keys", where: `keys/${tenant}.subjects`, count: 1 },
          { what: "projection", where: `tenants/${tenant}/projection`, count: 1 },
        ],
        outsideReach: OUTSIDE_REACH_OF_SUBJECT,
      },
      signer,
    );
  }

  #putMark(id: TenantId): void {
    const { disk, root } = this.#node;
    const folder = join(root, SUBJECT_ERASURES);
    if (!disk.has(folder)) {
      disk.makeFolder(folder);
      disk.syncFolder(root);
    }
    disk.open(join(folder, id.toString()), "create").close();
    disk.syncFolder(folder);
  }

  #removeMark(id: TenantId): void {
    this.#node.disk.removeFile(join(this.#node.root, SUBJECT_ERASURES, id.toString()));
  }
}

async function uncertified(engine: TenantEngine): Promise<ErasedSubject[]> {
  const { bookkeeping } = await engine.settledReader();
  return bookkeeping.erasedSubjects().filter(({ certificate }) => certificate === undefined);
}

async function deleteIn(
  transaction: LaneTransaction,
  { table, column }: SubjectDeclaration,
  value: SqlValue,
): Promise<number> {
  const sql = `DELETE FROM ${quoteName(table)} WHERE ${subjectCondition(column)}`;
  const [result] = await transaction.run([{ sql, params: [value] }]);
  return result?.rowsAffected ?? 0;
}

/** @throws `constraint_violation` for rows that a trigger of the tenant kept or made again */
async function requireGone(
  transaction: LaneTransaction,
  { table, column }: SubjectDeclaration,
  value: SqlValue,
): Promise<void> {
  const sql = `SELECT 1 FROM ${quoteName(table)} WHERE ${subjectCondition(column)} LIMIT 1`;
  const [result] = await transaction.run([{ sql, params: [value] }]);
  if (result?.rows.length === 0) return;
  throw kimberliteError("constraint_violation", "a trigger keeps rows of the subject from being deleted", {
    detail: { constraint: "trigger" },
  });
}

/**
 * Commit time of the subject's youngest change; undefined if none is as young as `sinceUs`.
 *
 * Cost: the headers of the log, and the records since then.
 */
function youngestOf(engine: TenantEngine, subject: Buffer, sinceUs: bigint): bigint | undefined {
  let youngestUs: bigint | undefined;
  for (const block of engine.log.blocks(engine.firstOffset)) {
    const { header } = block;
    if (header.timeUs <= sinceUs || !header.withSubjects || isHollow(header)) continue;
    const records = openBlock(block, engine.keys.logKey(header.dekVersion)).map(decodeRecord);
    for (const { changes, timeUs } of records) {
      if (changes.some((change) => change.kind === "sealed-row" && subject.equals(change.subject)))
        youngestUs = timeUs;
    }
  }
  return youngestUs;
}

function parseRequest(options: EraseSubjectOptions): EraseRequest {
  const given = parseOptions(options);
  const { overrideRetention = false } = given;
  if (typeof overrideRetention !== "boolean")
    throw kimberliteError("invalid_argument", "overrideRetention is true or false");
  const { actor, correlationId } = parseContext(given);
  const address = parseAddress(given);
  return {
    ...(address === undefined ? {} : { address }),
    actor,
    overrideRetention,
    reason: parseReason(given.reason),
    ...(correlationId === undefined ? {} : { correlationId }),
  };
}

function notFound(tenant: TenantId): Error {
  return kimberliteError("subject_not_found", "nothing is known of such a subject", { detail: { tenant } });
}
