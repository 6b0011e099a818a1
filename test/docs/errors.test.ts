/** `docs/errors.md` is what the table of error codes makes of it today. */
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { ERRORS_PAGE, errorsDocument } from "../../scripts/errors-doc.ts";
import { ERROR_CODES } from "../../src/errors.ts";

it("docs/errors.md is current; if not, run `npm run docs:errors`", () => {
  expect(readFileSync(ERRORS_PAGE, "utf8")).toBe(errorsDocument());
});

it("the page has one row a code", () => {
  const rows = [...errorsDocument().matchAll(/^\| `(\w+)` \|/gm)].map((match) => match[1] ?? "");
  expect(rows.toSorted(byName)).toEqual(Object.keys(ERROR_CODES).toSorted(byName));
});

function byName(a: string, b: string): number {
  return a < b ? -1 : 1;
}
