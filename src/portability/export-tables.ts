/**
 * The tables of a tenant as CSV (RFC 4180) and Apache Parquet, and its schema as SQL: for people and other programs. The
 * events are what is proven; these files are convenience, under the same manifest.
 *
 * Reads from one snapshot, row by row. Memory: one row group.
 */
import { stringify } from "csv-stringify/sync";
import { ByteWriter, ParquetWriter } from "hyparquet-writer";
import type { Disk } from "../host/disk.ts";
import type { SqliteDatabase, SqliteStatement } from "../projection/sqlite.ts";
import { isVirtual, listTables, quoteName, readTable } from "../projection/tables.ts";
import { type ExportFile, writeExportFile } from "./export-file.ts";
import type { ExportedFile, ExportedTable } from "./export-verifier.ts";
import type { Turns } from "./turns.ts";

/** Where to and from. */
export interface TableExport {
  readonly db: SqliteDatabase;
  readonly disk: Disk;
  readonly dir: string;
  readonly turns: Turns;
}

type Cell = null | bigint | number | string | Buffer;
type StorageClass = "null" | "integer" | "big integer" | "real" | "text" | "blob";
/** How a column is in the Parquet file; `json` for one whose values are of several storage classes. */
type ParquetKind = "int64" | "double" | "string" | "bytes" | "json";

const CSV_ROWS = 200;
const GROUP_ROWS = 20_000;
const GROUP_BYTES = 8 * 1024 * 1024;

/** Writes every table twice. @returns what to say of them in the manifest, in order of name */
export async function exportTables(into: TableExport): Promise<ExportedTable[]> {
  const files: ExportedTable[] = [];
  const tables = listTables(into.db)
    .filter((item) => isVirtual(item) || !readTable(into.db, item).shadow)
    .sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const [index, { name: table }] of tables.entries()) {
    const base = `tables/${String(index + 1).padStart(4, "0")}-${fileName(table)}`;
    const statement = into.db
      .prepare(`SELECT * FROM main.${quoteName(table)}`)
      .raw(true)
      .safeIntegers(true);
    const columns = statement.columns().map(({ name }) => name);
    const seen: Set<StorageClass>[] = columns.map(() => new Set());
    let rows = 0;
    const csv = await writeExportFile(into, `${base}.csv`, async (file) => {
      rows = await writeCsv(into, file, { statement, columns, seen });
    });
    files.push({ ...csv, table, rows });
    const kinds = seen.map(kindOf);
    const parquet = await writeExportFile(into, `${base}.parquet`, (file) =>
      writeParquet(into, file, { statement, columns, kinds }),
    );
    const byName = Object.fromEntries(columns.map((column, at) => [column, kinds[at] as string]));
    files.push({ ...parquet, table, rows, columns: byName });
  }
  return files;
}

/** The statements that make the schema, in an order in which they run. */
export function exportSchema(into: TableExport): Promise<ExportedFile> {
  const items = into.db
    .prepare(
      `SELECT sql FROM main.sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE '\\_kimberlite\\_%' ESCAPE '\\'
       AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY CASE type WHEN 'table' THEN 0 WHEN 'index' THEN 1
       WHEN 'view' THEN 2 ELSE 3 END, rowid`,
    )
    .pluck(true)
    .all() as string[];
  const shadows = new Set(
    listTables(into.db)
      .filter((item) => !isVirtual(item) && readTable(into.db, item).shadow)
      .map(({ sql }) => sql),
  );
  const statements = items.filter((sql) => !shadows.has(sql)).map((sql) => `${sql};\n`);
  return writeExportFile(into, "schema.sql", async (file) => file.write(Buffer.from(statements.join(""))));
}

/** NULL is nothing between the commas and empty text is `""`; blobs are `\x` and hexadecimal digits, as PostgreSQL's. */
async function writeCsv(
  into: TableExport,
  file: ExportFile,
  table: {
    readonly statement: SqliteStatement;
    readonly columns: readonly string[];
    readonly seen: readonly Set<StorageClass>[];
  },
): Promise<number> {
  let rows = 0;
  let page: (string | null)[][] = [[...table.columns]];
  const flush = (): void => {
    file.write(Buffer.from(stringify(page, { cast: { string: castText }, record_delimiter: "windows" })));
    page = [];
  };
  for (const row of table.statement.iterate() as Iterable<Cell[]>) {
    rows += 1;
    for (const [at, cell] of row.entries()) (table.seen[at] as Set<StorageClass>).add(classOf(cell));
    page.push(row.map(toCsv));
    if (page.length >= CSV_ROWS) flush();
    if (into.turns.over) await into.turns.next();
  }
  flush();
  return rows;
}

