/** The table of calls leaves no public method out: what it does not have, no test of isolation or input tries. */
import { describe, expect, it } from "vitest";
import { Kimberlite } from "../../src/index.ts";
import { APART, CALLS, methodsOf } from "./calls.ts";

describe("the table of calls", () => {
  it("has every public method of Kimberlite", () => {
    const known = [...CALLS.map(({ method }) => method), ...APART].sort();
    expect(methodsOf(Kimberlite)).toEqual(known);
  });

  it("is compared with what is there", () => {
    class Grown {
      readonly size = 1;
      somethingNew(): number {
        return this.size;
      }
    }
    expect(methodsOf(Grown)).toEqual(["somethingNew"]);
  });
});
