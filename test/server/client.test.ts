/** `kimberlite/client`: its types are those of the table, its calls do what they say, and it tries again what may be. */
import { execFileSync, spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { clientCalls } from "../../scripts/client-calls.ts";
import { KimberliteClient } from "../../src/client/index.ts";
import { OPERATIONS } from "../../src/server/operations.ts";
import { readCheckoutFile } from "../docs/checkout.ts";
import { type CommandResult, scratchFolder, succeed } from "../e2e/command.ts";
import { startServed } from "./served.ts";

it("src/client/calls.ts is current; if not, run `npm run docs:client`", () => {
  const biome = fileURLToPath(new URL("../../node_modules/.bin/biome", import.meta.url));
  const formatted = execFileSync(biome, ["format", "--stdin-file-path=src/client/calls.ts"], {
    input: clientCalls(),
    encoding: "utf8",
    cwd: fileURLToPath(new URL("../..", import.meta.url)),
  });
  expect(readCheckoutFile("src/client/calls.ts")).toBe(formatted);
});

it("docs/admin-api.md has every operation, and its program runs as written", async () => {
  const page = readCheckoutFile("docs/admin-api.md");
  for (const { id, method, path, action } of OPERATIONS) {
    expect(page).toContain(`| \`${id}\` | \`${method} ${path}\` | \`${action}\` |`);
  }
  const [, program = ""] = /```ts\n([\s\S]*?)```/.exec(page) ?? [];
  const folder = scratchFolder();
  const library = new URL("../../src/client/index.ts", import.meta.url).href;
  writeFileSync(join(folder, "page.ts"), program.replace('"kimberlite/client"', JSON.stringify(library)));
  await using served = await startServed({ authenticate: "really" });
  const { token } = await served.db.createOperatorKey();
  const out = await succeed(runFile(join(folder, "page.ts"), { URL: served.url, OPERATOR: token }));
  const shown = [...program.matchAll(/\/\/ shows: (.*)$/gm)].map(([, text]) => text);
  for (const text of shown) expect(out).toContain(text);
});

it("makes tenants, lists them in pages, and raises the server's errors", async () => {
  await using served = await startServed();
  const operator = new KimberliteClient({ url: served.url, token: async () => "operator" });
  for (const id of ["1", "2", "3"]) {
    await operator.call("tenants.create", {
      body: { id, name: `Hospital ${id}`, quota: { maxOpsPerSec: 9 } },
    });
  }
  const items = await Array.fromAsync(operator.items("tenants.list", { query: { limit: 2 } }));
  expect(items.map(({ id, name }) => [id, name])).toEqual([
    ["1", "Hospital 1"],
    ["2", "Hospital 2"],
    ["3", "Hospital 3"],
  ]);
  const again = operator.call("tenants.create", { body: { id: "1", name: "Again" } });
  await expect(again).rejects.toMatchObject({ name: "RejectError", code: "tenant_exists", httpStatus: 409 });
  const unknown = operator.call("tenants.describe", { params: { tenant: "../1" } });
  await expect(unknown).rejects.toMatchObject({ code: "invalid_argument" });
  expect((await operator.call("tenants.describe", { params: { tenant: "1" } })).size).toMatch(/^\d+$/);
});

it("follows an audit stream over a restart of its connection", async () => {
  await using served = await startServed();
  const operator = new KimberliteClient({ url: served.url, token: "operator" });
  await operator.call("tenants.create", { body: { id: "1", name: "A" } });
  const admin = new KimberliteClient({ url: served.url, token: "1:admin" });
  const end = new AbortController();
  const seen: unknown[] = [];
  const following = (async () => {
    for await (const event of admin.stream(
      "audit.tail",
      { params: { tenant: "1" } },
      { signal: end.signal },
    )) {
      seen.push(event["action"]);
    }
  })().catch((error: unknown) => error);
  await operator.call("keys.rotate", { params: { tenant: "1" }, body: { key: "kek", reason: "first" } });
  await expect.poll(() => seen).toEqual(["key.rotate-kek"]);
  await operator.call("keys.rotate", { params: { tenant: "1" }, body: { key: "dek" } });
  await expect.poll(() => seen).toEqual(["key.rotate-kek", "key.rotate-dek"]);
  end.abort();
  await following;

  const events = await Array.fromAsync(admin.stream("audit.ocsf", { params: { tenant: "1" } }));
  expect(events[0]).toMatchObject({
    class_uid: 6003,
    type_uid: 600303,
    status: "Success",
    message: "first",
    actor: { user: { name: "operator" } },
    api: { operation: "key.rotate-kek" },
    metadata: { version: "1.5.0", tenant_uid: "1" },
  });
});

it("tries again what may be tried, with one idempotency key, and gives up in the end", async () => {
  const keys: unknown[] = [];
  const busy = createServer((request, response) => {
    keys.push(request.headers["idempotency-key"]);
    if (keys.length < 3) {
      response.writeHead(503, { "content-type": "application/problem+json" });
      response.end(JSON.stringify({ code: "draining", detail: "going down", retryAfterMs: 1 }));
    } else response.end(JSON.stringify({ state: "active" }));
  });
  await new Promise<void>((resolve) => busy.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(busy.address() as AddressInfo).port}/`;
  const input = { params: { tenant: "1" }, body: {} };
  const client = new KimberliteClient({ url, token: "operator" });
  expect(await client.call("tenants.resume", input)).toEqual({ state: "active" });
  expect(new Set(keys).size).toBe(1);
  expect(keys).toHaveLength(3);
  keys.length = 0;
  const impatient = new KimberliteClient({ url, token: "operator", maxRetries: 1 });
  await expect(impatient.call("tenants.resume", input)).rejects.toMatchObject({ code: "draining" });
  expect(keys).toHaveLength(2);
  busy.close();
  busy.closeAllConnections();
  await expect(impatient.call("tenants.resume", input)).rejects.toMatchObject({ code: "overloaded" });
});

function runFile(path: string, env: Readonly<Record<string, string>>): Promise<CommandResult> {
  const child = spawn(process.execPath, ["--no-warnings", path], { env: { ...process.env, ...env } });
  let [out, err] = ["", ""];
  child.stdout.on("data", (piece: Buffer) => {
    out += piece.toString("utf8");
  });
  child.stderr.on("data", (piece: Buffer) => {
    err += piece.toString("utf8");
  });
  return new Promise((resolve) => child.once("close", (code) => resolve({ code, out, err })));
}