function castText(value: string): string | { readonly value: string; readonly quoted_empty: boolean } {
  return value === "" ? { value, quoted_empty: true } : value;
}

function toCsv(cell: Cell): string | null {
  if (cell === null) return null;
  if (cell instanceof Uint8Array) return `\\x${cell.toString("hex")}`;
  return typeof cell === "number" ? realText(cell) : cell.toString();
}

/** A REAL that SQL reads back as a REAL. */
function realText(value: number): string {
  const text = String(value);
  return Number.isInteger(value) && !text.includes("e") ? `${text}.0` : text;
}

function classOf(cell: Cell): StorageClass {
  if (cell === null) return "null";
  if (typeof cell === "bigint") {
    const safe = cell <= BigInt(Number.MAX_SAFE_INTEGER) && cell >= BigInt(Number.MIN_SAFE_INTEGER);
    return safe ? "integer" : "big integer";
  }
  if (typeof cell === "number") return "real";
  return typeof cell === "string" ? "text" : "blob";
}

/** The narrowest kind that holds every value exactly. */
function kindOf(seen: ReadonlySet<StorageClass>): ParquetKind {
  const classes = new Set(seen);
  classes.delete("null");
  const only = (...names: StorageClass[]): boolean => [...classes].every((name) => names.includes(name));
  if (only("text")) return "string";
  if (only("integer", "big integer")) return "int64";
  if (only("integer", "real")) return "double";
  return only("blob") ? "bytes" : "json";
}

const ELEMENTS: Readonly<Record<ParquetKind, Readonly<Record<string, string>>>> = {
  int64: { type: "INT64" },
  double: { type: "DOUBLE" },
  bytes: { type: "BYTE_ARRAY" },
  string: { type: "BYTE_ARRAY", converted_type: "UTF8" },
  json: { type: "BYTE_ARRAY", converted_type: "UTF8" },
};

type ParquetOptions = ConstructorParameters<typeof ParquetWriter>[0];

async function writeParquet(
  into: TableExport,
  file: ExportFile,
  table: {
    readonly statement: SqliteStatement;
    readonly columns: readonly string[];
    readonly kinds: readonly ParquetKind[];
  },
): Promise<void> {
  const { columns, kinds } = table;
  const elements = columns.map((name, at) => ({
    ...ELEMENTS[kinds[at] as ParquetKind],
    name,
    repetition_type: "OPTIONAL",
  }));
  const schema = [{ name: "root", num_children: columns.length }, ...elements] as ParquetOptions["schema"];
  const writer = new FileBytes(file);
  const parquet = new ParquetWriter({ writer, schema, createdBy: "kimberlite", statistics: false });
  let group: unknown[][] = columns.map(() => []);
  let bytes = 0;
  const flush = async (): Promise<void> => {
    const data = group as never[][];
    await parquet.write({
      columnData: columns.map((name, at) => ({ name, data: data[at] as never[] })),
      rowGroupSize: GROUP_ROWS,
    });
    group = columns.map(() => []);
    bytes = 0;
  };
  for (const row of table.statement.iterate() as Iterable<Cell[]>) {
    for (const [at, cell] of row.entries()) {
      (group[at] as unknown[]).push(toParquet(cell, kinds[at] as ParquetKind));
      bytes += typeof cell === "string" || cell instanceof Uint8Array ? cell.length : 8;
    }
    if ((group[0]?.length ?? 0) >= GROUP_ROWS || bytes >= GROUP_BYTES) await flush();
    if (into.turns.over) await into.turns.next();
  }
  if ((group[0]?.length ?? 0) > 0) await flush();
  await parquet.finish();
}

function toParquet(cell: Cell, kind: ParquetKind): unknown {
  if (cell === null) return null;
  if (kind === "double") return Number(cell);
  if (kind !== "json") return cell;
  if (typeof cell === "bigint") return cell.toString();
  if (cell instanceof Uint8Array) return JSON.stringify({ base64: cell.toString("base64") });
  if (typeof cell === "number" && !Number.isFinite(cell)) return JSON.stringify(String(cell));
  return typeof cell === "number" ? realText(cell) : JSON.stringify(cell);
}

/** Hands what the Parquet writer has made to the file after each row group. */
class FileBytes extends ByteWriter {
  readonly #file: ExportFile;

  constructor(file: ExportFile) {
    super(1024 * 1024);
    this.#file = file;
  }

  flush(): void {
    this.#file.write(Buffer.from(this.getBytes()));
    this.index = 0;
  }

  override finish(): void {
    this.flush();
  }
}

function fileName(table: string): string {
  return table.replaceAll(/[^A-Za-z0-9_]+/g, "_").slice(0, 40);
}
