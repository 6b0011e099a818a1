/** The command `serve`, under load, told to end: it ends in time and in order, and what it acknowledged is there. */
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { commandOn, type Kimberlite, scratchFolder, succeed } from "../e2e/command.ts";

const MAIN = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));

/** A dozen processes, each with a database to open. */
const COMMANDS_LIMIT_MS = 240_000;

interface Serving {
  readonly child: ChildProcess;
  readonly url: string;
  /** Everything that it wrote to standard output. */
  readonly out: () => string;
  readonly ended: Promise<number | null>;
}

async function serve(dir: string, env: Record<string, string> = {}): Promise<Serving> {
  const child = spawn(process.execPath, [MAIN, "serve", "--port", "0", "--dir", dir], {
    env: { ...process.env, ...env },
  });
  let out = "";
  child.stdout.on("data", (piece: Buffer) => {
    out += piece.toString("utf8");
  });
  child.stderr.resume();
  const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
  await expect.poll(() => out).toMatch(/^ready: Hrana at (http:\S+), (ws:\S+)\n$/);
  return { child, url: /(http:[^,]+),/.exec(out)?.[1] ?? "", out: () => out, ended };
}

interface Outcome {
  readonly status: number;
  readonly body: { readonly results?: { readonly type: string }[]; readonly code?: string };
}

async function insert(url: string, token: string, id: number): Promise<Outcome> {
  const sql = `INSERT INTO t (id) VALUES (${id})`;
  const response = await fetch(`${url}/v2/pipeline`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify({ requests: [{ type: "execute", stmt: { sql } }, { type: "close" }] }),
  });
  return { status: response.status, body: (await response.json()) as Outcome["body"] };
}

/** Inserts from several connections until the server is gone. @returns ids that were acknowledged */
async function load(url: string, token: string, firstId: number): Promise<Set<number>> {
  const acknowledged = new Set<number>();
  let next = firstId;
  const client = async (): Promise<void> => {
    for (;;) {
      const id = next++;
      const outcome = await insert(url, token, id).catch(() => undefined);
      if (outcome === undefined) return;
      if (outcome.body.results?.[0]?.type === "ok") acknowledged.add(id);
      else expect(outcome.body.code).toMatch(/^(draining|closed|overloaded)$/);
    }
  };
  await Promise.all(Array.from({ length: 8 }, client));
  return acknowledged;
}

async function stored(kimberlite: Kimberlite): Promise<Set<number>> {
  const out = await succeed(kimberlite(["sql", "--tenant", "1", "--json", "SELECT id FROM t"]));
  return new Set([...out.matchAll(/\b(\d+)\b/g)].map(([, id]) => Number(id)));
}

it("finishes what is under way, loses nothing that it acknowledged, and serves again", {
  timeout: COMMANDS_LIMIT_MS,
}, async () => {
  const dir = join(scratchFolder(), "k");
  const kimberlite = commandOn(dir);
  await succeed(kimberlite(["init"]));
  await succeed(kimberlite(["tenant", "create", "1", "--name", "A"]));
  await succeed(kimberlite(["sql", "--tenant", "1", "CREATE TABLE t (id INTEGER PRIMARY KEY)"]));
  const token = (await succeed(kimberlite(["token", "create", "--tenant", "1", "--role", "writer"]))).trim();

  const serving = await serve(dir);
  const loaded = load(serving.url, token, 1);
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  serving.child.kill("SIGTERM");
  const began = performance.now();
  expect(await serving.ended).toBe(0);
  expect(performance.now() - began).toBeLessThan(15_000);
  const acknowledged = await loaded;
  expect(acknowledged.size).toBeGreaterThan(10);
  expect(serving.out().split("\n")).toHaveLength(2);
  const kept = await stored(kimberlite);
  expect([...acknowledged].filter((id) => !kept.has(id))).toEqual([]);

  const again = await serve(dir);
  expect((await insert(again.url, token, 1_000_000)).body.results?.[0]?.type).toBe("ok");
  again.child.kill("SIGKILL");
  await again.ended;
  expect(await stored(kimberlite)).toContain(1_000_000);
});

it("refuses settings that are unknown, before it opens anything", {
  timeout: COMMANDS_LIMIT_MS,
}, async () => {
  const dir = join(scratchFolder(), "k");
  const kimberlite = commandOn(dir);
  await succeed(kimberlite(["init"]));
  const unknown = await kimberlite(["serve", "--port", "0", "--set", "limits.maxThings=1"]);
  expect(unknown).toMatchObject({ code: 2, out: "" });
  expect(unknown.err).toContain("invalid_argument");
  const variable = await kimberlite(["serve", "--port", "0"], { env: { KIMBERLITE_SERVE_PROT: "1" } });
  expect(variable).toMatchObject({ code: 2, out: "" });
});
