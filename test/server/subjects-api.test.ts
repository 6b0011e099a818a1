/** One person erased over HTTP: by the tenant's admin alone, with a certificate, and the value nowhere but in the request. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { verifySubjectCertificate } from "../../src/erasure/subject-certificate.ts";
import { parseVerifierKey } from "../../src/log/signed-note.ts";
import { createLog } from "../../src/server/log.ts";
import { TenantId } from "../../src/tenant/tenant-id.ts";
import { type Api, apiOf } from "./api.ts";
import { type Served, startServed } from "./served.ts";

const A = TenantId(1);
const ALICE = "alice@example.org-SECRET";
const SUBJECTS = "/v1/tenants/1/subjects";
let served: Served;
let admin: Api;
let operator: Api;
const log: string[] = [];

beforeAll(async () => {
  served = await startServed({ log: createLog("info", { write: (line) => void log.push(line) }) });
  admin = apiOf(served, "1:admin");
  operator = apiOf(served, "operator");
  for (const id of ["1", "2"]) await operator("POST", "/v1/tenants", { id, name: `Hospital ${id}` });
  await served.db.execute(A, "CREATE TABLE patients (id INTEGER PRIMARY KEY, email, name TEXT)");
});
afterAll(async () => served[Symbol.asyncDispose]());

it("a table is declared before it has rows, once, and is listed with its column", async () => {
  const body = { table: "patients", column: "email", reason: "GDPR" };
  const declared = await admin("POST", SUBJECTS, body);
  expect(declared).toMatchObject({ status: 201, body: { table: "patients", column: "email" } });
  expect((await admin("POST", SUBJECTS, body)).body).toEqual(declared.body);
  expect((await admin("GET", SUBJECTS)).body.items).toEqual([declared.body]);
  const none = await admin("POST", SUBJECTS, { table: "nowhere", column: "x" });
  expect(none.body.code).toBe("stream_not_found");
  await served.db.execute(A, "CREATE TABLE filled AS SELECT 1 AS id");
  const late = await admin("POST", SUBJECTS, { table: "filled", column: "id" });
  expect(late.body.code).toBe("constraint_violation");
  const events = await Array.fromAsync(served.db.audit(A, { action: "subject.declare" }));
  expect(events[0]).toMatchObject({
    actor: "admin of 1",
    reason: "GDPR",
    correlationId: declared.headers.get("x-request-id"),
  });
});

it("a person is erased, once for one key, and the certificate verifies", async () => {
  await served.db.execute(
    A,
    "INSERT INTO patients VALUES (1, ?, 'Alice'), (2, 17, 'Bob'), (3, '17', 'Carol')",
    [ALICE],
  );
  const body = { subject: { type: "text", value: ALICE }, reason: "request 4711" };
  const key = { "idempotency-key": "erase-4711" };
  const [erased, again] = await Promise.all(
    [1, 2].map(() => admin("POST", `${SUBJECTS}/erasures`, body, key)),
  );
  expect(erased).toMatchObject({ status: 200, body: { tenant: "1", reason: "request 4711" } });
  expect(again?.body).toEqual(erased?.body);
  const { verifierKey } = (await admin("GET", "/v1/verifier-key")).body as { verifierKey: string };
  const facts = verifySubjectCertificate(String(erased?.body["note"]), parseVerifierKey(verifierKey));
  expect(facts).toMatchObject({ actor: "admin of 1", tables: [{ table: "patients", rows: 1 }] });
  expect((await admin("GET", `${SUBJECTS}/erasures`)).body.items).toEqual([erased?.body]);
  expect((await admin("POST", `${SUBJECTS}/erasures`, body)).body.code).toBe("subject_not_found");
  // Typed: the number is another person than the text.
  const number = { subject: { type: "integer", value: "17" }, reason: "request 4712" };
  expect((await admin("POST", `${SUBJECTS}/erasures`, number)).status).toBe(200);
  expect(await served.db.query(A, "SELECT name FROM patients")).toEqual([{ name: "Carol" }]);
});

it("a hold refuses it, and the refusal is on record", async () => {
  await served.db.execute(A, "INSERT INTO patients VALUES (4, 'dora', 'Dora')");
  await operator("POST", "/v1/tenants/1/holds", { name: "case 7", reason: "litigation" });
  const body = { subject: { type: "text", value: "dora" }, reason: "request 4713", overrideRetention: true };
  expect((await admin("POST", `${SUBJECTS}/erasures`, body)).body.code).toBe("legal_hold");
  const events = await Array.fromAsync(served.db.audit(A, { action: "subject.erase" }));
  expect(events.at(-1)).toMatchObject({ outcome: "refused", code: "legal_hold", actor: "admin of 1" });
  await operator("POST", "/v1/tenants/1/holds/release", { name: "case 7", reason: "closed" });
});

it("nobody else declares, lists or erases: no reader, no writer, no operator, no other tenant", async () => {
  const before = (await served.db.describeTenant(A)).size;
  const erase = { subject: { type: "text", value: "dora" }, reason: "theft" };
  for (const token of ["1:reader", "1:writer", "operator", "2:admin"]) {
    const api = apiOf(served, token);
    const answers = await Promise.all([
      api("GET", SUBJECTS),
      api("GET", `${SUBJECTS}/erasures`),
      api("POST", SUBJECTS, { table: "filled", column: "id" }),
      api("POST", `${SUBJECTS}/erasures`, erase),
    ]);
    expect(
      answers.map(({ body }) => body.code),
      token,
    ).toEqual(answers.map(() => "not_authorized"));
  }
  expect((await served.db.describeTenant(A)).size).toBe(before);
});

it("takes a value with its type and nothing else, and repeats it nowhere", async () => {
  const wrong = await Promise.all(
    [
      { subject: ALICE, reason: "x" },
      { subject: { type: "text", value: ALICE, also: 1 }, reason: "x" },
      { subject: { type: "integer", value: ALICE }, reason: "x" },
      { subject: { type: "null" }, reason: "x" },
      { subject: { type: "text", value: ALICE } },
    ].map((body) => admin("POST", `${SUBJECTS}/erasures`, body)),
  );
  for (const { body } of wrong) {
    expect(body.code).toBe("invalid_argument");
    expect(JSON.stringify(body)).not.toContain("SECRET");
  }
  expect(log.join("")).toContain("/v1/tenants/:tenant/subjects/erasures");
  expect(log.join("")).not.toContain("SECRET");
  const audit = await Array.fromAsync(served.db.audit(A));
  const node = await Array.fromAsync(served.db.nodeAudit());
  expect(audit.length * node.length).toBeGreaterThan(0);
  for (const event of [...audit, ...node])
    expect(Object.values(event.detail ?? {}).join()).not.toContain("SECRET");
});
