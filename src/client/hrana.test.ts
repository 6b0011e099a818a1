/** What of a transaction is left when its stream is not: nothing runs alone that was meant to be part of it. */
import { expect, it } from "vitest";
import { HranaStream } from "./hrana.ts";

/** A server on which a transaction is open from the first request on. */
function streamOn(answer: () => Response): { stream: HranaStream; sent: string[]; clock: { ms: number } } {
  const sent: string[] = [];
  const clock = { ms: 0 };
  const send = async (_: unknown, init?: RequestInit): Promise<Response> => {
    sent.push(init?.body as string);
    return answer();
  };
  const options = { url: "http://db.test", token: "t", nowMs: () => clock.ms, fetch: send as typeof fetch };
  return { stream: new HranaStream(options), sent, clock };
}

function within(): Response {
  const result = { cols: [], rows: [], affected_row_count: 0, last_insert_rowid: null };
  const results = [
    { type: "ok", response: { type: "execute", result } },
    { type: "ok", response: { type: "get_autocommit", is_autocommit: false } },
  ];
  return Response.json({ baton: "b", results });
}

it("refuses what comes after a transaction that was open for too long, until it is ended", async () => {
  const { stream, sent, clock } = streamOn(within);
  await stream.execute({ sql: "BEGIN" });
  clock.ms = 60_000;
  await expect(stream.execute({ sql: "INSERT" })).rejects.toMatchObject({ code: "transaction_timeout" });
  await expect(stream.execute({ sql: "INSERT" })).rejects.toMatchObject({ code: "transaction_timeout" });
  await expect(stream.transaction([{ sql: "INSERT" }])).rejects.toMatchObject({
    code: "transaction_timeout",
  });
  await expect(stream.execute({ sql: "COMMIT;" })).rejects.toMatchObject({ code: "transaction_timeout" });
  expect(sent).toHaveLength(1);
  await stream.execute({ sql: "INSERT" });
  expect(sent).toHaveLength(2);
  expect(sent[1]).toContain('"baton":null');
});

it("refuses what comes after a transaction whose stream broke", async () => {
  let broken = false;
  const { stream, sent } = streamOn(() => (broken ? new Response("", { status: 503 }) : within()));
  await stream.execute({ sql: "BEGIN" });
  broken = true;
  await expect(stream.execute({ sql: "INSERT" })).rejects.toMatchObject({ code: "overloaded" });
  broken = false;
  await expect(stream.execute({ sql: "INSERT" })).rejects.toMatchObject({ code: "transaction_closed" });
  await stream.execute({ sql: "rollback" });
  expect(sent).toHaveLength(2);
  await stream.execute({ sql: "INSERT" });
  expect(sent).toHaveLength(3);
});
