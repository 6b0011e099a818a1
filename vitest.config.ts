import { join } from "node:path";
import { defineConfig, type ViteUserConfig } from "vitest/config";

// Threads and commands of the tests load the sources anew each time, and most of that is compiling them.
process.env["NODE_COMPILE_CACHE"] ??= join(import.meta.dirname, "node_modules/.cache/kimberlite/compiled");

const config: ViteUserConfig = defineConfig({
  test: {
    include: ["src/**/*.test.ts", "test/**/*.test.ts"],
    // For what hangs. Many tests start processes and threads of their own, and a busy machine may be ten times slower.
    testTimeout: 300_000,
    hookTimeout: 300_000,
    expect: { poll: { timeout: 60_000 } },
    pool: "forks",
    maxWorkers: 2,
  },
});

export default config;
