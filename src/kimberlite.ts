/**
 * The embedded database: tenants, each with a SQL database and event streams on an encrypted, provable log of its own.
 *
 * Every tenant-scoped method takes the tenant first; there is no current or default tenant. Every operation is admitted
 * by the tenant's state and quota before it touches the tenant.
 *
 * Over 500 lines because the public API is one class, with the contract of each method beside it.
 */

import { Access, type ApiKeyRequest, type KeyRequest, type NewApiKey } from "./access.ts";
import {
  type GovernanceOptions,
  type HoldRelease,
  type HoldRequest,
  keyEvent,
  makeTenant,
  placeHold,
  releaseHold,
  setQuota,
  setRetention,
  setState,
} from "./administration.ts";
import type { AuditEntry } from "./audit/audit-event.ts";
import {
  AUDIT_STREAM,
  type AuditRange,
  auditPages,
  parseAuditRange,
  recordAudit,
} from "./audit/audit-stream.ts";
import type { ApiKeyDescription } from "./auth/api-key.ts";
import { Authentication } from "./auth/authentication.ts";
import type { Authenticator } from "./auth/authenticator.ts";
import {
  type IssuerConfig,
  type NodeIssuerConfig,
  parseNodeIssuer,
  type RegisteredIssuer,
} from "./auth/issuer.ts";
import { keyFetcher } from "./auth/jwks-fetch.ts";
import {
  type BackupOptions,
  type BackupReport,
  backUpNode,
  backupsIn,
  type RestoreTenantOptions,
  restoreTenant,
} from "./backup.ts";
import type { BackupPlace } from "./backup-places.ts";
import { type RefusedErasure, toTenantEntry } from "./directory/catalogue.ts";
import type { ErasureCertificate } from "./erasure/certificate.ts";
import type { SubjectErasureCertificate } from "./erasure/subject-certificate.ts";
import { type EraseOptions, Erasures } from "./erasure.ts";
import { KimberliteError, kimberliteError } from "./errors.ts";
import { Granting, PREDICATE_STREAM } from "./granting.ts";
import { HeldKeys, moveTenantKey } from "./held-keys.ts";
import type { TenantKeyReport } from "./keys/key-report.ts";
import type { MasterKeyProvider } from "./keys/master-key.ts";
import type { TenantKeys } from "./keys/tenant-keys.ts";
import { openCheckpoint, signCheckpoint } from "./log/checkpoint.ts";
import {
  type ConsistencyProof,
  type InclusionProof,
  proveConsistency,
  proveInclusion,
} from "./log/proofs.ts";
import { formatVerifierKey, parseVerifierKey, verifierKey } from "./log/signed-note.ts";
import type { VerifyProgress, VerifyReport } from "./log/verify.ts";
import { type RotationProgress, rotateMaster } from "./master-rotation.ts";
import { NodeState } from "./node-state.ts";
import { type OpenOptions, requireMasterKey } from "./open-options.ts";
import {
  type ArraysResult,
  type ExecuteResult,
  insertRequest,
  type NodeStats,
  type OperationOptions,
  parseContext,
  parseSessionOptions,
  runList,
  type SessionOptions,
  type Statement,
  type StreamDescription,
  type TenantDescription,
  type Transaction,
  type TransactionOptions,
  toArraysResult,
  toExecuteResult,
  toTransaction,
} from "./operations.ts";
import type { LaneTransaction } from "./pipeline/lane-transaction.ts";
import type { TenantEngine } from "./pipeline/tenant-engine.ts";
import type { Moment } from "./pipeline/time-travel.ts";
import { type VerifyTenantOptions, verifyTenantLog } from "./pipeline/verify-tenant.ts";
import {
  type ExportOptions,
  type ExportReport,
  exportTenant,
  type ImportOptions,
  importTenant,
} from "./portability.ts";
import type { StreamRow } from "./projection/bookkeeping.ts";
import { isProjectionDamage } from "./projection/sqlite-error.ts";
import type { Row, SqlInput, SqlParams } from "./projection/values.ts";
import type { StatementRequest, StatementResult } from "./projection/writer.ts";
import { type ReencryptOptions, type ReencryptReport, reencryptTenant } from "./reencryption.ts";
import { type Asked, recorded } from "./refusals.ts";
import { adoptRestore } from "./restore.ts";
import { Session } from "./session.ts";
import { type SharedAsk, SharedSession } from "./shared-session.ts";
import type { Grant } from "./sharing/grant.ts";
import type { GrantRequest } from "./sharing/grant-terms.ts";
import { type SharedItem, type SharedOptions, Sharing } from "./sharing.ts";
import type { SqlSession } from "./sql-session.ts";
import {
  type AppendOptions,
  type AppendResult,
  appendEvents,
  findStream,
  makeStream,
} from "./stream/append.ts";
import {
  parseOffset,
  type ReadRange,
  readItems,
  type StreamItem,
  tailItems,
} from "./stream/stream-reader.ts";
import {
  type DeclaredSubject,
  declarationsOf,
  declareSubject,
  type EraseSubjectOptions,
  type SubjectDeclaration,
  SubjectErasures,
  subjectCertificatesOf,
} from "./subjects.ts";
import {
  parseCallback,
  parseCount,
  parseOptions,
  parseSignal,
  parseTimeLimit,
} from "./tenant/call-options.ts";
import type { Duration } from "./tenant/duration.ts";
import {
  type LegalHold,
  parseTenantConfig,
  type RetentionMode,
  type TenantConfig,
  type TenantEntry,
  type TenantQuota,
} from "./tenant/tenant-config.ts";
import { StreamId, TenantId } from "./tenant/tenant-id.ts";
import { type TrimOptions, type TrimReport, trimTenant } from "./trimming.ts";

/** What is known of a tenant's keys, and how far the present DEK is used. */
export interface TenantKeyUse extends TenantKeyReport {
  /** Blocks under the present DEK version. */
  readonly blocksSealed: number;
  /** Blocks after which the next version is put into force by itself. */
  readonly blocksLimit: number;
}

const DEFAULT_TRANSACTION_MS = 5_000;
const MAX_PAGE = 10_000;

export class Kimberlite implements AsyncDisposable {
  readonly #node: NodeState;
  readonly #erasures: Erasures;
  readonly #subjects: SubjectErasures;
  readonly #held: HeldKeys;
  readonly #access: Access;
  readonly #granting: Granting;
  readonly #sharing: Sharing;
  #closed: Promise<void> | undefined;

