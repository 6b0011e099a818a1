/**
 * The commands and their options. What each does is in the file of its name; what exists is listed here and nowhere else.
 *
 * Over 500 lines because it is one list.
 */
import { readFileSync } from "node:fs";
import { Command, CommanderError, Option } from "commander";
import { TenantId } from "../tenant/tenant-id.ts";
import {
  parseCount,
  parseDays,
  parseDuration,
  parseMoment,
  parseNames,
  parseParameters,
  parsePort,
  parseSize,
  parseTime,
  parseWhole,
} from "./arguments.ts";
import { reportFailure } from "./failure.ts";
import { placedOptions } from "./server-option.ts";

/** Where a command's own code is loaded from when it runs, so that help and errors cost nothing. */
type Handler = (...given: never[]) => Promise<number | undefined>;

const NOTES = `
Data are in DIR/data, the master key is DIR/master.key: keep a copy of the key elsewhere, without it nothing can be read.

With --url (or KIMBERLITE_URL) and --token (KIMBERLITE_TOKEN) a command works over a server, all but init, demo, serve,
key create, backup verify and what restores. Those are refused, unless --dir overrules the environment. There
export, import and backup take names of the server's settings in the place of paths. A token on a command line can be seen by other accounts of the machine: put it into the environment.

With --json a command writes JSON to stdout (sql: one object a statement, one a line) and errors as JSON to stderr.
Integers past 2^53 are strings, blobs are {"base64": "…"}, infinities the strings "Infinity" and "-Infinity"; of two
columns with one name the second gets ":1" behind it.

Exit codes: 0 done; 2 wrong usage or SQL; 3 conflict; 4 refused; 5 not found; 6 quota; 7 limit exceeded; 8 busy or
locked; 10 keys; 11 damage found; 12 disk; 13 unsupported machine; 1 a bug. docs/errors.md has every code.`;

/** Runs one command line. @returns the exit code; what went wrong was said on stderr */
export async function runCommand(args: readonly string[]): Promise<number> {
  endQuietlyWithoutReader();
  let exitCode = 0;
  const program = makeProgram((code) => {
    exitCode = code;
  });
  try {
    await program.parseAsync(args, { from: "user" });
    return exitCode;
  } catch (error) {
    const usage = error instanceof CommanderError;
    // Commander may have stopped before it saw the flag.
    const json = usage ? args.includes("--json") : program.opts<{ json?: boolean }>().json === true;
    return reportFailure(error, json);
  }
}

function makeProgram(ended: (exitCode: number) => void): Command {
  const program = new Command("kimberlite")
    .description("A multi-tenant database: one encrypted, provable log per tenant, and SQL over it.")
    .version(packageVersion(), "--version", "print the version")
    .option("--dir <dir>", "the installation's directory", "./kimberlite")
    .addOption(
      new Option("--url <url>", "a server in the place of the directory, such as https://db.example.com").env(
        "KIMBERLITE_URL",
      ),
    )
    .addOption(
      new Option("--token <token>", "the API key or JWT that the server is shown").env("KIMBERLITE_TOKEN"),
    )
    .option("--json", "machine-readable output")
    .option("--actor <name>", "who asks, as it is recorded; cli:ACCOUNT unless given")
    .helpOption("--help", "show help")
    .helpCommand(false)
    .addHelpText("after", NOTES)
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({ outputError: () => undefined })
    .exitOverride();
  const define = definer(program, ended);
  addFirstCommands(define);
  addTenantCommands(program, ended);
  addSqlCommands(define);
  addProofCommands(define);
  addKeyCommands(program, ended);
  addTokenCommands(program, ended);
  addGovernanceCommands(program, define, ended);
  addSharingCommands(program, ended);
  addSubjectCommands(program, ended);
  addPortabilityCommands(define);
  addBackupCommands(program, define, ended);
  inheritSettings(program);
  return program;
}

type Define = (usage: string, description: string, handler: () => Promise<Handler>) => Command;

