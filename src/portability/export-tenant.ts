/**
 * A tenant as a directory that anyone can read and check: events as JSON Lines, tables as CSV and Parquet, the schema, a
 * signed checkpoint, and a signed manifest over all of it (`docs/portability.md`).
 *
 * Everything in it is of one moment, the offset `size` at which the export began: tables come from a snapshot of the
 * projection there, events from the log up to there. Kept: the manifest is written last, so a directory without one is no
 * export. Survives: a crash, a full disk or a signal at any time; called again it goes on behind the last whole file.
 */
import { join } from "node:path";
import { kimberliteError } from "../errors.ts";
import type { Disk } from "../host/disk.ts";
import { type Block, isHollow, openSaltedRecords } from "../log/block.ts";
import { signCheckpoint } from "../log/checkpoint.ts";
import { MerkleFrontier } from "../log/merkle.ts";
import { formatVerifierKey, type NoteSigner, signNote, verifierKey } from "../log/signed-note.ts";
import type { TenantEngine } from "../pipeline/tenant-engine.ts";
import type { TenantEntry } from "../tenant/tenant-config.ts";
import { ExportFile } from "./export-file.ts";
import {
  type ExportedEvents,
  type ExportedFile,
  type ExportedTable,
  type ExportManifest,
  manifestText,
  renderLine,
  renderTrimmed,
} from "./export-verifier.ts";
import { Turns } from "./turns.ts";

const EVENTS_FILE_BYTES = 16 * 1024 * 1024;
const PROGRESS_FILE = "export-in-progress.json";
const MANIFEST_FILE = "manifest.json";

/** How far an export is. */
export interface ExportProgress {
  readonly doneRecords: bigint;
  readonly totalRecords: bigint;
  readonly bytes: number;
}

/** What an export needs of the running node. */
export interface ExportPlace {
  readonly entry: TenantEntry;
  /** As the catalogue has it now: holds may be placed while the export is written. */
  readonly presentEntry: () => TenantEntry;
  readonly engine: TenantEngine;
  readonly installation: string;
  readonly signer: NoteSigner;
  readonly disk: Disk;
  readonly dir: string;
  /** Asked at each turn; what it throws ends the export. */
  readonly requireGoingOn: () => void;
  readonly onProgress: ((progress: ExportProgress) => void) | undefined;
}

/** What an interrupted export leaves for the next call. */
interface Saved {
  readonly installation: string;
  readonly tenant: string;
  /** Absent until the tables are whole. */
  readonly size?: string;
  readonly tables: readonly ExportedTable[];
  readonly files: readonly ExportedFile[];
  readonly events: readonly ExportedEvents[];
}

type Snapshotted = Saved & { readonly size: string };

/** @throws `destination_exists`, `disk_full`, `disk_failed`, `log_damaged`; whatever `requireGoingOn` throws */
export async function writeExport(place: ExportPlace): Promise<ExportManifest> {
  const turns = new Turns(place.requireGoingOn);
  const left = readSaved(place);
  const saved = left?.size === undefined ? await exportSnapshot(place, turns) : { ...left, size: left.size };
  const { events, root } = await exportEvents(place, saved, turns);
  const checkpoint = await exportCheckpoint(place, saved.size, root);
  return finish(place, { ...saved, events, files: [...saved.files, checkpoint] }, root);
}

/**
 * What an earlier call left in the directory, if it is of this tenant.
 *
 * @throws `destination_exists` for a directory that holds anything else
 */
export function readSaved({
  disk,
  dir,
  entry,
  installation,
}: Pick<ExportPlace, "disk" | "dir" | "entry" | "installation">): Saved | undefined {
  const bytes = disk.readFile(join(dir, PROGRESS_FILE));
  if (bytes !== undefined) {
    const saved = parseSaved(bytes);
    if (saved?.installation === installation && saved.tenant === entry.id.toString()) return saved;
  } else if (disk.list(dir).length === 0) return undefined;
  throw kimberliteError(
    "destination_exists",
    "the directory of an export is new, empty, or one to go on with",
  );
}

/** Undefined for what no export left so; whether the files are what it says, the verification finds. */
function parseSaved(bytes: Buffer): Saved | undefined {
  let parsed: Partial<Saved> | null;
  try {
    parsed = JSON.parse(bytes.toString("utf8")) as Partial<Saved> | null;
  } catch {
    return undefined;
  }
  const { size, tables, files, events } = parsed ?? {};
  const lists = [tables, files, events].every(
    (list) => Array.isArray(list) && list.every((file) => typeof file === "object" && file !== null),
  );
  const counted = (events ?? []).every?.(
    ({ count, bytes: length, name }) =>
      Number.isSafeInteger(count) && count > 0 && Number.isSafeInteger(length) && typeof name === "string",
  );
  const sized = size === undefined || /^(0|[1-9][0-9]{0,18})$/.test(String(size));
  return lists && counted && sized ? (parsed as Saved) : undefined;
}

/** Tables and schema, which are of one snapshot and begin anew if they are interrupted. */
async function exportSnapshot(place: ExportPlace, turns: Turns): Promise<Snapshotted> {
  const { engine, disk, dir, entry, installation } = place;
  const begun = { installation, tenant: entry.id.toString(), tables: [], files: [], events: [] };
  await save(place, begun);
  disk.removeFolder(join(dir, "tables"));
  disk.makeFolder(join(dir, "tables"));
  // Loaded for the first export: what writes Parquet takes as long to load as half of the engine.
  const { exportSchema, exportTables } = await import("./export-tables.ts");
  const snapshot = await engine.snapshot();
  try {
    const into = { db: snapshot.db, disk, dir, turns };
    const files = [await exportSchema(into)];
    const tables = await exportTables(into);
    const saved = { ...begun, size: snapshot.size.toString(), tables, files };
    disk.syncFolder(join(dir, "tables"));
    await save(place, saved);
    return saved;
  } finally {
    snapshot.close();
  }
}

