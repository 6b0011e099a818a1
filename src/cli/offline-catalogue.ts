/**
 * The catalogue as the system tenant's log has it: which tenants there are, which of them have written something, and
 * which were erased.
 *
 * Without it a log that was removed altogether looks like that of a tenant that never wrote, and so does one that was
 * erased. Needs the master key; reads
 * files only, and ends where the log is damaged, which its own verification reports.
 */
import { type ErasureCertificate, readCertificate } from "../erasure/certificate.ts";
import { KimberliteError } from "../errors.ts";
import { systemDisk } from "../host/disk.ts";
import type { OpenKeys } from "../keys/open-keys.ts";
import { type Block, GENESIS_HASH, openBlock } from "../log/block.ts";
import { type Change, decodeRecord, type LogRecord } from "../log/record.ts";
import { listSegments, logFolder, readSegmentHeader, scanSegment, segmentPath } from "../log/segment.ts";
import { decodeImage } from "../projection/image.ts";
import { SYSTEM_TENANT, TenantId } from "../tenant/tenant-id.ts";
import { openTenantKeys, type VerifiablePlace } from "./offline-verify.ts";

/** What the catalogue says of a tenant. */
export interface CataloguedTenant {
  /** True if its log must be there. */
  readonly hasLog: boolean;
  readonly state: string;
  /** Of a tenant that was erased; undefined if it is not one that is understood. */
  readonly certificate: ErasureCertificate | undefined;
}

export type Catalogue = ReadonlyMap<TenantId, CataloguedTenant>;

type RowChange = Extract<Change, { kind: "row" }>;
type Row = ReadonlyMap<string, unknown>;

const TENANTS = "tenants";
const ERASURES = "erasures";

/** @returns undefined without the master key, or if the log has no catalogue that is understood */
export async function readCatalogue(place: VerifiablePlace): Promise<Catalogue | undefined> {
  const keys = await openTenantKeys(place, SYSTEM_TENANT).catch(ignoreDamage);
  if (keys === undefined) return undefined;
  try {
    return fold(systemRecords(place, keys));
  } finally {
    keys.zero();
  }
}

function ignoreDamage(error: unknown): undefined {
  const damage: readonly string[] = ["log_damaged", "keys_damaged", "format_too_new"];
  if (!(error instanceof KimberliteError) || !damage.includes(error.code)) throw error;
}

function fold(records: Iterable<LogRecord>): Catalogue | undefined {
  const tables = new Map([TENANTS, ERASURES].map((name) => [name, new FoldedTable(name)]));
  for (const { changes } of records) {
    for (const change of changes) {
      for (const table of tables.values()) {
        if (change.kind === "ddl") table.define(change);
        if (change.kind === "row") table.apply(change);
      }
    }
  }
  const rows = tables.get(TENANTS);
  if (rows?.isDefined !== true) return undefined;
  return new Map(
    [...rows.rows].map(([id, row]) => {
      const note = tables.get(ERASURES)?.rows.get(id)?.get("certificate");
      return [TenantId(id), catalogued(row, note)];
    }),
  );
}

function catalogued(row: Row, note: unknown): CataloguedTenant {
  return {
    hasLog: row.get("has_log") === 1,
    state: String(row.get("state")),
    certificate: typeof note === "string" ? certificateOf(note) : undefined,
  };
}

function certificateOf(note: string): ErasureCertificate | undefined {
  try {
    return readCertificate(note);
  } catch (error) {
    if (!(error instanceof KimberliteError)) throw error;
    return undefined;
  }
}

/** A table of the catalogue whose primary key is a tenant's id, as the changes of its rows leave it. */
class FoldedTable {
  readonly rows: Map<bigint, Row> = new Map();
  readonly #name: string;
  #stream: number | undefined;
  #columns: readonly string[] = [];

  constructor(name: string) {
    this.#name = name;
  }

  get isDefined(): boolean {
    return this.#stream !== undefined;
  }

  define(ddl: Extract<Change, { kind: "ddl" }>): void {
    const stream = ddl.bindings.find(({ name }) => name === this.#name)?.stream;
    if (stream === undefined) return;
    this.#stream = stream;
    const body = /\(([\s\S]*)\)/.exec(ddl.sql)?.[1] ?? "";
    this.#columns = body.split(",").map((column) => column.trim().split(/\s/)[0] ?? "");
  }

  apply({ stream, key, after }: RowChange): void {
    if (stream !== this.#stream || typeof key !== "bigint" || key < 1n) return;
    if (after === null) return void this.rows.delete(key);
    const values = decodeImage(after);
    this.rows.set(key, new Map(this.#columns.map((column, index) => [column, values[index]])));
  }
}

function* systemRecords(place: VerifiablePlace, keys: OpenKeys): Generator<LogRecord, void> {
  try {
    for (const block of systemBlocks(place)) {
      const key = keys.logKey(block.header.dekVersion);
      if (key === undefined) return;
      yield* openBlock(block, key).map(decodeRecord);
    }
  } catch (error) {
    ignoreDamage(error);
  }
}

function* systemBlocks(place: VerifiablePlace): Generator<Block, void> {
  const folder = logFolder(place.data, SYSTEM_TENANT);
  let chain = { tenant: SYSTEM_TENANT, nextOffset: 0n, hash: GENESIS_HASH };
  for (const firstOffset of listSegments(systemDisk, folder)) {
    const file = systemDisk.open(segmentPath(folder, firstOffset), "read");
    try {
      const { bytes } = readSegmentHeader(file, { tenant: SYSTEM_TENANT, firstOffset });
      for (const scanned of scanSegment(file, bytes, chain)) {
        if (scanned.kind !== "block") break;
        yield scanned.block;
        const { header, storedHash } = scanned.block;
        chain = {
          ...chain,
          nextOffset: header.firstOffset + BigInt(header.count),
          hash: Buffer.from(storedHash),
        };
      }
    } finally {
      file.close();
    }
  }
}
