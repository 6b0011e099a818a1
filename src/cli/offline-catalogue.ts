/**
 * The catalogue as the system tenant's log has it: which tenants there are, and which of them have written something.
 *
 * Without it a log that was removed altogether looks like that of a tenant that never wrote. Needs the master key; reads
 * files only, and ends where the log is damaged, which its own verification reports.
 */
import { KimberliteError } from "../errors.ts";
import { systemDisk } from "../host/disk.ts";
import type { OpenKeys } from "../keys/open-keys.ts";
import { type Block, GENESIS_HASH, openBlock } from "../log/block.ts";
import { type Change, decodeRecord, type LogRecord } from "../log/record.ts";
import { listSegments, logFolder, readSegmentHeader, scanSegment, segmentPath } from "../log/segment.ts";
import { decodeImage } from "../projection/image.ts";
import { SYSTEM_TENANT, TenantId } from "../tenant/tenant-id.ts";
import { openTenantKeys, type VerifiablePlace } from "./offline-verify.ts";

/** Tenants, each with whether its log must be there. */
export type Catalogue = ReadonlyMap<TenantId, boolean>;

type RowChange = Extract<Change, { kind: "row" }>;

const TABLE = "tenants";
const LOG_COLUMN = "has_log";

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
  const catalogue = new Map<TenantId, boolean>();
  let table: { readonly stream: number; readonly logColumn: number } | undefined;
  for (const { changes } of records) {
    for (const change of changes) {
      if (change.kind === "ddl") table = catalogueTable(change) ?? table;
      if (change.kind === "row" && change.stream === table?.stream)
        applyRow(catalogue, change, table.logColumn);
    }
  }
  return table === undefined ? undefined : catalogue;
}

/** The stream of the catalogue's table and the place of the column that says whether there is a log. */
function catalogueTable(
  ddl: Extract<Change, { kind: "ddl" }>,
): { readonly stream: number; readonly logColumn: number } | undefined {
  const stream = ddl.bindings.find(({ name }) => name === TABLE)?.stream;
  const columns = /\(([\s\S]*)\)/.exec(ddl.sql)?.[1]?.split(",") ?? [];
  const logColumn = columns.findIndex((column) => column.trim().split(/\s/)[0] === LOG_COLUMN);
  return stream === undefined || logColumn < 0 ? undefined : { stream, logColumn };
}

function applyRow(catalogue: Map<TenantId, boolean>, change: RowChange, logColumn: number): void {
  if (typeof change.key !== "bigint" || change.key < 1n) return;
  const id = TenantId(change.key);
  if (change.after === null) catalogue.delete(id);
  else catalogue.set(id, decodeImage(change.after)[logColumn] === 1);
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