/** The options of the program reach every handler among its own. */
function definer(parent: Command, ended: (exitCode: number) => void): Define {
  return (usage, description, load) =>
    parent
      .command(usage)
      .description(description)
      .action(async (...given: unknown[]) => {
        const command = given.at(-1) as Command;
        const values = [...given.slice(0, -2), placedOptions(command)];
        const handler = await load();
        ended((await handler(...(values as never[]))) ?? 0);
      });
}

function addFirstCommands(define: Define): void {
  define(
    "init",
    "make an installation: master key, data directory",
    async () => (await import("./init.ts")).init,
  ).option(
    "--master-key <uri>",
    "a master key elsewhere: awskms:///ARN, vault://HOST:PORT/MOUNT/keys/NAME, pkcs11:…, file:PATH",
  );
  define(
    "demo",
    "two hospitals on a scratch directory: isolation, encryption, proof, time travel, quotas",
    async () => {
      return (await import("./demo.ts")).demo;
    },
  )
    .option("--keep", "keep the scratch directory")
    .option("--serve", "serve the two hospitals, with a token for each and lines to paste")
    .addOption(new Option("--port <port>", "with --serve: 0 for any that is free").argParser(parsePort));
  define(
    "serve",
    "serve the installation over HTTP: Hrana (libSQL) and the admin API",
    async () => (await import("./serve.ts")).serve,
  )
    .option("--host <host>", "address to listen on; 127.0.0.1 unless given")
    .option("--config <file>", "settings in JSON; DIR/server.json unless given")
    .option("--set <name=value...>", "a setting, such as limits.maxConnections=500")
    .addOption(new Option("--port <port>", "8080 unless given; 0 for a free one").argParser(parsePort));
}

function addTenantCommands(program: Command, ended: (exitCode: number) => void): void {
  const define = definer(program.command("tenant").description("create, look at and limit tenants"), ended);
  const load = () => import("./tenant.ts");
  const withQuota = (command: Command): Command =>
    command
      .addOption(new Option("--max-log-bytes <size>", "most bytes of the log").argParser(parseSize))
      .addOption(
        new Option("--max-projection-bytes <size>", "most bytes of the SQL database").argParser(parseSize),
      )
      .addOption(new Option("--max-ops-per-sec <count>", "operations a second").argParser(parseCount))
      .addOption(new Option("--burst-ops <count>", "operations at once, after a pause").argParser(parseCount))
      .addOption(
        new Option("--max-concurrent-ops <count>", "operations at the same time").argParser(parseCount),
      );
  withQuota(
    define("create", "create a tenant, with keys of its own", async () => (await load()).createTenant)
      .argument("<id>", "1 to 2^63-1", TenantId)
      .requiredOption("--name <name>", "for people")
      .option("--region <region>", "such as us-east or eu-central", "us-east")
      .option("--retention-days <days>", "how long its data must be kept", parseDays)
      .addOption(
        new Option("--retention-mode <mode>", "compliance is for ever").choices(["governance", "compliance"]),
      )
      .option("--master-key <uri>", "a master key of its own")
      .option("--reason <text>", "why; it is recorded"),
  );
  define("list", "list the tenants", async () => (await load()).listTenants);
  define("describe", "show a tenant and what it uses", async () => (await load()).describeTenant).argument(
    "<id>",
    "",
    TenantId,
  );
  define("suspend", "refuse a tenant's reads and writes", async () => (await load()).suspendTenant)
    .argument("<id>", "", TenantId)
    .option("--reason <text>", "why; it is recorded");
  define("resume", "end a suspension", async () => (await load()).resumeTenant)
    .argument("<id>", "", TenantId)
    .option("--reason <text>", "why; it is recorded");
  withQuota(
    define("quota", "show a tenant's quota, or change the given limits (none removes one)", async () => {
      return (await load()).changeTenantQuota;
    })
      .argument("<id>", "", TenantId)
      .option("--reason <text>", "why; it is recorded"),
  );
}

function addSqlCommands(define: Define): void {
  define("sql", "run SQL", async () => (await import("./sql.ts")).sql)
    .argument("[sql]", "one statement or several; begin it with -- on its own if it starts with a dash")
    .addOption(placedTenantOption())
    .addOption(momentOption())
    .option("--file <file>", "run the statements of a file (- for stdin), each on its own")
    .option("--transaction", "run all statements as one transaction")
    .option("--params <json>", "parameters of the statement, a JSON array or object", parseParameters);
  define("shell", "type SQL; .help shows what else", async () => (await import("./shell.ts")).shell)
    .addOption(placedTenantOption())
    .addOption(momentOption());
}