async function save({ disk, dir }: ExportPlace, saved: Saved): Promise<void> {
  await disk.replaceFile(join(dir, PROGRESS_FILE), Buffer.from(JSON.stringify(saved)));
}

async function exportEvents(
  place: ExportPlace,
  saved: Snapshotted,
  turns: Turns,
): Promise<{ readonly events: ExportedEvents[]; readonly root: Buffer }> {
  const { engine } = place;
  const size = BigInt(saved.size);
  const done = [...saved.events];
  let next = done.reduce((sum, file) => sum + BigInt(file.count), 0n);
  const frontier = MerkleFrontier.empty();
  for (const leaf of engine.log.leafHashes(0n, next)) {
    frontier.append(leaf);
    if (turns.over) await turns.next();
  }
  let bytes = done.reduce((sum, file) => sum + file.bytes, 0);
  while (next < size) {
    const file = await exportEventsFile(place, {
      first: next,
      size,
      index: done.length,
      bytes,
      frontier,
      turns,
    });
    done.push(file);
    next += BigInt(file.count);
    bytes += file.bytes;
    await save(place, { ...saved, events: done });
  }
  return { events: done, root: frontier.root() };
}

async function exportEventsFile(
  place: ExportPlace,
  task: {
    readonly first: bigint;
    readonly size: bigint;
    readonly index: number;
    readonly bytes: number;
    readonly frontier: MerkleFrontier;
    readonly turns: Turns;
  },
): Promise<ExportedEvents> {
  const { engine, disk, dir, onProgress } = place;
  const { first, size, turns, frontier } = task;
  const name = `events-${String(task.index + 1).padStart(6, "0")}.jsonl`;
  const file = ExportFile.create(disk, dir, name);
  let next = first;
  try {
    for (const block of engine.log.blocks(first)) {
      for (const { offset, line, leaf } of linesOf(engine, block)) {
        if (offset < next || offset >= size) continue;
        file.write(Buffer.from(`${line}\n`));
        frontier.append(leaf);
        next += 1n;
      }
      if (next >= size || file.bytes >= EVENTS_FILE_BYTES) break;
      if (!turns.over) continue;
      onProgress?.({ doneRecords: next, totalRecords: size, bytes: task.bytes + file.bytes });
      await turns.next();
    }
  } catch (error) {
    file.abandon();
    throw error;
  }
  onProgress?.({ doneRecords: next, totalRecords: size, bytes: task.bytes + file.bytes });
  return { ...(await file.finish()), firstOffset: first.toString(), count: Number(next - first) };
}

/** Of a block whose records were trimmed, what is left of them. */
function* linesOf(
  engine: TenantEngine,
  block: Block,
): Generator<{ readonly offset: bigint; readonly line: string; readonly leaf: Buffer }, void> {
  let offset = block.header.firstOffset;
  if (isHollow(block.header)) {
    for (const leaf of block.leafHashes) {
      yield { offset, line: renderTrimmed(offset, leaf), leaf };
      offset += 1n;
    }
    return;
  }
  for (const parts of openSaltedRecords(block, engine.keys.logKey(block.header.dekVersion))) {
    yield { offset, line: renderLine(parts), leaf: parts.leaf };
    offset += 1n;
  }
}

async function exportCheckpoint(place: ExportPlace, size: string, root: Buffer): Promise<ExportedFile> {
  const { entry, signer, disk, dir } = place;
  const origin = `${signer.keyName}/tenant/${entry.id}`;
  const file = ExportFile.create(disk, dir, "checkpoint.txt");
  try {
    file.write(Buffer.from(signCheckpoint({ origin, size: BigInt(size), root }, signer)));
  } catch (error) {
    file.abandon();
    throw error;
  }
  return file.finish();
}

/** From here on it is an export. */
async function finish(place: ExportPlace, done: Snapshotted, root: Buffer): Promise<ExportManifest> {
  const { entry, signer, disk, dir, installation } = place;
  const manifest: ExportManifest = {
    format: "kimberlite-export/v1",
    installation,
    tenant: entry.id.toString(),
    name: entry.name,
    governance: governanceOf(place.presentEntry()),
    size: done.size,
    root: root.toString("base64"),
    verifierKey: formatVerifierKey(verifierKey(signer.keyName, signer.privateKey)),
    events: done.events,
    tables: done.tables,
    files: done.files,
  };
  const bytes = Buffer.from(`${JSON.stringify(manifest, null, 1)}\n`);
  await disk.replaceFile(join(dir, "manifest.sig"), Buffer.from(signNote(manifestText(bytes), [signer])));
  await disk.replaceFile(join(dir, MANIFEST_FILE), bytes);
  disk.removeFile(join(dir, PROGRESS_FILE));
  disk.syncFolder(dir);
  return manifest;
}

/** What binds the data wherever they go. */
function governanceOf(entry: TenantEntry): ExportManifest["governance"] {
  const { region, retentionMs, retentionMode, legalHolds, createdAtUs } = entry;
  return {
    region,
    createdAtUs: createdAtUs.toString(),
    retentionMs,
    retentionMode,
    legalHolds: legalHolds.map(({ name, reason, actor, placedAtUs }) => ({
      name,
      reason,
      actor,
      placedAtUs: placedAtUs.toString(),
    })),
  };
}
