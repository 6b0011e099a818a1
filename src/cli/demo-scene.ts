/** What the demo prints, and the two hospitals that it is about. */
import { KimberliteError } from "../errors.ts";
import type { Kimberlite } from "../kimberlite.ts";
import type { ArraysResult } from "../operations.ts";
import type { Row } from "../projection/values.ts";
import { Region } from "../tenant/region.ts";
import { TenantId } from "../tenant/tenant-id.ts";
import { bold, dim, escapeLine, renderTable } from "./render.ts";

export const HOSPITAL_A: TenantId = TenantId(1);
export const HOSPITAL_B: TenantId = TenantId(2);
export const PATIENT_A = "Alice Smith";

const TABLE = "CREATE TABLE patients (id INTEGER PRIMARY KEY, name TEXT NOT NULL, dob TEXT)";

export class DemoScene {
  readonly db: Kimberlite;

  constructor(db: Kimberlite) {
    this.db = db;
  }

  async createHospitals(): Promise<void> {
    await this.db.createTenant({ id: HOSPITAL_A, name: "Hospital A", region: Region.UsEast });
    await this.db.createTenant({ id: HOSPITAL_B, name: "Hospital B", region: Region.EuWest });
    for (const id of [HOSPITAL_A, HOSPITAL_B]) await this.db.execute(id, TABLE);
    await this.execute(HOSPITAL_A, `INSERT INTO patients VALUES (123, '${PATIENT_A}', '1985-03-15')`);
    await this.execute(HOSPITAL_B, "INSERT INTO patients VALUES (123, 'Bob Johnson', '1990-07-22')");
  }

  title(text: string): void {
    console.log(`\n${bold(text)}`);
  }

  line(text: string): void {
    console.log(`  ${escapeLine(text)}`);
  }

  good(text: string): void {
    console.log(`  ✓ ${escapeLine(text)}`);
  }

  async execute(id: TenantId, sql: string): Promise<ArraysResult> {
    const result = await this.db.executeArrays(id, sql);
    this.#said(id, sql, dim(`→ offset ${result.offset}`));
    return result;
  }

  /** Shows the rows, now or as of an offset. */
  async query(id: TenantId, sql: string, at?: bigint): Promise<Row[]> {
    const rows = await this.db.query(id, sql, [], at === undefined ? {} : { at });
    const columns = Object.keys(rows[0] ?? {});
    this.#said(id, sql, at === undefined ? "" : dim(`at offset ${at}`));
    const table = renderTable(
      columns,
      rows.map((row) => columns.map((column) => row[column] ?? null)),
    );
    console.log(table.replaceAll(/^/gm, "  "));
    return rows;
  }

  /** Shows that a statement is refused, with this code. */
  async refused(code: string, id: TenantId, sql: string, shown: string = sql): Promise<void> {
    try {
      await this.db.execute(id, sql);
    } catch (error) {
      if (!(error instanceof KimberliteError) || error.code !== code) throw error;
      this.#said(id, shown, "");
      this.line(`  ✗ ${error.code}: ${error.message}`);
      return;
    }
    this.require(false, `${shown} is refused`);
  }

  /** A demo that shows something else than it says is a bug. */
  require(condition: boolean, what: string): void {
    if (!condition) throw new Error(`the demo failed: not true that ${what}`);
  }

  #said(id: TenantId, sql: string, rest: string): void {
    console.log(`  ${id === HOSPITAL_A ? "A" : "B"}> ${sql} ${rest}`.trimEnd());
  }
}