  private constructor(node: NodeState) {
    this.#node = node;
    this.#subjects = new SubjectErasures(node);
    this.#held = new HeldKeys(node, node.keyCacheMs);
    this.#access = new Access(node);
    const admit = (id: TenantId): TenantId => this.#admitted(id).id;
    this.#granting = new Granting(node, admit);
    this.#sharing = new Sharing(node, this.#granting, admit);
    this.#erasures = new Erasures(node, (id) => this.#granting.tenantErased(id));
  }

  /**
   * Opens a data directory, creating it unless `create` is false.
   *
   * Recovers what a crash left: the commit journal is replayed; projections catch up when their tenant is first used.
   * A wrong or missing master key changes nothing on the disk.
   *
   * @throws `master_key_missing`, `master_key_invalid`, `master_key_wrong`, `directory_locked`, `format_too_new`,
   * `directory_not_initialised`, `keys_missing`, `keys_damaged`, `journal_damaged`, `log_damaged`, `disk_failed`,
   * `runtime_unsupported`.
   */
  static async open(options: OpenOptions): Promise<Kimberlite> {
    const db = new Kimberlite(await NodeState.open(options));
    try {
      await db.#erasures.resume();
      await adoptRestore(db.#node, (grant) =>
        db.#granting.endLost(grant, "the node was restored from a backup"),
      );
      await db.#subjects.resume();
      return db;
    } catch (error) {
      await db.close().catch(() => undefined);
      throw error;
    }
  }

