/** Bodies of JSON: what is refused, and that no text takes longer than its length. */
import { describe, expect, it } from "vitest";
import { parseJsonBody } from "./json-body.ts";

const MANY = Object.fromEntries(Array.from({ length: 40 }, (_, index) => [`k${index}`, index]));

const parse = (text: string): unknown => parseJsonBody(Buffer.from(text));

function messageOf(text: string): string {
  try {
    parse(text);
  } catch (error) {
    return (error as Error).message;
  }
  return "no error";
}

describe("a body", () => {
  it.each([
    '{"a":[1,{"b":"x"},[]],"c":null}',
    String.raw`{"\"":1,"\\":2,"\\\"":3,"é":4,"{[:":5}`,
    '[{"a":1},{"a":2}]',
    '{"a":{"a":{"a":1}},"b":[{"a":1}]}',
    '"text with : and { and ["',
    JSON.stringify([{ a: MANY, b: MANY }, MANY, { k1: 1 }]),
    ` ${JSON.stringify(Object.fromEntries(Array.from({ length: 100 }, (_, index) => [`k${index}`, index])))} `,
  ])("is what JSON says: case %#", (text) => {
    expect(parse(text)).toEqual(JSON.parse(text));
  });

  it.each([
    ['{"a":1,"a":2}', "twice"],
    [String.raw`{"a":1,"\u0061":2}`, "twice"],
    ['{"a":[{"b":1}],"c":2,"a":3}', "twice"],
    [`{"a":{${"k".repeat(3)}`, "not JSON"],
    [`{${Array.from({ length: 40 }, (_, index) => `"k${index}":1`).join(",")},"k3":1}`, "twice"],
    [`{${Array.from({ length: 40 }, (_, index) => `"k${index}":1`).join(",")},"k39":1}`, "twice"],
    ['{"__proto__":1}', "no object may have"],
    [String.raw`{"\u005f_proto__":1}`, "no object may have"],
    ['[{"constructor":1}]', "no object may have"],
    ["[".repeat(33) + "]".repeat(33), "deeper"],
    ["[".repeat(100_000), "deeper"],
    ["]".repeat(100), "not JSON"],
    [":", "not JSON"],
    ['"a', "not JSON"],
    [String.raw`"a\"`, "not JSON"],
    [String.raw`{"a\x":1}`, "not JSON"],
    ["", "not JSON"],
    [`[${"{},".repeat(500_000)}{}]`, "more than"],
  ])("that is none of these is refused: case %#", (text, why) => {
    expect(messageOf(text)).toContain(why);
  });

  it.each([
    ["a string that never ends, of quotes", `"${'\\"'.repeat(2_000_000)}`],
    ["a string that never ends, of backslashes", `"${"\\".repeat(4_000_001)}`],
    ["strings, each of which never ends", `${'"\\'.repeat(2_000_000)}`],
    ["backslashes before each quote", `["${`${"\\".repeat(1_000)}","`.repeat(4_000)}"]`],
    ["nothing but blanks", " ".repeat(4_000_000)],
    ["one object of many keys", `{${Array.from({ length: 200_000 }, (_, at) => `"k${at}":1`).join(",")}}`],
  ])("takes no longer than its length: %s", (_, text) => {
    const startedMs = performance.now();
    messageOf(text);
    // The pattern that was here before took hours for the first.
    expect(performance.now() - startedMs).toBeLessThan(5_000);
  });
});
