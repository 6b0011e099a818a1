/** The TypeScript of `docs/multitenancy.md` runs as written, top to bottom, and gives what its comments say. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { expect, it } from "vitest";
import { readCheckoutFile } from "./checkout.ts";

const LIBRARY = pathToFileURL(fileURLToPath(new URL("../../src/index.ts", import.meta.url))).href;
const CHECKS = `
import { deepEqual, rejects } from "node:assert/strict";
let checks = 0;
async function gives(value, expected) { deepEqual(await value, expected); checks += 1; }
async function throws(work, code) { await rejects(async () => work(), { code }); checks += 1; }
`;

it("docs/multitenancy.md runs and gives what it says", () => {
  const program = runnable(readCheckoutFile("docs/multitenancy.md"));
  expect(run(program)).toMatch(/^0n event\ntrue \d+n\n6 checks\n$/);
});

it("a wrong comment is found", () => {
  const page = (comment: string): string =>
    `\`\`\`ts\nawait (async () => [{ a: 1 }])(); // ${comment}\n\`\`\`\n`;
  expect(run(runnable(page("[{ a: 1 }]")))).toBe("1 checks\n");
  expect(() => run(runnable(page("[{ a: 2 }]")))).toThrow();
  expect(() => run(runnable(page("throws invalid_argument")))).toThrow();
});

/** The code of a page as one program: `// [...]` after a line is its value, `// throws code` how it fails. */
function runnable(page: string): string {
  const blocks = [...page.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map((match) => match[1] ?? "");
  const lines = blocks.join("\n").split("\n").map(checked);
  const text = lines.join("\n").replaceAll('from "kimberlite"', `from ${JSON.stringify(LIBRARY)}`);
  return `${CHECKS}\n${text}\nconsole.log(checks + " checks");\n`;
}

function checked(line: string): string {
  const thrown = /^(.*); \/\/ throws (\w+)$/.exec(line);
  if (thrown !== null) return `await throws(async () => { ${thrown[1]} }, "${thrown[2]}");`;
  const given = /^await (.*); \/\/ (\[.*\])$/.exec(line);
  return given === null ? line : `await gives(${given[1]}, ${given[2]});`;
}

function run(program: string): string {
  const folder = mkdtempSync(join(tmpdir(), "kimberlite-examples-"));
  const path = join(folder, "page.ts");
  writeFileSync(path, program);
  try {
    return execFileSync(process.execPath, ["--no-warnings", path], {
      cwd: folder,
      encoding: "utf8",
      stdio: "pipe",
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
}
