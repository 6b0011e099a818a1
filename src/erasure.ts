/**
 * Erasure of a tenant by crypto-shredding, as a plan of idempotent steps that is on the disk before the first is taken.
 *
 * Order: holds and retention are checked → who and why is recorded in both audit streams → the catalogue says `erasing`,
 * which is the point of no return → wrapped keys are overwritten → the tenant is closed and its keys in memory zeroed →
 * the journal is emptied → projection and segments go → memory that was freed is overwritten → the signed certificate
 * and the tombstone are in the catalogue. From `erasing` on the tenant is refused everywhere, and its id is for ever.
 *
 * Kept: nothing is destroyed before the catalogue says so durably; a hold that was acknowledged before that stops it; a
 * tenant never comes half back. Survives: a kill or a failing disk at any step (the next start, or asking again, goes on).
 */
import { join } from "node:path";
import { auditTenant, governanceEvent } from "./administration.ts";
import { parseReason } from "./audit/audit-event.ts";
import type { RefusedErasure } from "./directory/catalogue.ts";
import {
  type ErasureCertificate,
  type ErasureFacts,
  OUTSIDE_REACH,
  type RemovedPart,
  readCertificate,
  signCertificate,
} from "./erasure/certificate.ts";
import { KimberliteError, kimberliteError } from "./errors.ts";
import { isoTime } from "./host/clock.ts";
import { failpoint } from "./host/failpoint.ts";
import { collectGarbage, overwritesFreedMemory } from "./host/memory.ts";
import { signCheckpoint } from "./log/checkpoint.ts";
import { listSegments, logFolder } from "./log/segment.ts";
import { type VerifyReport, verifyLog } from "./log/verify.ts";
import type { NodeState } from "./node-state.ts";
import { type OperationOptions, parseAddress, parseContext } from "./operations.ts";
import { projectionFolder } from "./pipeline/projection-base.ts";
import { lastBlockUs, youngestDataUs } from "./pipeline/youngest-data.ts";
import { scrubFreedMemory } from "./projection/scrub.ts";
import { markRecorded } from "./refusals.ts";
import { requireDisposable, retainedUntilUs } from "./retention/retention.ts";
import { parseOptions } from "./tenant/call-options.ts";
import type { TenantId } from "./tenant/tenant-id.ts";

export interface EraseOptions extends OperationOptions {
  /** Why, 1 to 1,000 characters: it is in the certificate. */
  readonly reason: string;
  /** True to erase data that is younger than its retention; governance mode alone allows it. */
  readonly overrideRetention?: boolean;
  /** True to keep the sealed blocks: nobody can read them, and the log's chain and tree still verify. */
  readonly keepCiphertext?: boolean;
}

interface EraseRequest extends Omit<EraseOptions, "overrideRetention" | "keepCiphertext" | "actor"> {
  readonly actor: string;
  readonly overrideRetention: boolean;
  readonly keepCiphertext: boolean;
}

/** Of the certificate what has to be known before the keys are gone. */
type GatheredFacts = Pick<ErasureFacts, "keysDestroyed" | "log" | "ciphertextKept"> & {
  readonly segments: number;
  readonly projections: number;
  readonly retentionOverriddenUntil?: string;
};

export class Erasures {
  readonly #node: NodeState;
  readonly #running: Map<TenantId, Promise<ErasureCertificate>> = new Map();
  readonly #endGrants: (id: TenantId) => Promise<void>;

  /** @param endGrants tells those who shared with a tenant that this has ended. */
  constructor(node: NodeState, endGrants: (id: TenantId) => Promise<void>) {
    this.#node = node;
    this.#endGrants = endGrants;
  }

