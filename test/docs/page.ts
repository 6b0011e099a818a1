/**
 * Runs the code of a page as its reader would: the `sh` and `ts` blocks, top to bottom, in one scratch directory and one
 * shell, with the command `kimberlite` on the PATH and the library under its name.
 *
 * A comment behind a command says what it does, and is checked: `# shows: text` is in what it prints, `# exit 4: text` is
 * how it ends and what it prints then. In TypeScript, `// [...]` behind a line is its value and `// throws code` how it
 * fails. A command without a comment has to succeed.
 */
import { spawn } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const SOURCES = fileURLToPath(new URL("../../src/", import.meta.url));
const LIBRARY = pathToFileURL(join(SOURCES, "index.ts")).href;
const CHECKS = `
import { deepEqual, rejects } from "node:assert/strict";
let checks = 0;
async function gives(value, expected) { deepEqual(await value, expected); checks += 1; }
async function throws(work, code) { await rejects(async () => work(), { code }); checks += 1; }
`;
const SHELL_CHECKS = `
set -eu
ends() { # code, text, command
  set +e
  said=$(eval "$3" 2>&1)
  code=$?
  set -e
  case "$code:$said" in
    "$1:"*"$2"*) printf '%s\\n' "$said" ;;
    *) printf 'NOT AS WRITTEN: %s\\nexit code %s: %s\\n' "$3" "$code" "$said" >&2; exit 99 ;;
  esac
}
`;

/** What a run printed, and whether it ended well. */
export interface PageRun {
  readonly code: number | null;
  readonly output: string;
}

/** Runs a page. What it made is gone afterwards. */
export async function runPage(page: string, env: Readonly<Record<string, string>> = {}): Promise<PageRun> {
  const folder = mkdtempSync(join(tmpdir(), "kimberlite-page-"));
  try {
    install(join(folder, ".tools"));
    writeFileSync(join(folder, ".page.sh"), shellProgram(page, folder));
    return await run(folder, env);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The TypeScript of a page as one program, with its comments as checks. */
export function typescriptProgram(page: string): string {
  return checkedTypescript(
    codeBlocks(page).flatMap(({ language, code }) => (language === "ts" ? [code] : [])),
  );
}

interface CodeBlock {
  readonly language: "sh" | "ts";
  readonly code: string;
}

function codeBlocks(page: string): CodeBlock[] {
  return [...page.matchAll(/^```(sh|ts)\n([\s\S]*?)^```$/gm)].map(([, language, code]) => ({
    language: language as CodeBlock["language"],
    code: code ?? "",
  }));
}

/** One script for the whole page; each TypeScript block is a program of its own, as it is for who copies it. */
function shellProgram(page: string, folder: string): string {
  const parts = codeBlocks(page).map(({ language, code }, index) => {
    if (language === "sh") return code.replaceAll("\\\n", "").split("\n").map(checkedCommand).join("\n");
    const path = join(folder, `.block-${index}.ts`);
    writeFileSync(path, checkedTypescript([code]));
    return `node --no-warnings "${path}"`;
  });
  return `${SHELL_CHECKS}\n${parts.join("\n")}\n`;
}

function checkedCommand(line: string): string {
  const [, failing, code, why = ""] = /^(.*\S)\s+# exit (\d+)(?:: (.*))?$/.exec(line) ?? [];
  if (failing !== undefined) return `ends ${code} ${quote(why)} ${quote(failing)}`;
  const [, showing, text = ""] = /^(.*\S)\s+# shows: (.*)$/.exec(line) ?? [];
  return showing === undefined ? line : `ends 0 ${quote(text)} ${quote(showing)}`;
}

function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function checkedTypescript(blocks: readonly string[]): string {
  const lines = blocks.join("\n").split("\n").map(checkedLine);
  const text = lines.join("\n").replaceAll('from "kimberlite"', `from ${JSON.stringify(LIBRARY)}`);
  return `${CHECKS}\n${text}\nconsole.log(checks + " checks");\n`;
}

function checkedLine(line: string): string {
  const thrown = /^(.*); \/\/ throws (\w+)$/.exec(line);
  if (thrown !== null) return `await throws(async () => { ${thrown[1]} }, "${thrown[2]}");`;
  const given = /^await (.*); \/\/ (\[.*\])$/.exec(line);
  return given === null ? line : `await gives(${given[1]}, ${given[2]});`;
}

/** The command, and the one file of the package that a page names by its path. */
function install(tools: string): void {
  mkdirSync(tools, { recursive: true });
  const command = join(tools, "kimberlite");
  writeFileSync(command, `#!/bin/sh\nexec "${process.execPath}" "${join(SOURCES, "cli/main.ts")}" "$@"\n`);
  chmodSync(command, 0o755);
  symlinkSync(process.execPath, join(tools, "node"));
  const package_ = join(tools, "..", "node_modules", "kimberlite", "dist", "portability");
  mkdirSync(package_, { recursive: true });
  symlinkSync(join(SOURCES, "portability/export-verifier.ts"), join(package_, "export-verifier.js"));
}

function run(folder: string, env: Readonly<Record<string, string>>): Promise<PageRun> {
  return new Promise((resolve, reject) => {
    const child = spawn("bash", [join(folder, ".page.sh")], {
      cwd: folder,
      env: {
        ...process.env,
        NO_COLOR: "1",
        ...env,
        PATH: `${join(folder, ".tools")}:${process.env["PATH"]}`,
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const said: Buffer[] = [];
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (piece: Buffer) => said.push(piece));
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, output: Buffer.concat(said).toString("utf8") }));
  });
}
