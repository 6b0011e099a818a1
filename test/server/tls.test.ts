/** TLS with certificates of the server's own: put into force without a restart, and clients' required where asked. */
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { type RequestOptions, request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TLSSocket } from "node:tls";
import { afterAll, beforeAll, expect, it } from "vitest";
import { startServed } from "./served.ts";

let folder: string;
const at = (name: string): string => join(folder, name);

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "kimberlite-tls-"));
  authority("ca");
  authority("other-ca");
  signed("first", "ca");
  signed("second", "ca");
  signed("client", "ca");
  signed("stranger", "other-ca");
});

afterAll(() => rmSync(folder, { recursive: true }));

function openssl(...args: string[]): void {
  execFileSync("openssl", args, { cwd: folder, stdio: "pipe" });
}

const CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

function authority(name: string): void {
  openssl(
    "req",
    "-x509",
    ...CURVE,
    "-keyout",
    `${name}.key`,
    "-out",
    `${name}.pem`,
    "-subj",
    `/CN=${name}`,
    "-days",
    "2",
  );
}

function signed(name: string, by: string): void {
  openssl("req", ...CURVE, "-keyout", `${name}.key`, "-out", `${name}.csr`, "-subj", `/CN=${name}`);
  writeFileSync(at("names"), "subjectAltName=IP:127.0.0.1");
  openssl(
    "x509",
    "-req",
    "-in",
    `${name}.csr`,
    "-CA",
    `${by}.pem`,
    "-CAkey",
    `${by}.key`,
    "-CAcreateserial",
    "-out",
    `${name}.pem`,
    "-days",
    "2",
    "-extfile",
    "names",
  );
}

function use(name: string): void {
  copyFileSync(at(`${name}.pem`), at("cert.pem"));
  copyFileSync(at(`${name}.key`), at("key.pem"));
}

/** Status of `/healthz`, and whose certificate was shown, on a connection of its own. */
function ask(
  url: string,
  options: RequestOptions = {},
): Promise<{ readonly status: number; readonly name: string }> {
  return new Promise((resolve, reject) => {
    const asked = request(
      `${url}/healthz`,
      { ca: readFileSync(at("ca.pem")), agent: false, ...options },
      (response) => {
        const name = String((response.socket as TLSSocket).getPeerCertificate().subject.CN);
        response.resume().on("end", () => resolve({ status: response.statusCode ?? 0, name }));
      },
    );
    asked.on("error", reject).end();
  });
}

it("serves with a certificate, and with another one when its files change; never with files that do not fit", async () => {
  use("first");
  const tls = { certFile: at("cert.pem"), keyFile: at("key.pem") };
  await using served = await startServed({ settings: { port: 0, tls } });
  expect(served.url).toMatch(/^https:/);
  expect(await ask(served.url)).toEqual({ status: 200, name: "first" });
  expect(served.server.reloadTls()).toBe(false);

  copyFileSync(at("second.pem"), at("cert.pem"));
  expect(() => served.server.reloadTls()).toThrow(expect.objectContaining({ code: "invalid_argument" }));
  expect(await ask(served.url)).toEqual({ status: 200, name: "first" });
  copyFileSync(at("second.key"), at("key.pem"));
  expect(served.server.reloadTls()).toBe(true);
  expect(await ask(served.url)).toEqual({ status: 200, name: "second" });
  await expect(ask(served.url, { maxVersion: "TLSv1.1" })).rejects.toThrow();
  await expect(fetch(served.url.replace("https", "http"))).rejects.toThrow();
});

it("looks at its files by itself", async () => {
  use("first");
  const tls = { certFile: at("cert.pem"), keyFile: at("key.pem") };
  await using served = await startServed({ settings: { port: 0, tls } });
  use("second");
  await expect.poll(() => ask(served.url), { interval: 500 }).toMatchObject({ name: "second" });
});

it("lets in with a client's certificate of the right authority alone, where one is named", async () => {
  use("first");
  const tls = { certFile: at("cert.pem"), keyFile: at("key.pem"), clientCaFile: at("clients.pem") };
  copyFileSync(at("ca.pem"), at("clients.pem"));
  await using served = await startServed({ settings: { port: 0, tls } });
  const pair = (name: string): RequestOptions => ({
    cert: readFileSync(at(`${name}.pem`)),
    key: readFileSync(at(`${name}.key`)),
  });
  expect(await ask(served.url, pair("client"))).toMatchObject({ status: 200 });
  await expect(ask(served.url)).rejects.toThrow();
  await expect(ask(served.url, pair("stranger"))).rejects.toThrow();
  // A certificate lets the connection in, and is nobody's credential.
  expect(await ask(served.url, { ...pair("client"), path: "/v1/whoami" })).toMatchObject({ status: 401 });
  // Another authority in the place of the first, without a restart.
  copyFileSync(at("other-ca.pem"), at("clients.pem"));
  expect(served.server.reloadTls()).toBe(true);
  expect(await ask(served.url, pair("stranger"))).toMatchObject({ status: 200 });
  await expect(ask(served.url, pair("client"))).rejects.toThrow();
});

it("does not start with files that are missing or do not fit", async () => {
  use("first");
  copyFileSync(at("second.key"), at("key.pem"));
  const unfit = { certFile: at("cert.pem"), keyFile: at("key.pem") };
  await expect(startServed({ settings: { port: 0, tls: unfit } })).rejects.toMatchObject({
    code: "invalid_argument",
  });
  const missing = { certFile: at("none.pem"), keyFile: at("key.pem") };
  await expect(startServed({ settings: { port: 0, tls: missing } })).rejects.toMatchObject({
    code: "invalid_argument",
  });
});
