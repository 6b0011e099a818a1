/**
 * The package as its users get it: packed, linted, installed from its tarball into an empty project, imported there,
 * type-checked there, and run there from its command. Nothing of the checkout is on the way but the compiler and the
 * pinned Node.js.
 */
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BIN, filesUnder, PROJECT_NODE, projectEnv, ROOT, run } from "../../scripts/tree.mjs";

const project = mkdtempSync(join(tmpdir(), "kimberlite-package-"));
const installed = join(project, "node_modules", "kimberlite");
try {
  const tarball = pack();
  run(join(BIN, "publint"), ["run", tarball, "--strict"]);
  run(join(BIN, "attw"), [tarball, "--profile", "esm-only"]);
  install(tarball);
  checkContents();
  checkCommand();
  checkImports();
  console.log("the package installs, imports, type-checks and runs");
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  rmSync(project, { recursive: true, force: true });
}

function pack() {
  run("npm", ["pack", "--silent", "--pack-destination", project], { env: npmEnv() });
  const tarballs = readdirSync(project).filter((name) => name.endsWith(".tgz"));
  if (tarballs.length !== 1) throw new Error(`npm pack left ${tarballs.length} tarballs`);
  return join(project, tarballs[0]);
}

function install(tarball) {
  cpSync(join(ROOT, "test", "package", "consumer"), project, { recursive: true });
  writeFileSync(
    join(project, "package.json"),
    JSON.stringify({ name: "consumer", private: true, type: "module" }),
  );
  run("npm", ["install", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error", tarball], {
    cwd: project,
    env: npmEnv(),
  });
}

/** What must be in the package, and what has no business there. */
function checkContents() {
  const paths = filesUnder(installed, (name) => name === "node_modules").map((path) =>
    path.slice(installed.length + 1),
  );
  const strangers = paths.filter((path) => /\.test\.|^(src|test|scripts|bench)\/|\.tsbuildinfo$/.test(path));
  if (strangers.length > 0) throw new Error(`the package contains ${strangers.join(", ")}`);
  for (const needed of ["LICENSE", "README.md", "dist/index.js", "dist/index.d.ts", "dist/cli/main.js"]) {
    if (!existsSync(join(installed, needed))) throw new Error(`the package lacks ${needed}`);
  }
}

/** The command, as npm links it, makes a data directory and answers from it: the native extension is there too. */
function checkCommand() {
  const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  const said = kimberlite("--version");
  if (said !== version) throw new Error(`kimberlite --version says ${said}, package.json ${version}`);
  kimberlite("init", "--dir", "db");
  kimberlite("tenant", "create", "1", "--name", "Hospital A", "--dir", "db");
  const rows = JSON.parse(kimberlite("sql", "--tenant", "1", "--json", "SELECT 42 AS answer", "--dir", "db"));
  if (!JSON.stringify(rows).includes("42")) throw new Error("kimberlite sql did not answer");
}

function kimberlite(...args) {
  return run(join(project, "node_modules", ".bin", "kimberlite"), args, { cwd: project });
}

function checkImports() {
  run(PROJECT_NODE, ["use.mjs"], { cwd: project });
  run(join(BIN, "tsc"), ["-p", project, "--typeRoots", join(ROOT, "node_modules", "@types")], {
    cwd: project,
  });
  run(PROJECT_NODE, ["use.ts"], { cwd: project });
}

/** npm tells its children which project it runs in; a child that works on another one must not hear that. */
function npmEnv() {
  const { npm_config_local_prefix: _, INIT_CWD: __, ...env } = projectEnv();
  return env;
}
