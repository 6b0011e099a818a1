/**
 * Reads the promises of `docs/SPEC.md`: table rows of the form
 *
 *     | I-3 | what is promised | `test/crash/kill.test.ts` "survives kill -9", `src/log/block.test.ts` |
 *
 * The last cell names the tests that enforce the promise; a title in quotes must occur in the file before it.
 */

/** A test file, and a title within it if one is named. */
export interface NamedTest {
  readonly path: string;
  readonly title: string | undefined;
}

export interface PromiseRow {
  readonly number: number;
  readonly text: string;
  readonly tests: readonly NamedTest[];
}

const ROW = /^\|\s*\**I-(\d+)\**\s*\|(.*)\|\s*$/;
const NAMED_TEST = /((?:src|test)\/[\w./-]+\.test\.ts)[`)\]]*(?:\s*>?\s*["“]([^"”]+)["”])?/g;

export function parsePromises(markdown: string): PromiseRow[] {
  return markdown.split("\n").flatMap((line) => {
    const match = ROW.exec(line);
    if (match === null) return [];
    const cells = (match[2] ?? "").split(/(?<!\\)\|/).map((cell) => cell.trim());
    return [{ number: Number(match[1]), text: cells[0] ?? "", tests: namedTests(cells.slice(1).join(" ")) }];
  });
}

/** What is wrong with the table, in words; empty when nothing is. `read` is undefined for a file that is not there. */
export function promiseFaults(
  rows: readonly PromiseRow[],
  read: (path: string) => string | undefined,
): string[] {
  const faults = rows.length === 0 ? ["there are no promises"] : [];
  rows.forEach((row, index) => {
    if (row.number !== index + 1) faults.push(`I-${row.number} stands where I-${index + 1} should`);
    if (row.text === "") faults.push(`I-${row.number} promises nothing`);
    if (row.tests.length === 0) faults.push(`I-${row.number} names no test`);
    for (const { path, title } of row.tests) {
      const text = read(path);
      if (text === undefined) faults.push(`I-${row.number} names ${path}, which is not there`);
      else if (title !== undefined && !text.includes(title)) {
        faults.push(`I-${row.number} names "${title}", which is not in ${path}`);
      }
    }
  });
  return faults;
}

function namedTests(cell: string): NamedTest[] {
  return [...cell.matchAll(NAMED_TEST)].map((match) => ({ path: match[1] ?? "", title: match[2] }));
}