  /** @throws as `Kimberlite.eraseTenant` */
  async erase(id: TenantId, options: EraseOptions): Promise<ErasureCertificate> {
    const request = parseRequest(options);
    const { state } = this.#node.directory.entry(id);
    if (state === "erased") this.#node.directory.get(id);
    return this.#once(id, async () => {
      if (state !== "erasing") await this.#begin(id, request);
      return this.#finish(id);
    });
  }

  /** Finishes what a crash interrupted. One that still cannot be finished stays refused, and is tried again. */
  async resume(): Promise<void> {
    for (const id of this.#node.directory.erasing()) {
      await this.#once(id, () => this.#finish(id)).catch((error: unknown) => {
        if (!(error instanceof KimberliteError)) throw error;
      });
    }
  }

  /** @throws `tenant_not_found`; `invalid_argument` for a tenant that was not erased */
  async certificate(id: TenantId): Promise<ErasureCertificate> {
    this.#node.directory.entry(id);
    const note = (await this.#node.directory.erasure(id))?.certificate;
    if (note !== undefined) return readCertificate(note);
    throw kimberliteError("invalid_argument", "the tenant was not erased");
  }

  #once(id: TenantId, work: () => Promise<ErasureCertificate>): Promise<ErasureCertificate> {
    if (this.#running.has(id)) {
      throw kimberliteError("operation_running", "the tenant's erasure is under way", {
        detail: { tenant: id },
      });
    }
    const running = work().finally(() => this.#running.delete(id));
    this.#running.set(id, running);
    return running;
  }

  /**
   * Up to the point of no return, with no other change of the tenant in between: a hold or a longer retention that was
   * acknowledged before is seen, one that comes later is refused. Throwing leaves the tenant as it was.
   */
  async #begin(id: TenantId, request: EraseRequest): Promise<void> {
    const { directory, tenants, clock } = this.#node;
    await directory.changing(id, async (changes) => {
      await this.#requireAllowed(id, request);
      directory.block(id);
      try {
        await tenants.close(id).catch(ignoreRefusal);
        // Again, now that nothing can be written any more.
        const overriddenUntilUs = await this.#requireAllowed(id, request);
        const about = { action: "tenant.erase" as const, options: request };
        const event = await auditTenant(this.#node, id, { ...governanceEvent(id, about), outcome: "began" });
        const facts = JSON.stringify(await this.#gather(id, request, overriddenUntilUs));
        const { actor, reason } = request;
        const beganAtUs = clock.wallTimeUs();
        const row = { tenant: id, beganAtUs, actor, reason, facts, certificate: undefined };
        await changes.beginErasure(row, event);
      } finally {
        directory.unblock(id);
      }
    });
    failpoint("erase-after-begin");
  }

  /** @returns when the retention ends that was overridden; undefined if it is over. */
  async #requireAllowed(id: TenantId, request: EraseRequest): Promise<bigint | undefined> {
    const { directory, clock } = this.#node;
    const { retentionMs, retentionMode, legalHolds: holds } = directory.entry(id);
    const youngestUs = retentionMs === 0 ? undefined : await this.#youngest(id);
    const facts = { tenant: id, retentionMs, retentionMode, holds, youngestUs, nowUs: clock.trustedUs() };
    try {
      requireDisposable(facts, request.overrideRetention);
    } catch (error) {
      await this.#noteRefused(id, request, error);
      throw error;
    }
    const untilUs = retainedUntilUs(facts);
    return facts.nowUs < untilUs ? untilUs : undefined;
  }

  async #noteRefused(id: TenantId, request: EraseRequest, error: unknown): Promise<void> {
    if (!(error instanceof KimberliteError)) return;
    const { code } = error;
    const about = { action: "tenant.erase" as const, options: request };
    const event = await auditTenant(this.#node, id, {
      ...governanceEvent(id, about),
      outcome: "refused",
      code,
    });
    const { actor, reason } = request;
    const refused: RefusedErasure = {
      tenant: id,
      refusedAtUs: this.#node.clock.wallTimeUs(),
      actor,
      reason,
      code,
    };
    await this.#node.directory.noteRefused(refused, event);
    markRecorded(error);
  }

  /** Without keys the last block's time stands for it, and where the log is damaged the present: never too early. */
  async #youngest(id: TenantId): Promise<bigint | undefined> {
    try {
      return await this.#node.tenants.use(id, (engine) => youngestDataUs(engine, this.#node));
    } catch (error) {
      ignoreRefusal(error);
      const report = await this.#readKeyless(id);
      if (!report.ok) return this.#node.clock.trustedUs();
      return lastBlockUs({ ...this.#node.logOptions(id), root: this.#node.root });
    }
  }

  async #gather(
    id: TenantId,
    request: EraseRequest,
    overriddenUntilUs: bigint | undefined,
  ): Promise<GatheredFacts> {
    const { disk, root } = this.#node;
    return {
      keysDestroyed: this.#keysOf(id) ?? { kek: 0, deks: [], masterKeyId: "" },
      log: await this.#logFacts(id),
      ciphertextKept: request.keepCiphertext,
      segments: listSegments(disk, logFolder(root, id)).length,
      projections: disk.list(projectionFolder(root, id)).filter((name) => name.endsWith(".db")).length,
      ...(overriddenUntilUs === undefined ? {} : { retentionOverriddenUntil: isoTime(overriddenUntilUs) }),
    };
  }

  /** Undefined for keys that are not there, or of which nothing can be told any more. */
  #keysOf(id: TenantId): ErasureFacts["keysDestroyed"] | undefined {
    try {
      const stored = this.#node.keyStore.read(id);
      if (stored === undefined) return undefined;
      const { kek, deks } = stored;
      return {
        kek: kek.version,
        deks: deks.map(({ version }) => version),
        masterKeyId: kek.masterKeyId,
      };
    } catch (error) {
      ignoreRefusal(error);
      return undefined;
    }
  }

  async #logFacts(id: TenantId): Promise<ErasureFacts["log"]> {
    let head: { readonly size: bigint; readonly root: Buffer };
    try {
      head = await this.#node.tenants.use(id, ({ log }) => {
        const frontier = log.frontier();
        return { size: frontier.size, root: frontier.root() };
      });
    } catch (error) {
      ignoreRefusal(error);
      const report = await this.#readKeyless(id);
      if (!report.ok) return null;
      head = report;
    }
    const { signer } = this.#node;
    const checkpoint = signCheckpoint({ origin: `${signer.keyName}/tenant/${id}`, ...head }, signer);
    return { size: head.size.toString(), root: head.root.toString("base64"), checkpoint };
  }

  #readKeyless(id: TenantId): Promise<VerifyReport> {
    const { disk, root } = this.#node;
    return verifyLog({ disk, tenant: id, folder: logFolder(root, id) });
  }

  /** All steps after the point of no return; each may have been taken already. */
  async #finish(id: TenantId): Promise<ErasureCertificate> {
    const { directory, grants, keyStore, tenants, journal, clock } = this.#node;
    // Whoever waited for it while this began is turned away: it is not opened again.
    await tenants.close(id).catch(ignoreRefusal);
    const facts = await this.#lastFacts(id);
    await keyStore.destroy(id);
    this.#node.forget(id);
    failpoint("erase-after-keys");
    await this.#endGrants(id);
    // A backup, trimming or re-encryption that is under way ends at its next step, and writes nothing more.
    await this.#node.maintain(id, async () => {
      await journal.recycle();
      failpoint("erase-after-journal");
      this.#removeFiles(id, facts.ciphertextKept);
      // What a segment refused was kept for it; there is no such segment any more.
      if (journal.owes(id)) await journal.recycle();
    });
    failpoint("erase-after-files");
    const scrubbed = await this.#scrubMemory();
    const { segments, projections, actor, reason, beganAtUs, ...known } = facts;
    const certificate = signCertificate(
      {
        tenant: id.toString(),
        installation: this.#node.installation.id,
        actor,
        reason,
        beganAt: isoTime(beganAtUs),
        endedAt: isoTime(clock.wallTimeUs()),
        ...known,
        removed: removedParts(id, { segments, projections, kept: known.ciphertextKept, scrubbed }),
        outsideReach: OUTSIDE_REACH,
      },
      this.#node.signer,
    );
    const about = { action: "tenant.erase" as const, options: { actor, reason } };
    const hasLog = known.ciphertextKept && segments > 0;
    await directory.finishErasure(id, { certificate: certificate.note, hasLog }, governanceEvent(id, about));
    grants.forgetTenant(id);
    return certificate;
  }

  /** What is destroyed now: between the decision and this a rotation that was under way may have made a version. */
  async #lastFacts(
    id: TenantId,
  ): Promise<
    GatheredFacts & { readonly actor: string; readonly reason: string; readonly beganAtUs: bigint }
  > {
    const { directory } = this.#node;
    const row = await directory.erasure(id);
    if (row === undefined)
      throw kimberliteError("catalog_damaged", "the erasure has no row in the catalogue");
    const { actor, reason, beganAtUs } = row;
    const gathered = parseFacts(row.facts);
    const keysDestroyed = this.#keysOf(id) ?? gathered.keysDestroyed;
    const facts = { ...gathered, keysDestroyed };
    const text = JSON.stringify(facts);
    if (text !== row.facts) await directory.putErasureFacts(id, text);
    return { ...facts, actor, reason, beganAtUs };
  }

  /** What this process had read and freed of it: in the threads that served it, in the heaps of JavaScript and of C. */
  async #scrubMemory(): Promise<boolean> {
    await this.#node.lanes.retireAll();
    await collectGarbage();
    // Said in the certificate only where nothing can have been left behind.
    return scrubFreedMemory() && overwritesFreedMemory();
  }

  #removeFiles(id: TenantId, keepCiphertext: boolean): void {
    const { disk, root } = this.#node;
    const tenants = join(root, "tenants");
    const folder = join(tenants, id.toString());
    if (!disk.has(folder)) return;
    const log = logFolder(root, id);
    if (!keepCiphertext) disk.removeFolder(folder);
    else {
      const others = disk.list(folder).map((name) => join(folder, name));
      for (const path of others) if (path !== log) disk.removeFolder(path);
      disk.syncFolder(folder);
    }
    disk.syncFolder(tenants);
  }
}

