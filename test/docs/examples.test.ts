/** The code of the documents runs as written, top to bottom, and does what the comments beside it say. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { AwsKmsEmulator, CREDENTIALS, REGION } from "../emulators/aws-kms.ts";
import { S3Emulator } from "../emulators/s3.ts";
import { VaultEmulator } from "../emulators/vault.ts";
import { readCheckoutFile } from "./checkout.ts";
import { runPage, typescriptProgram } from "./page.ts";

/** A page is twenty processes or more, each with a database to open. */
const PAGE_LIMIT_MS = 300_000;
const AWS: Readonly<Record<string, string>> = {
  AWS_ACCESS_KEY_ID: CREDENTIALS.accessKeyId,
  AWS_SECRET_ACCESS_KEY: CREDENTIALS.secretAccessKey,
  AWS_REGION: REGION,
  AWS_EC2_METADATA_DISABLED: "true",
};

it("docs/multitenancy.md runs and gives what it says", () => {
  const program = typescriptProgram(readCheckoutFile("docs/multitenancy.md"));
  expect(run(program)).toMatch(/^0n event\ntrue \d+n\nretention.set done\n7 checks\n$/);
});

it("docs/sharing.md runs and gives what it says", () => {
  expect(run(typescriptProgram(readCheckoutFile("docs/sharing.md")))).toBe("4 checks\n");
});

it("a wrong comment is found", () => {
  const page = (comment: string): string =>
    `\`\`\`ts\nawait (async () => [{ a: 1 }])(); // ${comment}\n\`\`\`\n`;
  expect(run(typescriptProgram(page("[{ a: 1 }]")))).toBe("1 checks\n");
  expect(() => run(typescriptProgram(page("[{ a: 2 }]")))).toThrow();
  expect(() => run(typescriptProgram(page("throws invalid_argument")))).toThrow();
});

describe("the runner of pages", () => {
  const page = (code: string): string => `text\n\n\`\`\`sh\n${code}\n\`\`\`\n\nmore\n`;

  it("runs what is written, also over several lines, with what came before", async () => {
    const whole = await runPage(
      `${page("A=1 # a comment\nprintf two > \\\n  file")}${page('cat file # shows: tw\necho "$A"')}`,
    );
    expect(whole).toEqual({ code: 0, output: "two\n1\n" });
  });

  it.each([
    ["a command that fails", "false\ntrue"],
    ["other text", "echo one # shows: two"],
    ["another exit code", "exit 3 # exit 4"],
    ["a failure that did not come", "true # exit 4"],
    ["another reason", "(echo legal_hold; exit 4) # exit 4: retention"],
  ])("finds %s", async (_what, code) => {
    expect((await runPage(page(code))).code).not.toBe(0);
  });
});

describe.concurrent("as written", () => {
  it("docs/keys.md, on SoftHSM2 and on emulators of AWS KMS and Vault", {
    timeout: PAGE_LIMIT_MS,
  }, async () => {
    await using kms = await AwsKmsEmulator.start();
    await using vault = await VaultEmulator.start();
    const hsm = mkdtempSync(join(tmpdir(), "kimberlite-page-hsm-"));
    try {
      kms.alias("kimberlite", kms.makeKey());
      kms.alias("hospital-a", kms.makeKey());
      vault.makeKey("kimberlite");
      await runsAsWritten("docs/keys.md", {
        ...AWS,
        ...softHsm(hsm),
        AWS_ENDPOINT_URL_KMS: `http://${kms.host}`,
        TRANSIT_KEY: vault.uriOf("kimberlite"),
        VAULT_TOKEN: vault.makeToken(),
      });
    } finally {
      rmSync(hsm, { recursive: true, force: true });
    }
  });

  it.each(["authentication", "erasure", "portability", "retention", "server"])(
    "docs/%s.md",
    { timeout: PAGE_LIMIT_MS },
    (name) => runsAsWritten(`docs/${name}.md`),
  );

  it("README.md, from the first command of an installation on", { timeout: PAGE_LIMIT_MS }, async () => {
    const page = readCheckoutFile("README.md");
    const { code, output } = await runPage(page.slice(page.indexOf("```sh\nkimberlite init")));
    if (code !== 0) throw new Error(`README.md ended with ${code}:\n${output}`);
    expect(output).toContain("Alice Jones");
  });

  it("docs/backup.md, on an emulator of S3", { timeout: PAGE_LIMIT_MS }, async () => {
    await using s3 = await S3Emulator.start();
    await runsAsWritten("docs/backup.md", { ...AWS, AWS_ENDPOINT_URL_S3: s3.endpoint });
    expect([...s3.objects.keys()].length).toBeGreaterThan(0);
  });
});

async function runsAsWritten(page: string, env: Readonly<Record<string, string>> = {}): Promise<void> {
  const { code, output } = await runPage(readCheckoutFile(page), env);
  if (code !== 0) throw new Error(`${page} ended with ${code}:\n${output}`);
}

/** SoftHSM2 with tokens of the test's own. */
function softHsm(folder: string): Record<string, string> {
  if (!existsSync("/usr/lib/softhsm/libsofthsm2.so"))
    throw new Error("SoftHSM2 is not installed (apt-get install -y softhsm2)");
  mkdirSync(join(folder, "tokens"));
  const conf = join(folder, "softhsm2.conf");
  writeFileSync(conf, `directories.tokendir = ${join(folder, "tokens")}\nlog.level = ERROR\n`);
  return { SOFTHSM2_CONF: conf };
}

function run(program: string): string {
  const folder = mkdtempSync(join(tmpdir(), "kimberlite-examples-"));
  const path = join(folder, "page.ts");
  writeFileSync(path, program);
  try {
    return execFileSync(process.execPath, ["--no-warnings", path], {
      cwd: folder,
      encoding: "utf8",
      stdio: "pipe",
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
}
