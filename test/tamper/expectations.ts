/** What tests of tampering ask of an outcome. */
import { expect } from "vitest";
import { type ErrorCode, type Kimberlite, KimberliteError, type TenantId } from "../../src/index.ts";

/** The error of some work; fails if the work does not, or with anything outside the family. */
export async function failureOf(work: () => Promise<unknown>): Promise<KimberliteError> {
  let value: unknown;
  try {
    value = await work();
  } catch (error) {
    if (error instanceof KimberliteError) return error;
    expect.fail(`not of the error family: ${error instanceof Error ? (error.stack ?? "") : String(error)}`);
  }
  return expect.fail(`it did not fail, and gave ${typeof value}`);
}

export async function expectCode(code: ErrorCode, work: () => Promise<unknown>): Promise<KimberliteError> {
  const failure = await failureOf(work);
  expect(failure.code, failure.message).toBe(code);
  return failure;
}

/** The verification of a tenant finds the log bad from that offset on. */
export async function expectBad(db: Kimberlite, id: TenantId, offset: bigint): Promise<void> {
  const report = await db.verifyTenant(id);
  expect({ ok: report.ok, offset: report.firstBadOffset }, report.reason).toEqual({ ok: false, offset });
}
