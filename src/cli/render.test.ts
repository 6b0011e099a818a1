/** Nothing that a tenant stored acts on the terminal, and JSON loses nothing. */
import { describe, expect, it } from "vitest";
import {
  counted,
  escapeLine,
  escapeText,
  formatBytes,
  formatCell,
  grouped,
  renderTable,
  rowObjects,
  toJson,
} from "./render.ts";

describe("text for a terminal", () => {
  it("shows what would act as escapes", () => {
    expect(escapeText("\u001b[31m\u0007\r\t\u0000\u009b1m\u007f")).toBe(
      "\\x1b[31m\\x07\\r\\t\\x00\\x9b1m\\x7f",
    );
    expect(escapeText("a\u202eb\u2066c\u200fd\ufeffe\u2028f")).toBe(
      "a\\u202eb\\u2066c\\u200fd\\ufeffe\\u2028f",
    );
    expect(escapeText("Grüße, 世界 😀\n")).toBe("Grüße, 世界 😀\n");
    expect(escapeLine("two\nlines")).toBe("two lines");
  });

  it("shows every storage class", () => {
    const blob = new Uint8Array(100).fill(7);
    expect([null, 1, 2n ** 62n, 1.5, "x", Uint8Array.of(0, 255)].map(formatCell)).toEqual([
      "NULL",
      "1",
      "4611686018427387904",
      "1.5",
      "x",
      "x'00ff'",
    ]);
    expect(formatCell(blob)).toBe(`x'${"07".repeat(16)}…' (100 bytes)`);
  });

  it("draws a table with columns of one name", () => {
    const table = renderTable(
      ["a", "a"],
      [
        [1, "x\u001b"],
        [20, null],
      ],
    );
    expect(table.split("\n")).toEqual([
      "┌────┬───────┐",
      "│  a │ a     │",
      "├────┼───────┤",
      "│  1 │ x\\x1b │",
      "│ 20 │ NULL  │",
      "└────┴───────┘",
    ]);
  });

  it("counts and measures", () => {
    for (const count of [0, 7, 999, 1_000, 65_536, 999_999, 1_000_000, Number.MAX_SAFE_INTEGER, -1_234_567]) {
      expect([grouped(count), grouped(BigInt(count))]).toEqual(Array(2).fill(count.toLocaleString("en-US")));
    }
    expect([counted(1, "row"), counted(0n, "row"), counted(12_345n, "row")]).toEqual([
      "1 row",
      "0 rows",
      "12,345 rows",
    ]);
    expect([0, 1023, 1024, 1536 * 1024].map(formatBytes)).toEqual(["0 B", "1023 B", "1.0 KiB", "1.5 MiB"]);
  });
});

describe("JSON", () => {
  it("keeps integers, blobs and infinities", () => {
    const value = {
      safe: 2n ** 53n - 1n,
      big: 2n ** 53n,
      low: -(2n ** 63n),
      blob: Buffer.from("hi"),
      view: Uint8Array.of(1),
      inf: -Infinity,
    };
    expect(JSON.parse(toJson([value]))).toEqual([
      {
        safe: 9007199254740991,
        big: "9007199254740992",
        low: "-9223372036854775808",
        blob: { base64: "aGk=" },
        view: { base64: "AQ==" },
        inf: "-Infinity",
      },
    ]);
  });

  it("keeps columns of one name, and of every name", () => {
    const { columns, rows } = rowObjects(["a", "a", "a:1", "a", "__proto__"], [[1, 2, 3, 4, 5]]);
    expect(columns).toEqual(["a", "a:1", "a:1:1", "a:2", "__proto__"]);
    expect(toJson(rows)).toBe('[{"a":1,"a:1":2,"a:1:1":3,"a:2":4,"__proto__":5}]');
  });
});