function addProofCommands(define: Define): void {
  define(
    "verify",
    "check the logs of a data directory, running or not; an export; or a certificate",
    async () => (await import("./verify.ts")).verify,
  )
    .argument("[path]", "an installation or its data directory, an export, a certificate; --dir unless given")
    .option("--tenant <id>", "only this tenant", TenantId)
    .option("--checkpoint <file>", "a signed checkpoint that the log must contain")
    .option("--key <vkey>", "the key whose signature you trust, from `key verifier`")
    .option("--no-seals", "do not open the seals, even if the master key is at hand");
  define(
    "checkpoint",
    "print a signed checkpoint of a tenant's log",
    async () => (await import("./inspect.ts")).checkpoint,
  ).addOption(tenantOption());
  define("stats", "show what the installation holds", async () => (await import("./inspect.ts")).stats);
  define("rebuild", "delete a tenant's SQL database and build it anew from its log", async () => {
    return (await import("./inspect.ts")).rebuild;
  }).addOption(tenantOption());
}

function addKeyCommands(program: Command, ended: (exitCode: number) => void): void {
  const define = definer(program.command("key").description("look at keys and rotate them"), ended);
  const load = () => import("./key.ts");
  define("list", "show key versions and ages, never a key", async () => (await load()).listKeys).addOption(
    tenantOption(),
  );
  define("create", "make a master key: a file (0600), or a key in a PKCS#11 token", async () => {
    return (await load()).createKey;
  }).argument("<uri>", "file:PATH, or pkcs11:… with the PIN in its pin-source or KIMBERLITE_PKCS11_PIN");
  define("rotate-dek", "seal new blocks under a new data key", async () => (await load()).rotateDek)
    .addOption(tenantOption())
    .option("--reason <text>", "why; it is recorded");
  define("reencrypt", "write log and SQL database anew under a new data key", async () => {
    return (await load()).reencrypt;
  })
    .addOption(tenantOption())
    .option("--destroy-former-keys", "then nothing from before can be read, in backups neither")
    .option("--reason <text>", "why; it is recorded");
  define("rotate-kek", "wrap a tenant's data keys under a new key", async () => (await load()).rotateKek)
    .addOption(tenantOption())
    .option("--reason <text>", "why; it is recorded");
  define(
    "rotate-master",
    "put a new master key in the place of DIR/master.key, for all tenants",
    async () => {
      return (await load()).rotateMaster;
    },
  )
    .option("--to <uri>", "move to the master key that a URI names")
    .option("--reason <text>", "why; it is recorded");
  define(
    "move",
    "have a tenant hold its own master key, or with --to node none",
    async () => (await load()).moveTenant,
  )
    .addOption(tenantOption())
    .requiredOption("--to <uri>", "the URI of its master key")
    .option("--reason <text>", "why; it is recorded");
  define(
    "verifier",
    "print the public key that checkpoints verify under",
    async () => (await load()).printVerifier,
  );
}