function parseRequest(options: EraseOptions): EraseRequest {
  const given = parseOptions(options);
  const { overrideRetention = false, keepCiphertext = false } = given;
  for (const flag of [overrideRetention, keepCiphertext]) {
    if (typeof flag !== "boolean") throw kimberliteError("invalid_argument", "a flag is true or false");
  }
  const { actor, correlationId } = parseContext(given);
  const address = parseAddress(given);
  return {
    ...(address === undefined ? {} : { address }),
    reason: parseReason(given.reason),
    actor,
    overrideRetention,
    keepCiphertext,
    ...(correlationId === undefined ? {} : { correlationId }),
  };
}

/** @throws `catalog_damaged` */
function parseFacts(text: string): GatheredFacts {
  try {
    const facts = JSON.parse(text) as Partial<GatheredFacts> | null;
    const { segments, projections, ciphertextKept, keysDestroyed } = facts ?? {};
    const counts = Number.isSafeInteger(segments) && Number.isSafeInteger(projections);
    if (counts && typeof ciphertextKept === "boolean" && Array.isArray(keysDestroyed?.deks))
      return facts as GatheredFacts;
  } catch {
    // Said below for every way in which it can be wrong.
  }
  throw kimberliteError("catalog_damaged", "the catalogue holds an erasure that is not one");
}

function removedParts(
  id: TenantId,
  was: {
    readonly segments: number;
    readonly projections: number;
    readonly kept: boolean;
    readonly scrubbed: boolean;
  },
): RemovedPart[] {
  return [
    { what: "keys", where: `keys/${id}.keys`, count: 1 },
    { what: "journal", where: "journal", count: 2 },
    { what: "projection", where: `tenants/${id}/projection`, count: was.projections },
    ...(was.kept ? [] : [{ what: "log" as const, where: `tenants/${id}/log`, count: was.segments }]),
    ...(was.scrubbed ? [{ what: "memory" as const, where: "process", count: 1 }] : []),
  ];
}

/** What cannot be opened any more is erased all the same. */
function ignoreRefusal(error: unknown): void {
  if (!(error instanceof KimberliteError)) throw error;
}
