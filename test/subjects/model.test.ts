/**
 * I-5, I-3: whatever is written of whomever, in whatever way; after some of them are erased the live tables, those that are
 * built anew from the log, and a model without the erased agree, row for row.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Kimberlite, TenantId } from "../../src/index.ts";
import { Scratch } from "../isolation/scratch.ts";

const A = TenantId(1);

type Who = string | number | null;
type Rows = Map<number, { readonly who: Who; readonly note: string }>;

interface Step {
  readonly way: "statement" | "callback";
  readonly what: "put" | "give" | "note" | "delete";
  readonly id: number;
  readonly who: Who;
  readonly note: string;
}

const who: fc.Arbitrary<Who> = fc.constantFrom("ann", "ANN", "ben", 1, 1.5, "1", null);
const step: fc.Arbitrary<Step> = fc.record({
  way: fc.constantFrom("statement" as const, "statement" as const, "callback" as const),
  what: fc.constantFrom("put" as const, "put" as const, "give" as const, "note" as const, "delete" as const),
  id: fc.integer({ min: 1, max: 6 }),
  who,
  note: fc.string({ maxLength: 8 }),
});

function statementOf({ what, id, who: of, note }: Step): { sql: string; params: (string | number | null)[] } {
  switch (what) {
    case "put":
      return { sql: "INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", params: [id, of, note] };
    case "give":
      return { sql: "UPDATE rows SET who = ? WHERE id = ?", params: [of, id] };
    case "note":
      return { sql: "UPDATE rows SET note = ? WHERE id = ?", params: [note, id] };
    case "delete":
      return { sql: "DELETE FROM rows WHERE id = ?", params: [id] };
  }
}

function model(rows: Rows, { what, id, who: of, note }: Step): void {
  const present = rows.get(id);
  if (what === "put") rows.set(id, { who: of, note });
  else if (what === "delete") rows.delete(id);
  else if (present !== undefined)
    rows.set(id, what === "give" ? { ...present, who: of } : { ...present, note });
}

async function run(db: Kimberlite, one: Step): Promise<void> {
  const { sql, params } = statementOf(one);
  if (one.way === "statement") await db.execute(A, sql, params);
  else await db.transaction(A, (transaction) => transaction.execute(sql, params));
}

async function rowsOf(db: Kimberlite): Promise<unknown> {
  return db.query(A, "SELECT id, who, note FROM rows ORDER BY id");
}

describe("rows of subjects", () => {
  it("live, rebuilt and model agree", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 5, maxLength: 25 }),
        fc.subarray<Who>(["ann", "ben", 1, 1.5, "1"], { minLength: 1, maxLength: 2 }),
        async (steps, erased) => {
          await using scratch = new Scratch();
          const db = await scratch.open();
          await db.createTenant({ id: A, name: "model" });
          await db.execute(A, "CREATE TABLE rows (id INTEGER PRIMARY KEY, who, note TEXT)");
          await db.declareSubject(A, { table: "rows", column: "who" });
          const rows: Rows = new Map();
          for (const one of steps) {
            await run(db, one);
            model(rows, one);
          }
          for (const subject of erased) {
            await db.eraseSubject(A, subject, { reason: "model" }).catch((error: unknown) => {
              expect(error).toMatchObject({ code: "subject_not_found" });
              expect([...rows.values()].some((row) => row.who === subject)).toBe(false);
            });
            for (const [id, row] of rows) if (row.who === subject) rows.delete(id);
          }
          const wanted = [...rows]
            .sort(([a], [b]) => a - b)
            .map(([id, { who: of, note }]) => ({ id, who: of, note }));
          expect(await rowsOf(db)).toEqual(wanted);
          await db.rebuildProjection(A);
          expect(await rowsOf(db)).toEqual(wanted);
          expect((await db.verifyTenant(A)).ok).toBe(true);
        },
      ),
      { numRuns: 6, seed: 20_261_126 },
    );
  });
});