function addTokenCommands(program: Command, ended: (exitCode: number) => void): void {
  const load = () => import("./token.ts");
  const reason = (): Option => new Option("--reason <text>", "why; it is recorded");
  const owner = (): Option =>
    new Option("--tenant <id>", "the tenant's id; the operators' without it").argParser(TenantId);
  const token = definer(program.command("token").description("API keys of tenants and operators"), ended);
  token("create", "make an API key and print it, once", async () => (await load()).createToken)
    .addOption(owner())
    .addOption(
      new Option("--role <role>", "what it may do")
        .choices(["reader", "writer", "admin", "operator", "enrolment"])
        .makeOptionMandatory(),
    )
    .option("--name <name>", "for people")
    .option("--expires-days <days>", "how long it stands", parseDays)
    .option("--grant <id>", "it reads what this grant shares, and nothing else")
    .addOption(reason());
  token("list", "list API keys, never a secret", async () => (await load()).listTokens).addOption(owner());
  token("revoke", "end an API key, also on open connections", async () => (await load()).revokeToken)
    .argument("<id>", "as token list shows it")
    .addOption(owner())
    .addOption(reason());
  const issuer = definer(program.command("issuer").description("who may issue JWTs of a tenant"), ended);
  const name = (): Option => new Option("--issuer <iss>", "the iss of its tokens").makeOptionMandatory();
  const role = (flags: string, about: string): Option =>
    new Option(flags, about).choices(["reader", "writer", "admin"]);
  issuer("register", "let an issuer make tokens of a tenant", async () => (await load()).registerIssuer)
    .addOption(tenantOption())
    .addOption(name())
    .requiredOption("--audience <aud>", "the aud that its tokens must have")
    .option("--jwks-uri <url>", "where its public keys are")
    .option("--keys <file>", "its public keys, as a JSON Web Key Set")
    .addOption(role("--max-role <role>", "the most that its tokens may be; admin unless given"))
    .addOption(role("--default-role <role>", "what a token without a role is"))
    .addOption(reason());
  issuer("list", "list the issuers of a tenant", async () => (await load()).listIssuers).addOption(
    tenantOption(),
  );
  issuer("remove", "end an issuer and all its tokens", async () => (await load()).removeIssuer)
    .addOption(tenantOption())
    .addOption(name())
    .addOption(reason());
}

function addGovernanceCommands(program: Command, define: Define, ended: (exitCode: number) => void): void {
  const load = () => import("./governance.ts");
  const reason = (): Option => new Option("--reason <text>", "why; it is recorded").makeOptionMandatory();
  define(
    "erase",
    "erase a tenant for ever: destroy its keys, remove its data, certify it",
    async () => (await load()).erase,
  )
    .addOption(new Option("--tenant <id>", "the tenant's id").argParser(TenantId))
    .option("--reason <text>", "why; it is recorded")
    .option("--certificate <file>", "new file for the signed certificate")
    .option("--drill", "erase a scratch tenant instead, and look for what is left of it everywhere")
    .option("--override-retention", "also what is younger than its retention, in governance mode")
    .option("--keep-ciphertext", "keep the sealed blocks, which nobody can read any more");
  define(
    "certificate",
    "print the certificate of an erased tenant",
    async () => (await load()).printCertificate,
  ).addOption(tenantOption());
  const hold = definer(
    program.command("hold").description("legal holds: while one stands, nothing is erased"),
    ended,
  );
  const name = (): Option => new Option("--name <name>", "a case number, for one").makeOptionMandatory();
  hold("place", "place a hold on a tenant", async () => (await load()).placeHold)
    .addOption(tenantOption())
    .addOption(name())
    .addOption(reason());
  hold("release", "end a hold", async () => (await load()).releaseHold)
    .addOption(tenantOption())
    .addOption(name())
    .addOption(reason());
  hold("list", "list the holds of a tenant", async () => (await load()).listHolds).addOption(tenantOption());
  define("retention", "say how long a tenant's data is kept at least", async () => (await load()).retention)
    .addOption(tenantOption())
    .requiredOption("--days <days>", "from its commit on", parseDays)
    .addOption(new Option("--mode <mode>", "compliance is for ever").choices(["governance", "compliance"]))
    .option("--reason <text>", "why; needed to shorten it");
  define("trim", "destroy the records that are past their retention, keep their proofs", async () => {
    return (await load()).trim;
  })
    .addOption(tenantOption())
    .addOption(reason())
    .addOption(
      new Option("--before <time>", "only what was committed before (ISO 8601, UTC)").argParser(parseTime),
    )
    .option("--override-retention", "also what is younger than its retention, in governance mode");
  define(
    "audit",
    "print what was done to a tenant, or without --tenant to the node",
    async () => (await load()).audit,
  )
    .addOption(new Option("--tenant <id>", "the tenant's id").argParser(TenantId))
    .option("--action <action>", "only this one, such as tenant.erase")
    .addOption(new Option("--from <offset>", "from this place in the audit stream on").argParser(parseWhole))
    .addOption(new Option("--limit <count>", "at most so many").argParser(parseWhole));
}

