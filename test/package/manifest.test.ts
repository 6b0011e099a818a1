/** package.json as a promise to those who install the package, and to those who install its checkout. */
import { describe, expect, it } from "vitest";
import { readCheckoutFile } from "../docs/checkout.ts";

interface Manifest {
  readonly version: string;
  readonly dependencies: Record<string, string>;
  readonly devDependencies: Record<string, string>;
  readonly bin: Record<string, string>;
  readonly exports: Record<string, string | { readonly default: string }>;
}

const manifest = JSON.parse(readCheckoutFile("package.json")) as Manifest;
const lock = JSON.parse(readCheckoutFile("package-lock.json")) as { packages: Record<string, Manifest> };
const direct = Object.entries({ ...manifest.dependencies, ...manifest.devDependencies });

describe("package.json", () => {
  it.each(direct)("pins %s exactly: %s", (name, version) => {
    expect(version).toMatch(/^\d+\.\d+\.\d+(-[\w.]+)?$/);
    expect(lock.packages[`node_modules/${name}`]?.version).toBe(version);
  });

  it("is what the lock file was made from", () => {
    expect(lock.packages[""]).toMatchObject({
      version: manifest.version,
      dependencies: manifest.dependencies,
      devDependencies: manifest.devDependencies,
    });
  });

  it("leads to the verifier of exports by name and as a command, and that needs no other file", () => {
    const built = "dist/portability/export-verifier.js";
    expect(manifest.bin["kimberlite-verify-export"]).toBe(built);
    expect(manifest.exports["./export-verifier"]).toMatchObject({ default: `./${built}` });
    const source = readCheckoutFile("src/portability/export-verifier.ts");
    expect(source.startsWith("#!/usr/bin/env node\n")).toBe(true);
    const imported = [...source.matchAll(/^(?:import|export) .*from "([^"]+)";$/gm)].map(([, name]) => name);
    expect(imported.length).toBeGreaterThan(0);
    expect(imported.filter((name) => name?.startsWith("node:") !== true)).toEqual([]);
  });
});
