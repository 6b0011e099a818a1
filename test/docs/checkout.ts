/** The files of the checkout as the tests of its documents see them: paths from its root, with `/` between. */
import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const NOT_OURS = new Set([
  "node_modules",
  "dist",
  "build",
  ".git",
  ".dist-next",
  ".servers",
  "kimberlite",
  "prebuilt",
  "vectors",
]);

/** Paths under a folder, or of the whole checkout, without generated, installed and foreign files. */
export function checkoutFiles(folder = ""): string[] {
  const entries = readdirSync(join(ROOT, folder), { withFileTypes: true });
  return entries.flatMap((entry) => {
    if (NOT_OURS.has(entry.name)) return [];
    const path = relative(ROOT, join(ROOT, folder, entry.name));
    if (entry.isDirectory()) return checkoutFiles(path);
    return entry.isFile() ? [path] : [];
  });
}

export function readCheckoutFile(path: string): string {
  return readFileSync(join(ROOT, path), "utf8");
}
