/** `src` keeps the rules of the house, and the checker of those rules sees a planted breach of each. */
import { describe, expect, it } from "vitest";
import { checkoutFiles, readCheckoutFile } from "./checkout.ts";
import { breachesOf, machinePathBreaches } from "./house-rules.ts";

const sources = checkoutFiles("src").filter((path) => path.endsWith(".ts"));

describe("the house rules", () => {
  it("are kept by every file of src", () => {
    expect(sources.length).toBeGreaterThan(0);
    expect(sources.flatMap((path) => breachesOf(path, readCheckoutFile(path)))).toEqual([]);
  });

  it("are kept in documents and scripts: no paths of a machine", () => {
    const texts = checkoutFiles().filter((path) => /^(scripts|bench|native|docs)\/|\.md$/.test(path));
    expect(texts.flatMap((path) => machinePathBreaches(path, readCheckoutFile(path)))).toEqual([]);
  });
});

describe("the checker of the house rules", () => {
  const folder = ["", "home", "someone", "data"].join("/");
  it.each([
    ["src/log/a.ts", 'export * from "./b.ts";', "export *"],
    ["src/log/a.ts", 'export * as b from "./b.ts";', "export *"],
    ["src/log/a.ts", "export const x: number = Math.random();", "Math.random"],
    ["src/log/a.ts", "export const x: number = Date.now();", "Date"],
    ["src/log/a.ts", 'export const x: number = Date["now"]();', "Date"],
    ["src/log/a.ts", "export const x: Date = new Date();", "Date"],
    ["src/log/a.ts", 'console.error("no");', "console"],
    ["src/log/a.ts", "export const x: number = (1 as any) as number;", "as any"],
    ["src/log/a.test.ts", "export const x: number = (1 as any) as number;", "as any"],
    ["src/log/a.ts", `export const x: string = "${folder}";`, "absolute path"],
    ["src/utils/a.ts", "export {};", "says nothing"],
    ["src/log/helpers.ts", "export {};", "says nothing"],
    ["src/log/a.ts", "export {};\n".repeat(501), "over 500 lines"],
  ])("finds in %s: %s", (path, text, rule) => {
    expect(breachesOf(path, text).map((breach) => breach.rule)[0]).toContain(rule);
  });

  it.each([
    ["src/log/a.ts", "// Math.random, Date.now and console.log are not used here\nexport {};"],
    ["src/log/a.ts", 'export const x: string = "console.log(new Date())";'],
    ["src/cli/a.ts", 'console.log(new Date(), "x");'],
    ["src/host/clock.ts", "export const now: number = Date.now();"],
    ["src/log/a.test.ts", "export const now: number = Date.now();"],
    ["src/log/a.ts", `/** Over 500 lines because the table is one. */\n${"export {};\n".repeat(501)}`],
  ])("lets pass in %s: %s", (path, text) => {
    expect(breachesOf(path, text)).toEqual([]);
  });
});