function addSharingCommands(program: Command, ended: (exitCode: number) => void): void {
  const define = definer(
    program.command("grant").description("let another tenant read a table or stream"),
    ended,
  );
  const load = () => import("./grant.ts");
  const tenantFlag = (flag: string, about: string): Option =>
    new Option(`--${flag} <id>`, about).argParser(TenantId).makeOptionMandatory();
  define("create", "let a tenant read a table or an event stream of another", async () => {
    return (await load()).createGrant;
  })
    .addOption(tenantFlag("from", "whose it is"))
    .addOption(tenantFlag("to", "who may read it"))
    .requiredOption("--of <name>", "the table or event stream")
    .requiredOption("--purpose <text>", "why; it is recorded with each use")
    .addOption(new Option("--columns <names>", "only these, with commas between").argParser(parseNames))
    .option("--where <expression>", "only rows for which this SQL expression is true")
    .addOption(new Option("--max-rows <count>", "only the first so many").argParser(parseWhole))
    .addOption(
      new Option("--expires <duration>", "such as 30m, 12h or 90d, from now").argParser(parseDuration),
    )
    .addOption(new Option("--not-before <time>", "when it begins (ISO 8601, UTC)").argParser(parseTime));
  define("list", "list the grants of and to a tenant", async () => (await load()).listGrants).addOption(
    tenantOption(),
  );
  define("revoke", "end a grant", async () => (await load()).revokeGrant)
    .argument("<grant>", "its id")
    .addOption(new Option("--reason <text>", "why; it is recorded").makeOptionMandatory());
  define("query", "run SQL, as the reader, on a table that is granted", async () => (await load()).queryGrant)
    .argument("<sql>", "one statement that reads")
    .addOption(tenantFlag("tenant", "the reader"))
    .requiredOption("--grant <id>", "the grant")
    .addOption(
      new Option("--params <json>", "parameters, as a JSON array or object").argParser(parseParameters),
    );
  define("read", "read, as the reader, an event stream that is granted", async () => (await load()).readGrant)
    .addOption(tenantFlag("tenant", "the reader"))
    .requiredOption("--grant <id>", "the grant")
    .addOption(new Option("--first <offset>", "the first event that is wanted").argParser(parseWhole))
    .addOption(new Option("--limit <count>", "at most so many").argParser(parseWhole));
}

function addSubjectCommands(program: Command, ended: (exitCode: number) => void): void {
  const load = () => import("./subject.ts");
  const subject = definer(
    program.command("subject").description("persons within a tenant who can be erased alone"),
    ended,
  );
  subject(
    "declare",
    "say which column of an empty table says whose a row is",
    async () => (await load()).declare,
  )
    .addOption(tenantOption())
    .requiredOption("--table <name>", "the table, which has no rows yet")
    .requiredOption("--column <name>", "the column, which keeps its name from then on")
    .option("--reason <text>", "why; it is recorded");
  subject("list", "list declarations and erasures", async () => (await load()).list).addOption(
    tenantOption(),
  );
  subject("erase", "erase one person with all history, and certify it", async () => (await load()).erase)
    .addOption(tenantOption())
    .requiredOption("--subject <value>", "what the declared columns have of that person")
    .option("--number", "the value is a number")
    .requiredOption("--reason <text>", "why; it is recorded, so name a request and not the person")
    .requiredOption("--certificate <file>", "new file for the signed certificate")
    .option("--override-retention", "also what is younger than its retention, in governance mode");
  subject("verify", "check a certificate of a subject's erasure", async () => (await load()).verify)
    .argument("<file>", "the certificate")
    .requiredOption("--key <vkey>", "`key verifier` of the installation that erased");
}

