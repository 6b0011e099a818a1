/** Quotas as a client of libSQL meets them: over HTTP a status and headers that machines know, and the code. */
import { createClient } from "@libsql/client";
import { expect, it } from "vitest";
import { TenantId } from "../../src/tenant/tenant-id.ts";
import { type Served, serve, tokenOf } from "./served.ts";

const A = TenantId(1);
const INSERT = "INSERT INTO t VALUES (1)";
const SELECT = "SELECT count(*) AS n FROM t";

async function ask(served: Served, statements: readonly string[], baton: string | null = null) {
  const requests = statements.map((sql) => ({ type: "execute", stmt: { sql } }));
  const response = await fetch(`${served.url}/v3/pipeline`, {
    method: "POST",
    headers: { authorization: `Bearer ${tokenOf(1)}`, "content-type": "application/json" },
    body: JSON.stringify({ baton, requests }),
  });
  const { headers, status } = response;
  const limits = ["retry-after", "ratelimit", "ratelimit-policy"].map((name) => headers.get(name));
  return { status, limits, body: (await response.json()) as Record<string, unknown> };
}

it("a pipeline that a quota refuses is 429; one that did something is answered with what it did; both say which", async () => {
  const served = await serve();
  await served.db.execute(A, "CREATE TABLE t (v)");
  await served.db.setQuota(A, { maxLogBytes: 1 });
  const limits = [null, null, '"maxLogBytes";q=1;qu="content-bytes"'];
  const refused = { type: "error", error: { code: "quota_exceeded" } };
  const read = await ask(served, [SELECT]);
  expect(read).toMatchObject({ status: 200, limits: [null, null, null] });
  expect(await ask(served, [INSERT])).toMatchObject({
    status: 429,
    limits,
    body: { code: "quota_exceeded" },
  });
  expect(await ask(served, [SELECT, INSERT])).toMatchObject({
    status: 200,
    limits,
    body: { results: [{ type: "ok" }, refused] },
  });
  // What failed otherwise is told as well.
  const wrong = { type: "error", error: { code: "SQLITE_ERROR" } };
  expect(await ask(served, ["SELEC", INSERT])).toMatchObject({
    status: 200,
    limits,
    body: { results: [wrong, refused] },
  });
  // A stream that goes on is answered as one, and goes on.
  const on = await ask(served, [INSERT], String(read.body["baton"]));
  expect(on).toMatchObject({ status: 200, limits, body: { results: [refused] } });
  expect(await ask(served, [SELECT], String(on.body["baton"]))).toMatchObject({ status: 200 });
  for (const scheme of ["http", "ws"]) {
    const client = createClient({ url: served.url.replace("http", scheme), authToken: tokenOf(1) });
    await expect(client.execute(INSERT)).rejects.toMatchObject({ code: "quota_exceeded" });
    await expect(client.batch([INSERT, INSERT], "write")).rejects.toMatchObject({ code: "quota_exceeded" });
    expect((await client.execute(SELECT)).rows[0]?.["n"]).toBe(0);
    client.close();
  }
});

it("a rate that is spent says when to come again", async () => {
  const served = await serve();
  await served.db.execute(A, "CREATE TABLE t (v)");
  await served.db.setQuota(A, { maxOpsPerSec: 1 });
  const answers = await Promise.all(Array.from({ length: 20 }, () => ask(served, [SELECT])));
  const refused = answers.filter(({ status }) => status !== 200);
  expect(refused.length).toBeGreaterThan(0);
  for (const { status, limits, body } of refused) {
    expect([status, limits, body["code"]]).toEqual([
      429,
      ["1", '"maxOpsPerSec";r=0;t=1', '"maxOpsPerSec";q=1;w=1'],
      "rate_limited",
    ]);
  }
});
