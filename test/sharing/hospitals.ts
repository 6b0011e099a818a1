/** Two tenants, of which one shares: a table with what may and what may not be seen in it, other tables, a stream. */
import {
  Duration,
  type Grant,
  type GrantRequest,
  type Kimberlite,
  KimberliteError,
  type OpenOptions,
  Permissions,
  type Row,
  type SharedOptions,
  type SqlParams,
  type StreamId,
  TenantId,
} from "../../src/index.ts";
import { Scratch } from "../isolation/scratch.ts";

export const OWNER: TenantId = TenantId(1);
export const READER: TenantId = TenantId(2);
export const STRANGER: TenantId = TenantId(3);

/** Values that are in no column or row that is shared. */
export const HIDDEN = "hidden-value-7f3a";
/** Names that are not shared. */
export const HIDDEN_NAMES: readonly string[] = [
  "diagnosis",
  "ward",
  "secrets",
  "secret_view",
  "secret_trigger",
];

/** Patients 1 to 100, of whom those with odd ids are in the ward that is shared; the others hold what must not be seen. */
export class Hospitals implements AsyncDisposable {
  readonly scratch: Scratch = new Scratch();
  db!: Kimberlite;
  table!: StreamId;
  secrets!: StreamId;
  events!: StreamId;

  static async make(options: Partial<OpenOptions> = {}): Promise<Hospitals> {
    const made = new Hospitals();
    made.db = await made.scratch.open(options);
    const { db } = made;
    for (const id of [OWNER, READER, STRANGER]) await db.createTenant({ id, name: `hospital ${id}` });
    await db.transaction(OWNER, [
      `CREATE TABLE patients (id INTEGER PRIMARY KEY, name TEXT NOT NULL COLLATE NOCASE, ward TEXT NOT NULL,
        diagnosis TEXT, dose REAL)`,
      "CREATE INDEX patients_ward ON patients (ward)",
      "CREATE TABLE secrets (id INTEGER PRIMARY KEY, text TEXT)",
      "CREATE VIEW secret_view AS SELECT * FROM secrets",
      "CREATE TRIGGER secret_trigger AFTER INSERT ON secrets BEGIN DELETE FROM secrets WHERE id < 0; END",
    ]);
    const rows = Array.from({ length: 100 }, (_, index) => index + 1).map((id) => {
      const shared = id % 2 === 1;
      return {
        id,
        name: shared ? `Patient ${id}` : `${HIDDEN} ${id}`,
        ward: shared ? "A" : "B",
        diagnosis: `${HIDDEN} of ${id}`,
        dose: id / 2,
      };
    });
    await db.insert(OWNER, "patients", rows);
    await db.insert(OWNER, "secrets", { id: 1, text: HIDDEN });
    made.events = await db.createStream(OWNER, "referrals");
    await db.append(
      OWNER,
      made.events,
      Array.from({ length: 10 }, (_, index) => ({ referral: index })),
    );
    made.table = await made.streamOf("patients");
    made.secrets = await made.streamOf("secrets");
    return made;
  }

  async streamOf(name: string): Promise<StreamId> {
    const found = (await this.db.streams(OWNER)).find((stream) => stream.name === name);
    if (found === undefined) throw new Error(`there is no ${name}`);
    return found.id;
  }

  /** Grants the shared columns of the shared ward, unless it is told otherwise. */
  grant(terms: Partial<GrantRequest> = {}): Promise<Grant> {
    return this.db.grantAccess({
      fromTenant: OWNER,
      toTenant: READER,
      stream: this.table,
      permissions: Permissions.Read,
      expiration: Duration.hours(1),
      columns: ["id", "name", "dose"],
      where: "ward = 'A'",
      purpose: "referral",
      ...terms,
    });
  }

  grantEvents(terms: Partial<GrantRequest> = {}): Promise<Grant> {
    const { columns: _, where: __, ...given } = { columns: 0, where: 0, ...terms } as Partial<GrantRequest>;
    const request: GrantRequest = {
      fromTenant: OWNER,
      toTenant: READER,
      stream: this.events,
      permissions: Permissions.Read,
      purpose: "referral",
      ...given,
    };
    return this.db.grantAccess(request);
  }

  query(sql: string, params?: SqlParams, options?: SharedOptions): Promise<Row[]> {
    return this.db.queryShared(READER, this.table, sql, params, options);
  }

  /** Closes and opens the node. */
  async reopen(options: Partial<OpenOptions> = {}): Promise<void> {
    await this.db.close();
    this.db = await this.scratch.open(options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.scratch[Symbol.asyncDispose]();
  }
}

/** The code that the work fails with, or what it gives. */
export async function codeOf(work: Promise<unknown>): Promise<unknown> {
  try {
    return await work;
  } catch (error) {
    return error instanceof KimberliteError ? error.code : error;
  }
}
