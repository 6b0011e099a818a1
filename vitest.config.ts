import { join } from "node:path";
import { defineConfig, type ViteUserConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

// Threads and commands of the tests load the sources anew each time, and most of that is compiling them.
process.env["NODE_COMPILE_CACHE"] ??= join(import.meta.dirname, "node_modules/.cache/kimberlite/compiled");

/** What takes minutes; begun last, it would run alone at the end. */
const LONG = [
  "test/crash/kill.test.ts",
  "test/docs/examples.test.ts",
  "test/e2e/cli-governance.test.ts",
  "test/e2e/cli-remote.test.ts",
  "test/keys/at-once.test.ts",
  "test/bad-input/nonsense.test.ts",
  "test/crash/lifecycle-faults.test.ts",
  "test/isolation/differential.test.ts",
  "test/erasure/erasure.test.ts",
  "test/crash/power.test.ts",
  "test/e2e/cli-verify.test.ts",
  "test/e2e/cli.test.ts",
  "test/sim/sql-model.test.ts",
  "test/at-rest/plaintext.test.ts",
].map((file) => join(import.meta.dirname, file));

/** The long ones, then the others, then those that share a process, next to each other. */
class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId, project }: TestSpecification): number => {
      const long = LONG.indexOf(moduleId);
      if (long !== -1) return long;
      return LONG.length + (project.config.isolate ? 0 : 1);
    };
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}

const config: ViteUserConfig = defineConfig({
  test: {
    // For what hangs. Many tests start processes and threads of their own, and a busy machine may be ten times slower.
    testTimeout: 300_000,
    hookTimeout: 300_000,
    expect: { poll: { timeout: 60_000 } },
    pool: "forks",
    // One more than the cores that CI has: they often wait for the disk, and for processes.
    maxWorkers: 3,
    sequence: { sequencer: LongestFirst },
    projects: [
      { extends: true, test: { name: "whole", include: ["test/**/*.test.ts"] } },
      // Tests of single files load few modules and change nothing outside of what they make: a process serves many.
      { extends: true, test: { name: "rooms", include: ["src/**/*.test.ts"], isolate: false } },
    ],
  },
});

export default config;
