/** The demo shows what it says, and leaves nothing behind; the README's commands and code work as pasted. */
import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { filesHolding } from "../../src/cli/demo-checks.ts";
import { runCommand, scratchFolder, succeed } from "./command.ts";

const ROOT = new URL("../..", import.meta.url);
const MAIN = fileURLToPath(new URL("src/cli/main.ts", ROOT));
const README = readFileSync(new URL("README.md", ROOT), "utf8");

it("plays the two hospitals and removes its directory", async () => {
  const temporary = scratchFolder();
  const out = await succeed(runCommand(["demo"], { env: { TMPDIR: temporary } }));
  expect(out).toMatch(/A> SELECT \* FROM patients WHERE id = 123[\s\S]*│ 123 │ Alice Smith │/);
  expect(out).toMatch(/B> SELECT \* FROM patients WHERE id = 123[\s\S]*│ 123 │ Bob Johnson │/);
  expect(out).toMatch(/files with "Alice Smith": 0 {4}files with the public installation id: 1/);
  expect(out).toMatch(/quota_exceeded/);
  const digests = [...out.matchAll(/SHA-256 ([0-9a-f]+)…/g)].map(([, digest]) => digest);
  expect(new Set(digests).size).toBe(1);
  expect(out).toMatch(/✓ signature valid[\s\S]*✓ one bit changed in a copy: found at offset \d/);
  expect(readdirSync(temporary)).toEqual([]);
});

it("keeps its directory when it is told to: it verifies, and holds no name of a patient", async () => {
  const temporary = scratchFolder();
  const out = await succeed(runCommand(["demo", "--keep"], { env: { TMPDIR: temporary } }));
  const dir = /kept: (\S+)/.exec(out)?.[1] ?? "";
  expect(dir.startsWith(temporary)).toBe(true);
  await succeed(runCommand(["verify", dir]));
  for (const name of ["Alice Smith", "Alice Jones", "Bob Johnson", "Dan Brown"])
    expect(filesHolding(dir, name).holding).toEqual([]);
});

it("serves the two hospitals: the lines that it prints work when pasted, each token sees its own", async () => {
  const temporary = scratchFolder();
  const serving = spawn(process.execPath, [MAIN, "demo", "--serve", "--port", "0"], {
    env: { ...process.env, NO_COLOR: "1", TMPDIR: temporary },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = new Promise<number | null>((resolve) => serving.on("close", resolve));
  try {
    let out = "";
    for await (const piece of serving.stdout) {
      out += String(piece);
      if (out.includes("Ctrl+C")) break;
    }
    const lines = out.split("\n").filter((line) => /^(const|console)/.test(line));
    expect(lines).toHaveLength(3);
    const [a = "", b = "", operator = ""] = [...out.matchAll(/token (kmb_\S+)/g)].map(
      ([, token]) => token ?? "",
    );
    const url = /at (http\S+)/.exec(out)?.[1] ?? "";
    const asOperator = { env: { KIMBERLITE_URL: url, KIMBERLITE_TOKEN: operator } };
    expect(await succeed(runCommand(["tenant", "list"], asOperator))).toContain("Hospital B");
    expect(await runCommand(["sql", "SELECT 1"], asOperator)).toMatchObject({ code: 4 });
    const paste = (code: string): Promise<string> =>
      run(process.execPath, ["--input-type=module", "-e", code], fileURLToPath(ROOT), {});
    const pasted = await paste(lines.join("\n"));
    expect(pasted).toContain("Alice Smith");
    expect(pasted).not.toContain("Bob Johnson");
    const asB = await paste(lines.join("\n").replace(a, b));
    expect(asB).toContain("Bob Johnson");
    expect(asB).not.toContain("Alice Smith");
    await expect(paste(lines.join("\n").replace(a, `${a.slice(0, -1)}x`))).rejects.toThrow(/unauthenticated/);
  } finally {
    serving.kill("SIGTERM");
  }
  expect(await ended).toBe(0);
  expect(readdirSync(temporary)).toEqual([]);
});

it("looks for plaintext with a scan that finds it", () => {
  const folder = scratchFolder();
  mkdirSync(join(folder, "below"));
  writeFileSync(
    join(folder, "below", "a"),
    Buffer.concat([Buffer.alloc(5000, 1), Buffer.from("Alice Smith")]),
  );
  writeFileSync(join(folder, "b"), Buffer.from("Alice Smith", "utf16le"));
  writeFileSync(join(folder, "c"), "alice smith");
  expect(filesHolding(folder, "Alice Smith").holding.toSorted()).toEqual(["b", join("below", "a")]);
});

it("runs the commands of the README", async () => {
  const folder = scratchFolder();
  const commands = block(README, "kimberlite init");
  const out = await run("bash", ["-euc", `kimberlite() { "$NODE" "$MAIN" "$@"; }\n${commands}`], folder, {
    NODE: process.execPath,
    MAIN,
  });
  expect(out).toMatch(/Alice Jones[\s\S]*Alice Smith[\s\S]*the checkpoint of tenant 1 holds/);
});

it("runs the code of the README", async () => {
  const folder = scratchFolder();
  const index = new URL("src/index.ts", ROOT).href;
  const code = block(README, 'from "kimberlite"').replace('from "kimberlite"', `from "${index}"`);
  writeFileSync(join(folder, "example.ts"), code);
  const out = await run(process.execPath, ["example.ts"], folder, {});
  expect(out).toMatch(/name: 'Alice Jones'[\s\S]*name: 'Alice Smith'[\s\S]*ward: 'B2'[\s\S]*ok: true/);
});

/** The fenced block that holds a text. */
function block(markdown: string, holding: string): string {
  const blocks = [...markdown.matchAll(/^```\w+\n([\s\S]*?)^```/gm)].map(([, text]) => text ?? "");
  const found = blocks.find((text) => text.includes(holding));
  if (found === undefined) throw new Error(`no block of the page holds ${holding}`);
  return found;
}

function run(
  program: string,
  args: readonly string[],
  cwd: string,
  env: Readonly<Record<string, string>>,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd,
      env: { ...process.env, NO_COLOR: "1", ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const said: Buffer[] = [];
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (piece: Buffer) => said.push(piece));
    child.on("error", reject);
    child.on("close", (code) => {
      const text = Buffer.concat(said).toString("utf8");
      if (code === 0) resolve(text);
      else reject(new Error(`exit code ${code}: ${text}`));
    });
  });
}
