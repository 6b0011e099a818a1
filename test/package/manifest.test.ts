/** package.json as a promise to those who install the package, and to those who install its checkout. */
import { describe, expect, it } from "vitest";
import { readCheckoutFile } from "../docs/checkout.ts";

interface Manifest {
  readonly version: string;
  readonly dependencies: Record<string, string>;
  readonly devDependencies: Record<string, string>;
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
});