function addPortabilityCommands(define: Define): void {
  const load = () => import("./portability.ts");
  define(
    "export",
    "write a tenant into a directory, with its proofs, in clear text",
    async () => (await load()).exportTenant,
  )
    .addOption(tenantOption())
    .requiredOption("--out <directory>", "new, empty, or one to go on with")
    .option("--subject-keys <file>", "the keys of its subjects, apart: with both, their history is read")
    .option("--reason <text>", "why; it is recorded");
  define("import", "bring an exported tenant into this installation", async () => {
    return (await load()).importTenant;
  })
    .argument("<directory>", "the export")
    .requiredOption("--key <vkey>", "`key verifier` of the installation that exported it")
    .option("--tenant <id>", "refuse an export of another tenant", TenantId)
    .option("--as <id>", "its id here, unless it is to be the same", TenantId)
    .option("--subject-keys <file>", "the keys of its subjects, which the export wrote apart")
    .option("--master-key <uri>", "a master key of its own")
    .option("--reason <text>", "why; it is recorded");
}

function addBackupCommands(program: Command, define: Define, ended: (exitCode: number) => void): void {
  const load = () => import("./backup.ts");
  const places = "file:PATH or s3://BUCKET/PREFIX";
  const group = definer(
    program.command("backup").description("back up logs and keys, bring them back"),
    ended,
  );
  group("run", "back up what was written since the backup before", async () => (await load()).backup)
    .requiredOption("--to <place>", `where the logs go: ${places}`)
    .option("--keys-to <place>", "where the wrapped keys go, apart from the logs")
    .addOption(new Option("--tenant <id>", "only this tenant").argParser(TenantId))
    .option("--reason <text>", "why; it is recorded");
  group("list", "list the backups in a place", async () => (await load()).listBackups).requiredOption(
    "--from <place>",
    places,
  );
  group("verify", "read a backup and check every object of it, without restoring it", async () => {
    return (await load()).verifyBackedUp;
  })
    .requiredOption("--from <place>", places)
    .option("--keys-from <place>", "where the wrapped keys are, to look at them as well")
    .option("--key <vkey>", "`key verifier` of the installation; needed without one at DIR")
    .option("--backup <id>", "which backup; the latest unless given");
  group("restore-tenant", "bring a tenant back beside the one that is there", async () => {
    return (await load()).restoreTenant;
  })
    .addOption(tenantOption())
    .requiredOption("--from <place>", places)
    .option("--keys-from <place>", "where its keys are, if they are not here any more")
    .option("--as <id>", "its id here", TenantId)
    .option("--name <name>", "its name here")
    .addOption(
      new Option("--at <moment>", "up to a log offset, or a time (ISO 8601, UTC)").argParser(parseMoment),
    )
    .option("--backup <id>", "which backup; the one that fits unless given")
    .option("--reason <text>", "why; it is recorded");
  define("restore", "bring a node back into DIR, which holds at most its master key", async () => {
    return (await load()).restore;
  })
    .requiredOption("--from <place>", places)
    .requiredOption("--keys-from <place>", "where the wrapped keys are")
    .option("--master-key <uri>", "the master key, if it is not DIR/master.key")
    .addOption(new Option("--at <time>", "as it was then (ISO 8601, UTC)").argParser(parseTime))
    .option("--backup <id>", "which backup; the one that fits unless given")
    .option("--keep-credentials", "API keys and issuers stand as they did then, also those withdrawn since");
}

function tenantOption(): Option {
  return new Option("--tenant <id>", "the tenant's id").argParser(TenantId).makeOptionMandatory();
}

/** Over a server the token says it. */
function placedTenantOption(): Option {
  return new Option("--tenant <id>", "the tenant's id; over a server the token's").argParser(TenantId);
}

function momentOption(): Option {
  return new Option("--at <moment>", "read as it was: a log offset, or a time (ISO 8601, UTC)").argParser(
    parseMoment,
  );
}

/** Commander copies settings to a subcommand when it is made; those that were made through `definer` are older. */
function inheritSettings(command: Command): void {
  for (const child of command.commands) {
    child.copyInheritedSettings(command).helpOption("--help", "show help");
    if (child.commands.length > 0) child.helpCommand(false);
    inheritSettings(child);
  }
}

function packageVersion(): string {
  const file = new URL("../../package.json", import.meta.url);
  return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
}

/** `kimberlite sql … | head` ends as other programs do when nobody reads any more. */
function endQuietlyWithoutReader(): void {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    process.exit(0);
  });
}
