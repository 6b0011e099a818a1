/**
 * The tables of a tenant as CSV (RFC 4180) and Apache Parquet, and its schema as SQL: for people and other programs. The
 * events are what is proven; these files are convenience, under the same manifest.
 *
 * Reads from one snapshot, row by row. Memory: one row group.
 */
import { stringify } from "csv-stringify/sync";
import { ByteWriter, ParquetWriter } from "hyparquet-writer";
import type { Disk } from "../host/disk.ts";
import type { SqliteDatabase } from "../projection/sqlite.ts";
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
  for (const [index, { name }] of tables.entries()) {
    const base = `tables/${String(index + 1).padStart(4, "0")}-${fileName(name)}`;
    files.push(...(await exportTable(into, name, base)));
  }
  return files;
}

/**
 * Both files in one pass. The kinds of the Parquet file's columns are taken from its first row group, which is right for
 * nearly every table; if a later value does not fit them, the Parquet file is written once more when all are known.
 */
async function exportTable(into: TableExport, table: string, base: string): Promise<ExportedTable[]> {
  const statement = into.db
    .prepare(`SELECT * FROM main.${quoteName(table)}`)
    .raw(true)
    .safeIntegers(true);
  const columns = statement.columns().map(({ name }) => name);
  const seen: Set<StorageClass>[] = columns.map(() => new Set());
  const kindsSeen = (): ParquetKind[] => seen.map(kindOf);
  const rows = async (take: (row: Cell[]) => Promise<void> | undefined): Promise<void> => {
    for (const row of statement.iterate() as Iterable<Cell[]>) {
      const written = take(row);
      if (written !== undefined) await written;
      if (into.turns.over) await into.turns.next();
    }
  };
  let first: ParquetRows | undefined;
  let parquet: ExportedFile | undefined;
  let count = 0;
  const csv = await writeExportFile(into, `${base}.csv`, async (csvFile) => {
    const csvRows = new CsvRows(csvFile, columns);
    parquet = await writeExportFile(into, `${base}.parquet`, async (file) => {
      const parquetRows = new ParquetRows(file, columns, kindsSeen);
      first = parquetRows;
      await rows((row) => {
        count += 1;
        for (const [at, cell] of row.entries()) (seen[at] as Set<StorageClass>).add(classOf(cell));
        csvRows.add(row);
        return parquetRows.add(row);
      });
      await parquetRows.finish();
    });
    csvRows.flush();
  });
  const kinds = kindsSeen();
  if (first?.fits(kinds) !== true) {
    parquet = await writeExportFile(into, `${base}.parquet`, async (file) => {
      const parquetRows = new ParquetRows(file, columns, () => kinds);
      await rows((row) => parquetRows.add(row));
      await parquetRows.finish();
    });
  }
  const byName = Object.fromEntries(columns.map((column, at) => [column, kinds[at] as string]));
  return [
    { ...csv, table, rows: count },
    { ...(parquet as ExportedFile), table, rows: count, columns: byName },
  ];
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
class CsvRows {
  readonly #file: ExportFile;
  #page: (string | null)[][];

  constructor(file: ExportFile, columns: readonly string[]) {
    this.#file = file;
    this.#page = [[...columns]];
  }

  add(row: readonly Cell[]): void {
    this.#page.push(row.map(toCsv));
    if (this.#page.length >= CSV_ROWS) this.flush();
  }

  flush(): void {
    const text = stringify(this.#page, { cast: { string: castText }, record_delimiter: "windows" });
    this.#file.write(Buffer.from(text));
    this.#page = [];
  }
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

/** Rows of a Parquet file, by row groups. The kinds of its columns are asked for when the first group is whole. */
class ParquetRows {
  readonly #file: ExportFile;
  readonly #columns: readonly string[];
  readonly #kindsSeen: () => ParquetKind[];
  #kinds: readonly ParquetKind[] | undefined;
  #writer: ParquetWriter | undefined;
  #group: Cell[][];
  #bytes = 0;

  constructor(file: ExportFile, columns: readonly string[], kindsSeen: () => ParquetKind[]) {
    this.#file = file;
    this.#columns = columns;
    this.#kindsSeen = kindsSeen;
    this.#group = columns.map(() => []);
  }

  /** False when a value came that the kinds of the first group do not hold: then the file is none. */
  fits(kinds: readonly ParquetKind[]): boolean {
    return this.#kinds?.every((kind, at) => kind === kinds[at]) ?? false;
  }

  add(row: readonly Cell[]): Promise<void> | undefined {
    for (const [at, cell] of row.entries()) {
      (this.#group[at] as Cell[]).push(cell);
      this.#bytes += typeof cell === "string" || cell instanceof Uint8Array ? cell.length : 8;
    }
    const whole = (this.#group[0]?.length ?? 0) >= GROUP_ROWS || this.#bytes >= GROUP_BYTES;
    return whole ? this.#flush() : undefined;
  }

  async finish(): Promise<void> {
    if ((this.#group[0]?.length ?? 0) > 0) await this.#flush();
    else if (this.#kinds === undefined) this.#begin();
    await this.#writer?.finish();
  }

  async #flush(): Promise<void> {
    const kinds = this.#kinds ?? this.#begin();
    const group = this.#group;
    this.#group = this.#columns.map(() => []);
    this.#bytes = 0;
    if (!this.fits(this.#kindsSeen())) return;
    await this.#writer?.write({
      columnData: this.#columns.map((name, at) => ({
        name,
        data: (group[at] as Cell[]).map((cell) => toParquet(cell, kinds[at] as ParquetKind)) as never[],
      })),
      rowGroupSize: GROUP_ROWS,
    });
  }

  #begin(): readonly ParquetKind[] {
    const kinds = this.#kindsSeen();
    const elements = this.#columns.map((name, at) => ({
      ...ELEMENTS[kinds[at] as ParquetKind],
      name,
      repetition_type: "OPTIONAL",
    }));
    const root = { name: "root", num_children: this.#columns.length };
    const schema = [root, ...elements] as ParquetOptions["schema"];
    const writer = new FileBytes(this.#file);
    this.#writer = new ParquetWriter({ writer, schema, createdBy: "kimberlite", statistics: false });
    this.#kinds = kinds;
    return kinds;
  }
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
