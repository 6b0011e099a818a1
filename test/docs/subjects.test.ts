/** The commands of `docs/subjects.md` run as written, from top to bottom, and the person is gone afterwards. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { readCheckoutFile } from "./checkout.ts";

const MAIN = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));

it("docs/subjects.md runs as written", () => {
  const page = readCheckoutFile("docs/subjects.md");
  const script = [...page.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map((match) => match[1] ?? "").join("");
  const folder = mkdtempSync(join(tmpdir(), "kimberlite-subjects-"));
  try {
    const command = `#!/bin/sh\nexec "${process.execPath}" --no-warnings "${MAIN}" "$@"\n`;
    writeFileSync(join(folder, "kimberlite"), command, { mode: 0o755 });
    const said = execFileSync("sh", ["-euc", script], {
      cwd: folder,
      encoding: "utf8",
      env: { ...process.env, PATH: `${folder}${delimiter}${process.env["PATH"] ?? ""}` },
    });
    expect(said).toContain("the rows of patients are those of their email");
    expect(said).toMatch(/subject [0-9a-f]{32} of tenant 1 is erased: 1 row/);
    expect(said).toContain("the certificate holds");
    expect(said).toContain("Bob");
    expect(said).not.toContain("Alice");
  } finally {
    rmSync(folder, { recursive: true });
  }
});