  /**
   * Creates a tenant: its keys first, then its entry in the catalogue.
   *
   * @throws `tenant_exists`, `tenant_erased` for the id of a tenant that was, `invalid_argument`
   */
  async createTenant(config: TenantConfig, options?: GovernanceOptions): Promise<TenantEntry> {
    const asked = { action: "tenant.create" as const, tenant: config?.id, options };
    return this.#recorded(asked, async (node) =>
      toTenantEntry(await makeTenant(node, parseTenantConfig(config), options)),
    );
  }

  /** Tenants in order of id; give the last id of a page as `after` for the next. At most 10,000 a page, 1,000 unless given. */
  async listTenants(
    page: { readonly after?: TenantId; readonly limit?: number } = {},
  ): Promise<TenantEntry[]> {
    const given = parseOptions(page);
    const limit = parseCount(given.limit ?? 1_000, { name: "limit", min: 1, max: MAX_PAGE });
    const after = given.after === undefined ? undefined : TenantId(given.after);
    const entries = this.#open().directory.list({ after, limit });
    return entries.map((entry) => toTenantEntry(this.#held.withAccess(entry)));
  }

  /**
   * Opens the tenant if it is cold.
   *
   * @throws `tenant_not_found`; the refusal of the tenant's own master key while its access is withdrawn, which
   * `listTenants` tells as well
   */
  async describeTenant(id: TenantId): Promise<TenantDescription> {
    const entry = this.#open().directory.get(TenantId(id));
    this.#held.requireThawed(entry.id);
    return this.#node.tenants.use(entry.id, (engine) => {
      const known = toTenantEntry(this.#held.withAccess(entry));
      const { totalBytes, nextOffset } = engine.log.head;
      const { firstOffset } = engine;
      return {
        ...known,
        size: nextOffset,
        firstOffset,
        logBytes: totalBytes,
        projectionBytes: engine.projectionBytes,
      };
    });
  }

  /** Refuses the tenant's reads and writes with `tenant_suspended` until it is resumed. Idempotent. */
  async suspendTenant(id: TenantId, options?: GovernanceOptions): Promise<TenantEntry> {
    return this.#recorded({ action: "tenant.suspend", tenant: id, options }, async (node) =>
      toTenantEntry(await setState(node, TenantId(id), "suspended", options)),
    );
  }

  async resumeTenant(id: TenantId, options?: GovernanceOptions): Promise<TenantEntry> {
    return this.#recorded({ action: "tenant.resume", tenant: id, options }, async (node) =>
      toTenantEntry(await setState(node, TenantId(id), "active", options)),
    );
  }

  /** Replaces the tenant's quota, at once. A quota below what is used refuses writes, and loses nothing. */
  async setQuota(id: TenantId, quota: TenantQuota, options?: GovernanceOptions): Promise<TenantEntry> {
    return this.#recorded({ action: "quota.set", tenant: id, options }, async (node) =>
      toTenantEntry(await setQuota(node, TenantId(id), quota, options)),
    );
  }

  /**
   * How long data is kept at least, from its commit on. A shorter one takes a `reason`, and in compliance mode is refused;
   * `mode` may be raised to compliance and never lowered.
   *
   * @throws `retention_locked`, `invalid_argument`
   */
  async setRetention(
    id: TenantId,
    retention: Duration,
    options?: GovernanceOptions & { readonly mode?: RetentionMode },
  ): Promise<TenantEntry> {
    return this.#recorded({ action: "retention.set", tenant: id, options }, async (node) =>
      toTenantEntry(await setRetention(node, TenantId(id), retention, options)),
    );
  }

  /**
   * Places a legal hold: until it is released, nothing of the tenant is erased or trimmed, whoever asks. Several may
   * stand at once. Idempotent for the same name and reason.
   */
  async placeLegalHold(id: TenantId, hold: HoldRequest): Promise<LegalHold> {
    return this.#recorded({ action: "hold.place", tenant: id, options: hold }, (node) =>
      placeHold(node, TenantId(id), hold),
    );
  }

  /** Ends a legal hold. Erasures that were refused meanwhile are in the result, to be asked for again. */
  async releaseLegalHold(id: TenantId, hold: HoldRequest): Promise<HoldRelease> {
    return this.#recorded({ action: "hold.release", tenant: id, options: hold }, (node) =>
      releaseHold(node, TenantId(id), hold),
    );
  }

  /** Erasures of the tenant that were asked for and refused, oldest first. */
  async refusedErasures(id: TenantId): Promise<readonly RefusedErasure[]> {
    const { directory } = this.#open();
    return directory.refusedErasures(directory.get(TenantId(id)).id);
  }

  /**
   * Erases a tenant for ever: its keys are overwritten, and nothing that was encrypted under them can be read again, here
   * or in any copy. The id is never used again. Interrupted, it is finished at the next start, or when asked again.
   *
   * Cost: until nothing can be read, milliseconds, whatever the size; then the removal of its files.
   * @throws `legal_hold`, `retention_not_over`, `retention_locked`, `tenant_erased`, `operation_running`, `disk_failed`
   */
  async eraseTenant(id: TenantId, options: EraseOptions): Promise<ErasureCertificate> {
    return this.#recorded({ action: "tenant.erase", tenant: id, options }, () =>
      this.#erasures.erase(TenantId(id), options),
    );
  }

  /** The signed certificate of a tenant that was erased. @throws `tenant_not_found`, `invalid_argument` */
  async erasureCertificate(id: TenantId): Promise<ErasureCertificate> {
    this.#open();
    return this.#erasures.certificate(TenantId(id));
  }

  /**
   * Declares the column of a table that says whose a row is, so that each person can be erased alone (`docs/subjects.md`).
   * The table has no rows yet; those that come are sealed in the log under a key of their subject. One column a table; the
   * same again changes nothing. The column keeps its name from then on.
   *
   * @throws `stream_not_found` for no such table, `unsupported_sql` for a virtual one, `constraint_violation` for one with
   * rows, `invalid_argument`
   */
  async declareSubject(
    id: TenantId,
    declaration: SubjectDeclaration,
    options?: GovernanceOptions,
  ): Promise<DeclaredSubject> {
    return this.#recorded({ action: "subject.declare", tenant: id, options }, (node) => {
      const tenant = this.#thawed(id);
      return this.#lasting(tenant, () => declareSubject(node, tenant, declaration, options));
    });
  }

  /** The tables whose subjects are declared. */
  async subjects(id: TenantId): Promise<readonly DeclaredSubject[]> {
    return this.#inspect(id, declarationsOf);
  }

  /**
   * Erases one person: the rows of declared tables whose column has that value are deleted, as SQL deletes them, and the
   * key is destroyed that their whole history in the log is sealed under. Nobody reads it again, at no moment, in no backup
   * of data; offsets, proofs and everybody else's rows stay as they are. Interrupted, it is finished at the next start.
   *
   * Cost: the projection is built anew from the log, beside, while the tenant is served.
   * @throws `subject_not_found` for one that has no rows, or was erased; `legal_hold`, `retention_not_over`,
   * `retention_locked`; `constraint_violation` for rows that others refer to; `disk_full`, `disk_failed`, `invalid_argument`
   */
  async eraseSubject(
    id: TenantId,
    subject: SqlInput,
    options: EraseSubjectOptions,
  ): Promise<SubjectErasureCertificate> {
    return this.#recorded({ action: "subject.erase", tenant: id, options }, () => {
      const tenant = this.#thawed(id);
      return this.#lasting(tenant, () => this.#subjects.erase(tenant, subject, options));
    });
  }

  /** The certificates of the tenant's subjects that were erased, oldest first. */
  async subjectCertificates(id: TenantId): Promise<readonly SubjectErasureCertificate[]> {
    return this.#inspect(id, subjectCertificatesOf);
  }

  /**
   * Writes the tenant into a directory, as it is when the call begins: events, tables, schema, checkpoint and a signed
   * manifest, for `verifyExport` and for anyone's eyes (`docs/portability.md`). In clear text: guard it as you would the
   * data. Reads and writes go on. Interrupted, it goes on where it was when it is called again with the same directory.
   *
   * Cost: reads the whole log and every table once, in slices; memory does not grow with the tenant.
   * @throws `destination_exists`, `disk_full`, `disk_failed`, `log_damaged`, `aborted`, `invalid_argument`
   */
  async exportTenant(id: TenantId, directory: string, options?: ExportOptions): Promise<ExportReport> {
    const asked = { action: "tenant.export" as const, tenant: id, options };
    return this.#recorded(asked, (node) => {
      const tenant = this.#thawed(id);
      return this.#lasting(tenant, () => exportTenant(node, tenant, directory, options));
    });
  }

  /**
   * Brings an export into this installation: verified first, with its history, offsets, proofs, retention and holds, under
   * keys of this installation. Until it is whole there is no such tenant; interrupted, nothing of it is left at the next
   * start. Its tables are built from its log when it is first used.
   *
   * @throws `export_invalid` for one that is damaged, not signed by `key`, or of another tenant than `tenant`;
   * `keys_missing` without the keys of its subjects; `tenant_exists`, `tenant_erased`, `disk_full`, `aborted`, `invalid_argument`
   */
  async importTenant(directory: string, options: ImportOptions): Promise<TenantEntry> {
    const asked = { action: "tenant.import" as const, tenant: options?.as ?? options?.tenant, options };
    return this.#recorded(asked, async (node) => toTenantEntry(await importTenant(node, directory, options)));
  }

  /**
   * Backs the node up while it runs: to a place what was written since the backup before, sealed as it is on the disk; and
   * to another place the wrapped keys. Reads and writes go on.
   *
   * Cost: a look at each tenant's segments, and the reading of what is new.
   * @throws `destination_exists` for a place of another installation, `storage_failed`, `not_authorized`, `disk_full`,
   * `log_damaged`, `aborted`, `invalid_argument`
   */
  async backup(options: BackupOptions): Promise<BackupReport> {
    return this.#recorded({ action: "tenant.backup", options }, (node) => backUpNode(node, options));
  }

  /** The backups of this installation in a place, oldest first. @throws `storage_failed`, `backup_invalid` */
  async backups(place: BackupPlace): Promise<
    {
      readonly id: string;
      readonly timeUs: bigint;
      readonly partial: boolean;
      readonly tenants: number;
    }[]
  > {
    return backupsIn(this.#open(), place);
  }

  /**
   * Brings a tenant back from a backup, up to an offset or a time, as a tenant of another id, or of its own if it is not
   * there any more: with its history, offsets and proofs, under new keys. The tenant that is there is left as it is.
   *
   * @throws `backup_not_found`, `backup_invalid`, `tenant_exists`, `tenant_erased`, `keys_missing`, `offset_out_of_range`,
   * `storage_failed`, `disk_full`, `aborted`, `invalid_argument`
   */
  async restoreTenant(options: RestoreTenantOptions): Promise<TenantEntry> {
    const asked = { action: "tenant.restore" as const, tenant: options?.as ?? options?.tenant, options };
    return this.#recorded(asked, (node) => {
      const tenant = TenantId(parseOptions(options).tenant as TenantId);
      return this.#lasting(tenant, async () => toTenantEntry(await restoreTenant(node, options)));
    });
  }

  /**
   * Makes an API key of the tenant. The token is in the result alone: what is stored is its SHA-256.
   *
   * @throws `tenant_not_found`, `quota_exceeded` for more than 1,000 that stand, `not_authorized` for an enrolment that was
   * used, `invalid_argument`
   */
  async createApiKey(id: TenantId, request: ApiKeyRequest): Promise<NewApiKey> {
    this.#open();
    return this.#access.createKey(TenantId(id), request);
  }

  /** The tenant's keys, oldest first, ended ones too; never a secret. */
  async listApiKeys(id: TenantId): Promise<ApiKeyDescription[]> {
    this.#open();
    return this.#access.listKeys(TenantId(id));
  }

  /** Ends a key, also for connections that it opened. Idempotent. @throws `credential_not_found` */
  async revokeApiKey(id: TenantId, key: string, options: GovernanceOptions = {}): Promise<ApiKeyDescription> {
    this.#open();
    return this.#access.revokeKey(TenantId(id), key, options);
  }

  /**
   * Makes an enrolment: for a tenant that has neither data nor a credential, a key that makes its first key, once, and does
   * nothing else. So an operator hands a tenant over and keeps no way in. One made before ends. Valid for 7 days unless
   * given.
   *
   * @throws `not_authorized` for a tenant that has anything
   */
  async enrolTenant(id: TenantId, request: KeyRequest = {}): Promise<NewApiKey> {
    this.#open();
    return this.#access.enrol(TenantId(id), request);
  }

  /** Makes an API key of the node's operators, which reads no tenant's data. */
  async createOperatorKey(request: KeyRequest = {}): Promise<NewApiKey> {
    this.#open();
    return this.#access.createOperatorKey(request);
  }

  async listOperatorKeys(): Promise<ApiKeyDescription[]> {
    this.#open();
    return this.#access.listKeys(undefined);
  }

  /** @throws `credential_not_found` */
  async revokeOperatorKey(key: string, options: GovernanceOptions = {}): Promise<ApiKeyDescription> {
    this.#open();
    return this.#access.revokeKey(undefined, key, options);
  }

  /**
   * Registers an issuer of JWTs: its tokens are of this tenant and no other. One of the same `issuer` is replaced.
   *
   * @throws `quota_exceeded` for more than 16, `invalid_argument`
   */
  async registerIssuer(
    id: TenantId,
    issuer: IssuerConfig,
    options: GovernanceOptions = {},
  ): Promise<RegisteredIssuer> {
    this.#open();
    return this.#access.registerIssuer(TenantId(id), issuer, options);
  }

  async listIssuers(id: TenantId): Promise<RegisteredIssuer[]> {
    this.#open();
    return this.#access.listIssuers(TenantId(id));
  }

  /** Ends what its tokens opened, too. @throws `credential_not_found` */
  async removeIssuer(id: TenantId, issuer: string, options: GovernanceOptions = {}): Promise<void> {
    this.#open();
    await this.#access.removeIssuer(TenantId(id), issuer, options);
  }

  /**
   * What turns credentials into principals, for a server; see `docs/authentication.md`.
   *
   * @param options `issuers` of the node's own, and certificates (PEM) that are trusted where their keys are fetched.
   * @throws `invalid_argument`
   */
  authenticator(
    options: { readonly issuers?: readonly NodeIssuerConfig[]; readonly ca?: string } = {},
  ): Authenticator {
    const { clock, jwksPolicy } = this.#open();
    const { issuers = [], ca } = parseOptions(options);
    if (!Array.isArray(issuers)) throw kimberliteError("invalid_argument", "issuers are a list");
    return new Authentication({
      credentials: this.#access,
      nodeIssuers: issuers.map((issuer) => parseNodeIssuer(issuer, jwksPolicy)),
      fetchKeys: keyFetcher(jwksPolicy, ca),
      clock,
    });
  }

  /**
   * Lets another tenant read a table or event stream of this one: of a table all columns and rows, unless the grant names
   * columns, a row predicate or a number of rows. Recorded at both tenants, before it stands.
   *
   * A grant ends when it is revoked, when it expires, and when its table is dropped, renamed, made anew or altered (but for
   * columns that are added: those are not shared). It is not passed on, exported or restored.
   * @throws `stream_not_found`, `tenant_not_found`, `tenant_suspended`, `invalid_sql` for a predicate that is not an
   * expression over the table's own columns, `quota_exceeded`, `invalid_argument`
   */
  async grantAccess(request: GrantRequest): Promise<Grant> {
    this.#open();
    return this.#granting.grant(request);
  }

  /** Ends a grant, at once, also for reads that are under way. Idempotent. @throws `grant_not_found`, `invalid_argument` */
  async revokeAccess(
    grantId: string,
    options: GovernanceOptions & { readonly reason: string },
  ): Promise<Grant> {
    this.#open();
    return this.#granting.revoke(grantId, options);
  }

  /** Grants that the tenant made and grants that were made to it, oldest first, with those that have ended. */
  async listGrants(id: TenantId): Promise<Grant[]> {
    return this.#granting.list(this.#open().directory.get(TenantId(id)).id);
  }

  /** A grant that the tenant made or that was made to it. @throws `grant_not_found` */
  async describeGrant(id: TenantId, grantId: string): Promise<Grant> {
    return this.#granting.describe(this.#open().directory.get(TenantId(id)).id, grantId);
  }

  /**
   * Reads a table that another tenant shares with the reader, by SQL, in a database of the reader's own that holds that one
   * table with the columns and rows that are granted. It counts as an operation of the reader, and is recorded at both
   * tenants before it resolves.
   *
   * @throws `grant_not_found`, `grant_revoked`, `grant_expired`, `grant_not_yet_valid`, `grant_ended`, `grant_unavailable`;
   * as `query`
   */
  async queryShared(
    reader: TenantId,
    stream: StreamId,
    sql: string,
    params?: SqlParams,
    options?: SharedOptions,
  ): Promise<Row[]> {
    this.#open();
    return (await this.#sharing.query(TenantId(reader), stream, { sql, params }, options)).rows as Row[];
  }

  /** As `queryShared`, with rows as arrays and the names of their columns. */
  async sharedArrays(
    reader: TenantId,
    stream: StreamId,
    sql: string,
    params?: SqlParams,
    options?: SharedOptions,
  ): Promise<ArraysResult> {
    this.#open();
    const request = { sql, params, arrays: true };
    return toArraysResult(await this.#sharing.query(TenantId(reader), stream, request, options), undefined);
  }

  /** As `queryShared`, row by row: the grant is looked at again before each. */
  async *iterateShared(
    reader: TenantId,
    stream: StreamId,
    sql: string,
    params?: SqlParams,
    options?: SharedOptions,
  ): AsyncGenerator<Row, void> {
    this.#open();
    yield* this.#sharing.iterate(TenantId(reader), stream, { sql, params }, options) as AsyncGenerator<
      Row,
      void
    >;
  }

  /**
   * A session of the reader on a table that is granted to it: a read-only database of that one table. Each statement is a
   * read of its own, also between BEGIN and COMMIT: admitted, recorded at both tenants, and of the snapshot of its moment.
   *
   * @throws `grant_not_found`, `tenant_suspended`, `invalid_argument`; its calls as `queryShared`
   */
  sharedSession(
    reader: TenantId,
    grantId: string,
    options: OperationOptions & Pick<SessionOptions, "maxResultBytes" | "stands"> = {},
  ): SqlSession {
    const id = this.#admitted(reader).id;
    const { stream } = this.#granting.findFor(id, grantId);
    const { context, maxResultBytes, stands } = parseSessionOptions(options, this.#node.limits);
    const { actor, correlationId } = context;
    const by = { grant: grantId, actor, ...(correlationId === undefined ? {} : { correlationId }) };
    const ask: SharedAsk = (step) => this.#sharing.ask(id, stream, step, by);
    const look = (): Promise<void> => this.#sharing.requireStanding(id, stream, by);
    return new SharedSession(ask, { maxResultBytes, stands, look });
  }

  /**
   * Reads an event stream that another tenant shares with the reader, in order. The grant is looked at again before each
   * event; each page of them is recorded at both tenants before its first.
   *
   * @throws as `queryShared`
   */
  async *readShared(
    reader: TenantId,
    stream: StreamId,
    range: ReadRange = {},
    options?: SharedOptions,
  ): AsyncGenerator<SharedItem, void> {
    this.#open();
    const given = parseOptions(range);
    const from = parseOffset(given.from ?? 0n, "from");
    const limit = parseCount(given.limit ?? Number.MAX_SAFE_INTEGER, { name: "limit", min: 0 });
    yield* this.#sharing.read(TenantId(reader), stream, { from, limit }, options);
  }

  /** The tenant's audit stream, in order: what was done to it, by whom and why. */
  async *audit(id: TenantId, range: AuditRange = {}): AsyncGenerator<AuditEntry, void> {
    const tenant = this.#open().directory.get(TenantId(id)).id;
    yield* auditPages((work) => this.#node.tenants.use(tenant, work), parseAuditRange(range));
  }

  /** The system's audit stream: what was done to the node, and to tenants that cannot tell any more. */
  async *nodeAudit(range: AuditRange = {}): AsyncGenerator<AuditEntry, void> {
    const node = this.#open();
    yield* auditPages(async (work) => work(await node.healthySystem()), parseAuditRange(range));
  }

  /**
   * Runs one statement and resolves when what it changed is durable.
   *
   * @throws `invalid_sql`, `invalid_parameter`, `unsupported_sql`, `constraint_violation`, `quota_exceeded`,
   * `rate_limited`, `statement_timeout`, `result_too_large`, `value_too_large`, `transaction_too_large`, `disk_full`,
   * `tenant_not_found`, `tenant_suspended`.
   */
  async execute(
    id: TenantId,
    sql: string,
    params?: SqlParams,
    options?: OperationOptions,
  ): Promise<ExecuteResult> {
    const context = parseContext(options);
    return this.#operate(id, async (engine) => {
      const { value, offset } = await engine.pipeline.submitStatements(context, [{ sql, params }]);
      return toExecuteResult(value[0] as StatementResult, offset);
    });
  }

  /**
   * Reads, from a snapshot of what is committed; with `at`, as the tenant was at an offset or time.
   *
   * Cost: a compiled statement is kept by its text; the first query `at` a moment replays the log up to it.
   * @throws as `execute`, and `read_only` for a write, `offset_out_of_range`.
   */
  async query(
    id: TenantId,
    sql: string,
    params?: SqlParams,
    options: { readonly at?: Moment } = {},
  ): Promise<Row[]> {
    const request: StatementRequest = { sql, params };
    const { at } = parseOptions(options);
    if (at === undefined) return (await this.#read(id, request)).rows as Row[];
    return this.#operate(id, async (engine) => (await engine.timeTravel.query(at, request)).rows as Row[]);
  }

  /**
   * A session on the tenant, as a connection to SQLite is: statements, BEGIN to COMMIT over several calls, savepoints. It
   * holds nothing between statements but the transaction that is open, for `transactionTimeLimitMs`. Close it.
   *
   * @throws `tenant_not_found`, `tenant_suspended`, `invalid_argument`
   */
  session(id: TenantId, options: SessionOptions = {}): SqlSession {
    const tenant = this.#admitted(id).id;
    return new Session({
      ...parseSessionOptions(options, this.#node.limits),
      operate: (work, runs) => this.#operate(tenant, work, runs),
      read: (request) => this.#read(tenant, request),
      admitted: () => void this.#admitted(tenant),
      charge: () => {
        const { quota } = this.#admitted(tenant);
        this.#node.gate(tenant, quota).charge();
      },
    });
  }

  /**
   * As `execute`, with rows as arrays; with `at` it only reads, as `query` does. For tools that show what they are
   * given: no column is lost to another of its name, and an empty result has its columns.
   */
  async executeArrays(
    id: TenantId,
    sql: string,
    params?: SqlParams,
    options: OperationOptions & { readonly at?: Moment } = {},
  ): Promise<ArraysResult> {
    const context = parseContext(options);
    const request: StatementRequest = { sql, params, arrays: true };
    const { at } = options;
    return this.#operate(id, async (engine) => {
      if (at !== undefined) return toArraysResult(await engine.timeTravel.query(at, request), undefined);
      const { value, offset } = await engine.pipeline.submitStatements(context, [request]);
      return toArraysResult(value[0] as StatementResult, offset);
    });
  }

  /** Inserts one row or several, in one transaction. Every row's fields are columns. */
  async insert(
    id: TenantId,
    table: string,
    rows: Readonly<Record<string, SqlInput>> | readonly Readonly<Record<string, SqlInput>>[],
    options?: OperationOptions,
  ): Promise<ExecuteResult> {
    const list = Array.isArray(rows)
      ? (rows as readonly Readonly<Record<string, SqlInput>>[])
      : [rows as Record<string, SqlInput>];
    const requests = list.map((row) => insertRequest(table, row));
    if (requests.length === 0) throw kimberliteError("invalid_argument", "insert() takes at least one row");
    const results = await this.transaction(id, requests, options);
    const last = results.at(-1) as ExecuteResult;
    return { ...last, rowsAffected: results.reduce((sum, result) => sum + result.rowsAffected, 0) };
  }

  /** Runs a list of statements as one transaction: all of them or none. */
  transaction(
    id: TenantId,
    statements: readonly Statement[],
    options?: OperationOptions,
  ): Promise<ExecuteResult[]>;
  /**
   * Runs a callback as one transaction that holds the tenant's writer for a bounded time. It commits when the callback
   * resolves and is rolled back if it throws, or past `timeLimitMs` (`transaction_timeout`).
   */
  transaction<T>(
    id: TenantId,
    callback: (transaction: Transaction) => Promise<T> | T,
    options?: TransactionOptions,
  ): Promise<T>;
  async transaction<T>(
    id: TenantId,
    work: readonly Statement[] | ((transaction: Transaction) => Promise<T> | T),
    options: TransactionOptions = {},
  ): Promise<T | ExecuteResult[]> {
    const context = parseContext(options);
    if (typeof work !== "function") return this.#operate(id, (engine) => runList(engine, context, work));
    const timeLimitMs = parseTimeLimit(options.timeLimitMs ?? DEFAULT_TRANSACTION_MS, "timeLimitMs");
    return this.#operate(
      id,
      async (engine) => {
        const run = async (transaction: LaneTransaction): Promise<T> => work(toTransaction(transaction));
        return (await engine.pipeline.interact(context, run, { timeLimitMs })).value;
      },
      "once",
    );
  }

  /** @throws `stream_exists`, `invalid_argument` */
  async createStream(id: TenantId, name: string, options?: OperationOptions): Promise<StreamId> {
    const context = parseContext(options);
    return this.#operate(id, async (engine) =>
      StreamId(engine.tenant, await makeStream(engine, context, name)),
    );
  }

  /** The tenant's streams: its tables and its event streams. */
  async streams(id: TenantId): Promise<StreamDescription[]> {
    return this.#operate(id, async (engine) =>
      (await engine.settledReader()).bookkeeping
        .streams()
        .filter((row) => !row.dropped)
        .map(({ id: local, kind, name }) => ({
          id: StreamId(engine.tenant, local),
          kind,
          name: local === AUDIT_STREAM ? "audit" : local === PREDICATE_STREAM ? "grants" : name,
        })),
    );
  }

  /**
   * Appends events to an event stream, as one transaction.
   *
   * `expectedOffset` is the offset that the first event must get (`offset_conflict` if it would not). A repeated
   * `idempotencyKey` with the same events gives the first result again, also after a restart; with others it is
   * `idempotency_conflict`.
   */
  async append(
    id: TenantId,
    stream: StreamId,
    events: readonly unknown[],
    options: AppendOptions & OperationOptions = {},
  ): Promise<AppendResult> {
    const context = parseContext(options);
    const maxBytes = this.#open().limits.maxValueBytes;
    return this.#operate(id, (engine) =>
      appendEvents(engine, { stream, events, options, context, maxBytes }),
    );
  }

  /** Reads a stream in order. The tenant stays open while the iteration lasts. */
  async *read(id: TenantId, stream: StreamId, range: ReadRange = {}): AsyncGenerator<StreamItem, void> {
    const given = parseOptions(range);
    const from = parseOffset(given.from ?? 0n, "from");
    const limit = parseCount(given.limit ?? Number.MAX_SAFE_INTEGER, { name: "limit", min: 0 });
    yield* this.#iterate(id, stream, (engine, row) => readItems(engine, row, { from, limit }));
  }

  /** Reads a stream and then waits for more, until `signal` ends it. Back-pressure: nothing is read ahead of the consumer. */
  async *subscribe(
    id: TenantId,
    stream: StreamId,
    options: { readonly from?: bigint | number; readonly signal: AbortSignal },
  ): AsyncGenerator<StreamItem, void> {
    const given = parseOptions(options);
    const from = parseOffset(given.from ?? 0n, "from");
    const signal = parseSignal(given.signal);
    if (signal === undefined)
      throw kimberliteError("invalid_argument", "subscribe() takes the signal that will end it");
    const check = (engine: TenantEngine): void => this.#requireServed(engine);
    yield* this.#iterate(id, stream, (engine, row) => tailItems(engine, row, { from, signal, check }));
  }

  /** A signed checkpoint (C2SP `tlog-checkpoint`) of the tenant's log as it is now. */
  async checkpoint(id: TenantId): Promise<string> {
    return this.#inspect(id, (engine) => {
      const frontier = engine.log.frontier();
      const name = this.#signerName();
      return signCheckpoint(
        { origin: `${name}/tenant/${engine.tenant}`, size: frontier.size, root: frontier.root() },
        { keyName: name, privateKey: this.#node.system.keys.signingKey() },
      );
    });
  }

  /** The key that checkpoints verify under, as a C2SP verifier key. */
  verifierKey(): string {
    return formatVerifierKey(verifierKey(this.#signerName(), this.#open().system.keys.verifierPublicKey));
  }

  /**
   * Checks the tenant's whole log: chain, hashes, Merkle tree, and under its keys every seal and record; with
   * `checkpoint` also that it still begins with what that checkpoint committed to. Damage is in the report, with the
   * first bad offset, also when the log is so damaged that the tenant does not open. Of an erased tenant whose ciphertext
   * was kept, everything that needs no key.
   *
   * @throws `checkpoint_mismatch` for a log that is whole but not, or no longer, the checkpoint's; `signature_invalid`,
   * `keys_missing`, `keys_damaged`, `aborted`.
   */
  async verifyTenant(id: TenantId, options: VerifyTenantOptions = {}): Promise<VerifyReport> {
    const node = this.#open();
    const { id: tenant, state, hasLog } = node.directory.entry(TenantId(id));
    const keyless = state === "erased" && hasLog;
    if (!keyless) node.directory.get(tenant);
    const { checkpoint: note, onProgress, signal } = parseOptions(options);
    const rest = { onProgress: parseCallback(onProgress, "onProgress"), signal: parseSignal(signal) };
    const expected = { origin: `${this.#signerName()}/tenant/${tenant}` };
    const checkpoint =
      note === undefined ? undefined : openCheckpoint(note, parseVerifierKey(this.verifierKey()), expected);
    const place = {
      tenant,
      keyless,
      root: node.root,
      disk: node.disk,
      open: <T>(work: (engine: TenantEngine) => Promise<T>) => node.tenants.use(tenant, work),
      withKeys: <T>(work: (keys: TenantKeys) => Promise<T>) => node.withKeys(tenant, work),
    };
    return this.#lasting(tenant, () => verifyTenantLog(place, { ...rest, checkpoint }));
  }

  /**
   * Deletes the tenant's projection and builds it anew from the log, which is verified first: what the log could not
   * give back is not deleted. Other tenants are not held up; `onProgress` of `open` tells how far it is.
   *
   * @throws `log_damaged`: the projection is as it was.
   */
  async rebuildProjection(
    id: TenantId,
    options: { readonly onProgress?: (progress: VerifyProgress) => void; readonly signal?: AbortSignal } = {},
  ): Promise<void> {
    const report = await this.verifyTenant(id, options);
    if (!report.ok) {
      throw kimberliteError(
        "log_damaged",
        `the log is damaged at offset ${report.firstBadOffset}: ${report.reason}`,
        {
          detail: { tenant: report.tenant, offset: report.firstBadOffset },
        },
      );
    }
    await this.#lasting(report.tenant, () => this.#node.rebuildProjection(report.tenant));
  }

  /** Proof that the record at `offset` is in the log (RFC 9162 §2.1.3). Cost: reads the log's block headers. */
  async inclusionProof(id: TenantId, offset: bigint | number): Promise<InclusionProof> {
    const wanted = parseOffset(offset, "offset");
    return this.#inspect(id, (engine) => {
      const size = engine.log.nextOffset;
      const prover = proveInclusion({ offset: wanted, size });
      for (const leaf of engine.log.leafHashes(0n, size)) prover.push(leaf);
      return prover.finish();
    });
  }

  /** Proof that the log of `from` records is a prefix of the log of `to` records (RFC 9162 §2.1.4). */
  async consistencyProof(
    id: TenantId,
    from: bigint | number,
    to: bigint | number,
  ): Promise<ConsistencyProof> {
    const sizes = { fromSize: parseOffset(from, "from"), toSize: parseOffset(to, "to") };
    return this.#inspect(id, (engine) => {
      if (sizes.toSize > engine.log.nextOffset) {
        throw kimberliteError("offset_out_of_range", "the log is not that long", {
          detail: { size: engine.log.nextOffset },
        });
      }
      const prover = proveConsistency(sizes);
      for (const leaf of engine.log.leafHashes(0n, sizes.toSize)) prover.push(leaf);
      return prover.finish();
    });
  }

  /** Puts a new DEK version into force for the blocks that follow; older blocks stay readable. @returns its number */
  async rotateDek(id: TenantId, options?: GovernanceOptions): Promise<number> {
    return this.#recorded({ action: "key.rotate-dek", tenant: id, options }, () =>
      this.#inspect(id, async (engine) => {
        await recordAudit(engine, keyEvent("key.rotate-dek", options));
        return engine.pipeline.rotateDek();
      }),
    );
  }

  /**
   * Writes the tenant's log and projection anew under a new DEK version while it is read and written: records, offsets and
   * proofs stay the same. With `destroyFormerKeys` nothing that was encrypted before can be read from then on, in copies
   * and backups neither. Interrupted, it goes on when it is called again. Subscribers go on where they are (`overloaded`).
   *
   * Cost: reads the log and writes it once, replays it into a projection; the tenant waits for the last few records.
   * @throws `disk_full`, `disk_failed`, `log_damaged`, `aborted`, `invalid_argument`
   */
  async reencryptTenant(id: TenantId, options?: ReencryptOptions): Promise<ReencryptReport> {
    const asked = { action: "key.reencrypt" as const, tenant: id, options };
    return this.#recorded(asked, (node) => {
      const tenant = this.#thawed(id);
      return this.#lasting(tenant, () => reencryptTenant(node, tenant, options));
    });
  }

  /**
   * Destroys the records that are past their retention: their leaves stay, so that every checkpoint and proof does, and so
   * do the tables as they stand. What was in them cannot be read again, in copies and backups neither: the log is written
   * anew under a new DEK and the former ones are destroyed. Interrupted, it goes on when it is called again.
   *
   * Afterwards time travel, streams and proofs' records before `firstOffset` are `offset_trimmed`; a table's stream, whose
   * items are counted from its start, all of it. Cost: as `reencryptTenant`.
   * @throws `legal_hold`, `retention_not_over`, `retention_locked`, `disk_full`, `disk_failed`, `aborted`, `invalid_argument`
   */
  async trimTenant(id: TenantId, options: TrimOptions): Promise<TrimReport> {
    return this.#recorded({ action: "tenant.trim", tenant: id, options }, (node) => {
      const tenant = this.#thawed(id);
      return this.#lasting(tenant, () => trimTenant(node, tenant, options));
    });
  }

  /** Makes a new KEK and re-wraps every DEK version under it. */
  async rotateKek(id: TenantId, options?: GovernanceOptions): Promise<void> {
    await this.#recorded({ action: "key.rotate-kek", tenant: id, options }, () =>
      this.#inspect(id, async (engine) => {
        await recordAudit(engine, keyEvent("key.rotate-kek", options));
        await engine.keys.rotateKek();
      }),
    );
  }

  /**
   * Re-wraps every tenant's KEK under another master key, which is the node's from then on. Neither reads nor writes
   * stop. Interrupted, it is called again after opening with the other key in `otherMasterKeys`.
   */
  async rotateMasterKey(
    provider: MasterKeyProvider,
    options?: GovernanceOptions & { readonly onProgress?: (progress: RotationProgress) => void },
  ): Promise<void> {
    await this.#recorded({ action: "key.rotate-master", options }, async (node) => {
      requireMasterKey(provider);
      await rotateMaster(node, provider, options);
    });
  }

  /**
   * Moves the tenant's KEK under a master key of its own, named by its URI, or with null back under the node's. Neither
   * reads nor writes stop; interrupted, it is called again. Who withdraws access to that key freezes the tenant: within
   * `keyCacheTime` it is closed and refused with the key's own error, until access is restored.
   *
   * @throws `invalid_argument`; as the provider when it is opened
   */
  async setTenantMasterKey(
    id: TenantId,
    uri: string | null,
    options?: GovernanceOptions,
  ): Promise<TenantEntry> {
    return this.#recorded({ action: "key.move", tenant: id, options }, (node) => {
      const tenant = TenantId(id);
      return this.#lasting(tenant, async () =>
        toTenantEntry(await moveTenantKey(node, tenant, uri, options)),
      );
    });
  }

  /** Versions and ages of the tenant's keys, never a key. */
  async keys(id: TenantId): Promise<TenantKeyUse> {
    return this.#inspect(id, (engine) => ({
      ...engine.keys.describe(),
      blocksSealed: engine.pipeline.blocksSealed,
      blocksLimit: this.#node.dekRotateAfterBlocks,
    }));
  }

  stats(): NodeStats {
    const node = this.#open();
    return {
      tenants: node.directory.size,
      openTenants: node.tenants.size,
      installation: node.installation.id,
    };
  }

  /** Finishes what was accepted, then closes. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#closeParts();
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #closeParts(): Promise<void> {
    try {
      await this.#held.close();
      await this.#access.close();
      await this.#sharing.close();
    } finally {
      await this.#node.close();
    }
  }

  #signerName(): string {
    return `kimberlite/${this.#open().installation.id}`;
  }

  #open(): NodeState {
    if (this.#closed !== undefined) throw kimberliteError("closed", "the database is closed");
    return this.#node;
  }

  /** Runs what an operator asked for; what is refused or fails is recorded. */
  async #recorded<T>(asked: Asked, work: (node: NodeState) => Promise<T>): Promise<T> {
    const node = this.#open();
    return recorded(node, asked, async () => work(node));
  }

  /** @throws the refusal of a frozen tenant's key */
  #thawed(id: TenantId): TenantId {
    const tenant = TenantId(id);
    this.#held.requireThawed(tenant);
    return tenant;
  }

  /** @throws `tenant_not_found`, `tenant_suspended` */
  #admitted(id: TenantId): ReturnType<NodeState["directory"]["get"]> {
    const entry = this.#open().directory.get(TenantId(id));
    if (entry.state === "suspended") {
      throw kimberliteError("tenant_suspended", `tenant ${entry.id} is suspended`, {
        detail: { tenant: entry.id },
      });
    }
    if (entry.masterKey !== undefined) this.#held.requireThawed(entry.id);
    return entry;
  }

  /** Admits and runs one operation of a tenant. */
  async #operate<T>(
    id: TenantId,
    work: (engine: TenantEngine) => T | Promise<T>,
    runs: "again" | "once" = "again",
  ): Promise<T> {
    const entry = this.#admitted(id);
    const gate = this.#node.gate(entry.id, entry.quota);
    gate.enter();
    try {
      return await this.#node.tenants.use(entry.id, work);
    } catch (error) {
      const rebuilt = await this.#rebuildIfDamaged(entry.id, this.#told(entry.id, error));
      if (runs === "once") throw rebuilt;
      return await this.#node.tenants.use(entry.id, work);
    } finally {
      gate.leave();
    }
  }

  /**
   * Rebuilds the projection from the log if the error says that its file is damaged; work that failed so left nothing.
   *
   * @returns what to tell a caller whose work cannot simply run again.
   * @throws the error itself if it says anything else.
   */
  async #rebuildIfDamaged(tenant: TenantId, error: unknown): Promise<Error> {
    if (!isProjectionDamage(error)) throw error;
    await this.#node.rebuildProjection(tenant);
    return kimberliteError(
      "overloaded",
      "the tenant's projection was damaged and has been rebuilt; try again",
      {
        detail: { tenant },
        retryAfterMs: 0,
      },
    );
  }

  async #read(id: TenantId, request: StatementRequest): Promise<StatementResult> {
    try {
      const quick = this.#queryNow(id, request);
      if (quick !== undefined) return quick instanceof Promise ? await quick : quick;
    } catch (error) {
      // A damaged projection is rebuilt by `#operate`.
      if (!isProjectionDamage(error)) throw error;
    }
    return this.#operate(id, (engine) => engine.query(request));
  }

  /** The same as `#operate` with a read of a tenant that is open, without a turn of the event loop in between. */
  #queryNow(id: TenantId, request: StatementRequest): StatementResult | Promise<StatementResult> | undefined {
    const entry = this.#admitted(id);
    const engine = this.#node.tenants.peek(entry.id);
    if (engine === undefined) return undefined;
    const gate = this.#node.gate(entry.id, entry.quota);
    gate.enter();
    let result: StatementResult | Promise<StatementResult> | undefined;
    try {
      result = engine.query(request);
    } finally {
      if (!(result instanceof Promise)) gate.leave();
    }
    return result instanceof Promise ? result.finally(() => gate.leave()) : result;
  }

  /** Runs an operator's look at a tenant, also a suspended one, outside its quota. */
  async #inspect<T>(id: TenantId, work: (engine: TenantEngine) => T | Promise<T>): Promise<T> {
    const entry = this.#open().directory.get(TenantId(id));
    this.#held.requireThawed(entry.id);
    return this.#lasting(entry.id, () => this.#node.tenants.use(entry.id, work));
  }

  /** Runs what takes several turns. */
  async #lasting<T>(tenant: TenantId, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw this.#told(tenant, error);
    }
  }

  /** What to tell of work that failed: if the tenant was erased or reopened under it, that. */
  #told(tenant: TenantId, error: unknown): unknown {
    const { directory } = this.#node;
    if (!(error instanceof KimberliteError) || this.#closed !== undefined) return error;
    try {
      if (directory.has(tenant)) directory.get(tenant);
    } catch (erased) {
      return erased;
    }
    if (error.code !== "closed") return error;
    return kimberliteError("overloaded", "the tenant is being reopened; try again", {
      cause: error,
      detail: { tenant },
      retryAfterMs: 50,
    });
  }

  /** Keeps the tenant open and its operation counted for as long as the iteration lasts. */
  async *#iterate(
    id: TenantId,
    stream: StreamId,
    items: (engine: TenantEngine, row: StreamRow) => AsyncGenerator<StreamItem, void>,
  ): AsyncGenerator<StreamItem, void> {
    let end: () => void = () => undefined;
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    let started: (engine: TenantEngine) => void = () => undefined;
    const engineReady = new Promise<TenantEngine>((resolve) => {
      started = resolve;
    });
    const held = this.#operate(id, async (engine) => {
      started(engine);
      await ended;
    });
    try {
      const engine = await Promise.race([engineReady, held.then(() => engineReady)]);
      yield* this.#whileServed(engine, items(engine, await findStream(engine, stream)));
    } catch (error) {
      end();
      throw await this.#rebuildIfDamaged(TenantId(id), error);
    } finally {
      end();
      await held.catch(() => undefined);
    }
  }

  /** Items as long as the tenant is served: asked again at each fetch, for an iteration outlives what let it begin. */
  async *#whileServed(
    engine: TenantEngine,
    items: AsyncGenerator<StreamItem, void>,
  ): AsyncGenerator<StreamItem, void> {
    try {
      for (;;) {
        this.#requireServed(engine);
        const next = await items.next();
        if (next.done === true) return;
        yield next.value;
      }
    } catch (error) {
      // What fails because the engine was closed meanwhile says so.
      this.#requireServed(engine);
      throw error;
    } finally {
      await items.return();
    }
  }

  /** @throws `closed`, `tenant_not_found`, `tenant_suspended`, `overloaded` if the tenant is being reopened */
  #requireServed(engine: TenantEngine): void {
    this.#admitted(engine.tenant);
    engine.requireOpen();
  }
}
