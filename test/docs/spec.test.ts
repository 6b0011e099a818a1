/** Every promise of `docs/SPEC.md` is numbered and names a test that is there. */
import { describe, expect, it } from "vitest";
import { checkoutFiles, readCheckoutFile } from "./checkout.ts";
import { parsePromises, promiseFaults } from "./promises.ts";

describe("docs/SPEC.md", () => {
  it("numbers its promises without a gap, and each names a test that exists", () => {
    const files = new Set(checkoutFiles());
    const read = (path: string): string | undefined => (files.has(path) ? readCheckoutFile(path) : undefined);
    expect(promiseFaults(parsePromises(readCheckoutFile("docs/SPEC.md")), read)).toEqual([]);
  });
});

describe("the checker of the promises", () => {
  const read = (path: string): string | undefined =>
    path === "test/a.test.ts" ? 'it("holds", () => {});' : undefined;
  const faults = (markdown: string): string[] => promiseFaults(parsePromises(markdown), read);

  it("accepts a file, a link to a file and a file with a title", () => {
    const rows = [
      "| I-1 | One. | `test/a.test.ts` |",
      "| **I-2** | Two, or \\| two. | [test](../test/a.test.ts) |",
      '| I-3 | Three. | `test/a.test.ts` "holds" |',
    ];
    expect(faults(["# Spec", "| id | promise | test |", "|---|---|---|", ...rows].join("\n"))).toEqual([]);
  });

  it.each([
    ["", "no promises"],
    ["| I-2 | Two. | `test/a.test.ts` |", "I-2 stands where I-1 should"],
    ["| I-1 | One. | none yet |", "I-1 names no test"],
    ["| I-1 |  | `test/a.test.ts` |", "promises nothing"],
    ["| I-1 | One. | `test/b.test.ts` |", "test/b.test.ts, which is not there"],
    ["| I-1 | One. | `test/a.test.ts`, `test/b.test.ts` |", "test/b.test.ts, which is not there"],
    ['| I-1 | One. | `test/a.test.ts` "fails" |', '"fails", which is not in'],
  ])("finds the fault in %j", (markdown, fault) => {
    expect(faults(markdown).join("\n")).toContain(fault);
  });
});
