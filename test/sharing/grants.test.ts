/** Grants through their life: made, used, refused, ended; and what both tenants' audit streams say of it. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  type AuditEntry,
  Duration,
  type KimberliteError,
  Permissions,
  type SharedOptions,
  StreamId,
  type TenantId,
} from "../../src/index.ts";
import { codeOf, HIDDEN, Hospitals, OWNER, READER, STRANGER } from "./hospitals.ts";

let hospitals: Hospitals;

beforeEach(async () => {
  hospitals = await Hospitals.make();
});

afterEach(() => hospitals[Symbol.asyncDispose]());

const COUNT = "SELECT count(*) AS n FROM patients";

async function told(tenant: TenantId): Promise<string[]> {
  const entries: AuditEntry[] = await Array.fromAsync(hospitals.db.audit(tenant));
  return entries
    .filter(({ action }) => action.startsWith("grant."))
    .map(({ action, outcome, code, detail }) =>
      [action, outcome, code, detail?.["rows"]].filter((part) => part !== undefined).join(" "),
    );
}

describe("a grant", () => {
  it("is listed by both, its predicate by its owner alone, and stands after a restart", async () => {
    const grant = await hospitals.grant();
    await hospitals.reopen();
    const [own] = await hospitals.db.listGrants(OWNER);
    const [theirs] = await hospitals.db.listGrants(READER);
    expect(own).toEqual(grant);
    expect(own?.where).toBe("ward = 'A'");
    expect(theirs).toEqual({ ...grant, where: undefined });
    expect(await hospitals.db.listGrants(STRANGER)).toEqual([]);
    expect(await hospitals.query(COUNT)).toEqual([{ n: 50 }]);
  });

  it("is for its reader alone, and is not passed on", async () => {
    await hospitals.grant();
    const stranger = hospitals.db.queryShared(STRANGER, hospitals.table, COUNT);
    expect(await codeOf(stranger)).toBe("grant_not_found");
    const onward = hospitals.grant({ fromTenant: READER, toTenant: STRANGER });
    expect(await codeOf(onward)).toBe("stream_not_found");
    const guess = hospitals.grant({ fromTenant: READER, toTenant: STRANGER, stream: StreamId(READER, 100) });
    expect(await codeOf(guess)).toBe("stream_not_found");
  });

  it.each([
    ["of a table that is not there", { stream: StreamId(OWNER, 9_999) }, "stream_not_found"],
    ["of the audit stream", { stream: StreamId(OWNER, 1) }, "stream_not_found"],
    ["to itself", { toTenant: OWNER }, "invalid_argument"],
    ["of another permission", { permissions: "write" as never }, "invalid_argument"],
    ["of a column that is not there", { columns: ["id", "nothing"] }, "invalid_argument"],
    ["of a column twice", { columns: ["id", "ID"] }, "invalid_argument"],
    ["without a purpose", { purpose: " " }, "invalid_argument"],
    ["of no rows", { maxRows: 0 }, "invalid_argument"],
    ["by a subquery", { where: "id IN (SELECT id FROM secrets)" }, "invalid_sql"],
    ["by another table", { where: "secrets.id = 1" }, "invalid_sql"],
    ["by chance", { where: "random() > 0" }, "invalid_sql"],
    ["by the clock", { where: "name < date('now')" }, "invalid_sql"],
    ["by a parameter", { where: "id = ?" }, "invalid_sql"],
    ["by what can fail", { where: "abs(id) > 0" }, "invalid_sql"],
    ["by an aggregate", { where: "count(*) > 0" }, "invalid_sql"],
    ["by two statements", { where: "1; DROP TABLE patients" }, "invalid_sql"],
    ["by half a condition", { where: "1) OR (1" }, "invalid_sql"],
    ["by an open comment", { where: "1 /*" }, "invalid_sql"],
  ])("%s is refused", async (_, terms, code) => {
    expect(await codeOf(hospitals.grant(terms))).toBe(code);
    expect(await hospitals.db.listGrants(OWNER)).toEqual([]);
  });

  it("with a number of rows shares the first of them, whatever is asked", async () => {
    await hospitals.grant({ maxRows: 3 });
    expect(await hospitals.query("SELECT id FROM patients ORDER BY id DESC")).toEqual([
      { id: 5 },
      { id: 3 },
      { id: 1 },
    ]);
    expect(await hospitals.query("SELECT id FROM patients WHERE id > 5")).toEqual([]);
    expect(await hospitals.query("SELECT id FROM patients ORDER BY id LIMIT 9 OFFSET 2")).toEqual([
      { id: 5 },
    ]);
  });

  it("with a comment behind its predicate shares what the predicate says", async () => {
    await hospitals.grant({ where: "ward = 'A' -- the ward" });
    expect(await hospitals.query(COUNT)).toEqual([{ n: 50 }]);
  });
});

describe("the end of a grant", () => {
  it("by revocation refuses the next read, and for ever", async () => {
    const grant = await hospitals.grant();
    expect(await hospitals.query(COUNT)).toHaveLength(1);
    const revoked = await hospitals.db.revokeAccess(grant.id, { reason: "referral over" });
    expect(revoked).toMatchObject({ state: "revoked", endReason: "referral over" });
    expect(await codeOf(hospitals.query(COUNT))).toBe("grant_revoked");
    await hospitals.reopen();
    expect(await codeOf(hospitals.query(COUNT))).toBe("grant_revoked");
    expect(await codeOf(hospitals.db.revokeAccess("no such grant", { reason: "x" }))).toBe("grant_not_found");
  });

  it("by revocation ends rows and events that are being handed out", async () => {
    const grant = await hospitals.grant();
    const rows = hospitals.db.iterateShared(READER, hospitals.table, "SELECT id FROM patients");
    expect((await rows.next()).value).toEqual({ id: 1 });
    await hospitals.db.revokeAccess(grant.id, { reason: "over" });
    await hospitals.grant();
    expect(await codeOf(rows.next())).toBe("grant_revoked");

    const events = await hospitals.grantEvents();
    const items = hospitals.db.readShared(READER, hospitals.events);
    expect((await items.next()).value).toMatchObject({ offset: 0n, data: { referral: 0 } });
    await hospitals.db.revokeAccess(events.id, { reason: "over" });
    expect(await codeOf(items.next())).toBe("grant_revoked");
  });

  it("made again is another grant: one that names the first stays refused", async () => {
    const first = await hospitals.grant();
    await hospitals.db.revokeAccess(first.id, { reason: "over" });
    const second = await hospitals.grant();
    expect(second.id).not.toBe(first.id);
    expect(await codeOf(hospitals.query(COUNT, [], { grant: first.id }))).toBe("grant_revoked");
    expect(await hospitals.query(COUNT, [], { grant: second.id })).toEqual([{ n: 50 }]);
    expect(await hospitals.query(COUNT)).toEqual([{ n: 50 }]);
  });

  it.each([
    ["dropped", ["DROP TABLE patients"]],
    ["renamed", ["ALTER TABLE patients RENAME TO people"]],
    [
      "dropped and made anew by the same name",
      [
        "DROP TABLE patients",
        "CREATE TABLE patients (id INTEGER PRIMARY KEY, name TEXT NOT NULL COLLATE NOCASE, ward TEXT NOT NULL, diagnosis TEXT, dose REAL)",
      ],
    ],
    ["robbed of a column", ["ALTER TABLE patients DROP COLUMN dose"]],
    [
      "robbed of its last column, which is added again alike",
      ["ALTER TABLE patients DROP COLUMN dose", "ALTER TABLE patients ADD COLUMN dose REAL"],
    ],
    [
      "given another column under its last one's name, and all names back",
      [
        "ALTER TABLE patients RENAME COLUMN dose TO x",
        "ALTER TABLE patients ADD COLUMN dose REAL",
        "ALTER TABLE patients DROP COLUMN x",
      ],
    ],
    [
      "given other names for its columns",
      [
        "ALTER TABLE patients RENAME COLUMN dose TO x",
        "ALTER TABLE patients RENAME COLUMN diagnosis TO dose",
        "ALTER TABLE patients RENAME COLUMN x TO diagnosis",
      ],
    ],
    [
      "replaced by a view",
      ["ALTER TABLE patients RENAME TO people", "CREATE VIEW patients AS SELECT * FROM people"],
    ],
  ])("comes when its table is %s", async (_, statements) => {
    await hospitals.grant();
    expect(await hospitals.query(COUNT)).toEqual([{ n: 50 }]);
    await hospitals.db.execute(OWNER, "DROP INDEX patients_ward");
    for (const sql of statements) await hospitals.db.execute(OWNER, sql);
    expect(await codeOf(hospitals.query(COUNT))).toBe("grant_ended");
    expect((await hospitals.db.listGrants(OWNER))[0]).toMatchObject({ state: "ended" });
    expect(await told(OWNER)).toContain("grant.end done");
  });

  it("comes with a column that is gone and back within one transaction, also when the table is rebuilt meanwhile", async () => {
    const { db } = hospitals;
    await hospitals.grant();
    const swap = ["ALTER TABLE patients DROP COLUMN dose", "ALTER TABLE patients ADD COLUMN dose REAL"];
    await db.transaction(OWNER, swap);
    await db.rebuildProjection(OWNER);
    expect(await codeOf(hospitals.query(COUNT))).toBe("grant_ended");
    // One that is made afterwards stands, through another rebuild too.
    await hospitals.grant();
    await db.rebuildProjection(OWNER);
    expect(await hospitals.query(COUNT)).toEqual([{ n: 50 }]);
    // What is rolled back was never gone.
    await expect(db.transaction(OWNER, [...swap, "SELECT nothing"])).rejects.toThrow();
    expect(await hospitals.query(COUNT)).toEqual([{ n: 50 }]);
  });

  it("does not come when a column is added, which is not shared", async () => {
    await hospitals.grant({ columns: undefined as never });
    await hospitals.db.execute(OWNER, `ALTER TABLE patients ADD COLUMN later TEXT DEFAULT '${HIDDEN}'`);
    const [row] = await hospitals.query("SELECT * FROM patients LIMIT 1");
    expect(Object.keys(row ?? {})).toEqual(["id", "name", "ward", "diagnosis", "dose"]);
  });

  it("comes with the erasure of its owner, and with that of its reader", async () => {
    await hospitals.grant();
    const rows = hospitals.db.iterateShared(READER, hospitals.table, "SELECT id FROM patients");
    await rows.next();
    await hospitals.db.eraseTenant(OWNER, { reason: "asked for", overrideRetention: true });
    expect(await codeOf(rows.next())).toBe("grant_ended");
    expect(await codeOf(hospitals.query(COUNT))).toBe("grant_not_found");
    expect(await hospitals.db.listGrants(READER)).toEqual([]);
    expect(await told(READER)).toContain("grant.end done");
    await hospitals.reopen();
    expect(await hospitals.db.listGrants(READER)).toEqual([]);
  });

  it("is not the suspension of its owner, which only makes it wait", async () => {
    await hospitals.grant();
    await hospitals.db.suspendTenant(OWNER);
    expect(await codeOf(hospitals.query(COUNT))).toBe("grant_unavailable");
    await hospitals.db.resumeTenant(OWNER);
    expect(await hospitals.query(COUNT)).toEqual([{ n: 50 }]);
    await hospitals.db.suspendTenant(READER);
    expect(await codeOf(hospitals.query(COUNT))).toBe("tenant_suspended");
  });
});

describe("both audit streams", () => {
  it("hold the grant, each use with its rows, each refusal, and the end", async () => {
    const grant = await hospitals.grant();
    await hospitals.query("SELECT * FROM patients WHERE id < 10");
    await codeOf(hospitals.query("SELECT * FROM secrets"));
    await hospitals.db.revokeAccess(grant.id, { reason: "over" });
    await codeOf(hospitals.query(COUNT));
    const expected = [
      "grant.create began",
      "grant.use done 5",
      "grant.use failed invalid_sql",
      "grant.revoke done",
      "grant.use refused grant_revoked",
    ];
    expect(await told(OWNER)).toEqual(expected);
    expect(await told(READER)).toEqual(expected);
    const node = await Array.fromAsync(hospitals.db.nodeAudit());
    const changes = node.filter(({ action }) => action.startsWith("grant.")).map(({ action }) => action);
    expect(changes).toEqual(["grant.create", "grant.revoke"]);
  });

  it("name the purpose, the grant and the columns, and no value", async () => {
    const grant = await hospitals.grant({ where: `ward = 'A' AND name <> '${HIDDEN}'` });
    await hospitals.query("SELECT * FROM patients WHERE name = 'Patient 7'");
    for (const tenant of [OWNER, READER]) {
      const entries = await Array.fromAsync(hospitals.db.audit(tenant));
      const use = entries.find(({ action }) => action === "grant.use");
      expect(use).toMatchObject({
        reason: "referral",
        detail: { grant: grant.id, columns: "id, name, dose", rows: 1 },
      });
      const text = JSON.stringify(entries, (_, value: unknown) =>
        typeof value === "bigint" ? `${value}` : value,
      );
      expect(text).not.toMatch(/Patient|hidden|ward/);
    }
  });

  it("hold that a stranger asked, and the stranger learns nothing of whom it named", async () => {
    const asked: string[] = [];
    for (const stream of [hospitals.table, StreamId(OWNER, 9_999), StreamId(424_242, 100)]) {
      const error = await hospitals.db.queryShared(STRANGER, stream, COUNT).catch((thrown: Error) => thrown);
      asked.push(`${(error as Error).message} ${String(await codeOf(Promise.reject(error)))}`);
    }
    expect(new Set(asked).size).toBe(1);
    expect(await told(STRANGER)).toEqual(asked.map(() => "grant.use refused grant_not_found"));
    await hospitals.reopen();
    expect(await told(OWNER)).toEqual(["grant.use refused grant_not_found"]);
  });
});

describe("a refusal", () => {
  it("of a grant that is another's is that of one that nobody has, in words and records", async () => {
    const { db } = hospitals;
    const foreign = await hospitals.grant({ toTenant: STRANGER });
    const asked: Record<string, SharedOptions & { stream: StreamId }> = {
      foreign: { grant: foreign.id, stream: hospitals.table },
      absent: { grant: "0".repeat(32), stream: hospitals.table },
      "of another stream": { grant: foreign.id, stream: hospitals.secrets },
      "of no stream": { grant: foreign.id, stream: StreamId(OWNER, 9_999) },
      "of no tenant": { grant: foreign.id, stream: StreamId(4_711, 100) },
    };
    const answers = new Set<string>();
    for (let round = 0; round < 3; round += 1) {
      for (const { stream, ...options } of Object.values(asked)) {
        const before = (await db.describeTenant(READER)).size;
        const error = (await db
          .queryShared(READER, stream, COUNT, [], options)
          .catch((thrown: unknown) => thrown)) as KimberliteError;
        answers.add(`${error.code} ${error.message} ${JSON.stringify(error.detail)}`);
        expect((await db.describeTenant(READER)).size).toBe(before + 1n);
      }
    }
    expect(answers.size).toBe(1);
  });
});

describe("events that are shared", () => {
  it("come in order, from anywhere, and at most as many as are granted", async () => {
    await hospitals.grantEvents({ maxRows: 6 });
    const read = (range: { from?: number; limit?: number }): Promise<bigint[]> =>
      Array.fromAsync(hospitals.db.readShared(READER, hospitals.events, range), ({ offset }) => offset);
    expect(await read({})).toEqual([0n, 1n, 2n, 3n, 4n, 5n]);
    expect(await read({ from: 4 })).toEqual([4n, 5n]);
    expect(await read({ from: 2, limit: 2 })).toEqual([2n, 3n]);
    expect(await read({ from: 8 })).toEqual([]);
  });

  it("have no actor and no place in their owner's log", async () => {
    await hospitals.grantEvents();
    const [first] = await Array.fromAsync(hospitals.db.readShared(READER, hospitals.events, { limit: 1 }));
    expect(Object.keys(first ?? {}).sort()).toEqual(["data", "kind", "offset", "timeUs"]);
  });
});

it("what is granted cannot be a whole tenant", async () => {
  const given = { fromTenant: OWNER, toTenant: READER, permissions: Permissions.Read, purpose: "all of it" };
  expect(await codeOf(hospitals.db.grantAccess(given as never))).toBe("invalid_argument");
  expect(await codeOf(hospitals.grant({ expiration: Duration.milliseconds(0) }))).toBe("invalid_argument");
});
