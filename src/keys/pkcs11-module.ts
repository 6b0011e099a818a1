/**
 * PKCS#11 libraries in this process: each is loaded and initialised once, whoever uses it, and finalised after the last.
 *
 * Kept: a PIN that a token refused is never sent to it again by this process, and none is sent to a token that says that
 * its last try is left, so that no number of tenants, callers or restarts of a provider locks a token.
 */
import { createHash } from "node:crypto";
import type * as pkcs11js from "pkcs11js";
import { kimberliteError } from "../errors.ts";

export type Pkcs11Library = pkcs11js.PKCS11;
export type Pkcs11Names = typeof pkcs11js;

export interface Pkcs11Module {
  readonly library: Pkcs11Library;
  readonly names: Pkcs11Names;
}

interface Loaded extends Pkcs11Module {
  users: number;
}

const loaded: Map<string, Loaded> = new Map();
/** Digests of token and PIN that were refused. */
const refusedPins: Set<string> = new Set();
/** Digests of token and PIN that opened it: a login is the whole process's, but only for who knows the PIN. */
const acceptedPins: Set<string> = new Set();

/** @throws `runtime_unsupported` without the package, `master_key_missing` if the library does not load */
export async function acquireModule(path: string): Promise<Pkcs11Module> {
  const names = await importPackage();
  const known = loaded.get(path);
  if (known !== undefined) {
    known.users += 1;
    return known;
  }
  const library = new names.PKCS11();
  try {
    library.load(path);
    library.C_Initialize();
  } catch (cause) {
    throw kimberliteError("master_key_missing", "the PKCS#11 library cannot be loaded", { cause });
  }
  const fresh: Loaded = { library, names, users: 1 };
  loaded.set(path, fresh);
  return fresh;
}

export function releaseModule(path: string): void {
  const known = loaded.get(path);
  if (known === undefined) return;
  known.users -= 1;
  if (known.users > 0) return;
  loaded.delete(path);
  try {
    known.library.C_Finalize();
  } finally {
    known.library.close();
  }
}

/** Logs in, unless the application is logged in already. @throws `master_key_login_failed` */
export function logIn(
  module: Pkcs11Module,
  session: Buffer,
  token: { readonly slot: Buffer; readonly pin: string },
): void {
  const { library, names } = module;
  const info = library.C_GetTokenInfo(token.slot);
  const digest = createHash("sha256")
    .update(`${info.serialNumber}\0${info.label}\0${token.pin}`)
    .digest("hex");
  if (refusedPins.has(digest)) throw loginFailed("the PIN was refused before, and is not tried again");
  const lastTry = names.CKF_USER_PIN_FINAL_TRY | names.CKF_USER_PIN_LOCKED;
  if ((info.flags & lastTry) !== 0) throw loginFailed("the token's PIN is locked, or its last try is left");
  try {
    library.C_Login(session, names.CKU_USER, token.pin);
    acceptedPins.add(digest);
  } catch (error) {
    const code = codeOf(error);
    if (code === names.CKR_USER_ALREADY_LOGGED_IN && acceptedPins.has(digest)) return;
    if (code === names.CKR_USER_ALREADY_LOGGED_IN) throw loginFailed("the token is open under another PIN");
    if (
      code === names.CKR_PIN_INCORRECT ||
      code === names.CKR_PIN_LOCKED ||
      code === names.CKR_PIN_LEN_RANGE
    ) {
      refusedPins.add(digest);
      throw loginFailed("the token refused the PIN; it is not tried again");
    }
    throw error;
  }
}

/** The return value that a library failed with; undefined for anything else. */
export function codeOf(error: unknown): number | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "number" ? code : undefined;
}

async function importPackage(): Promise<Pkcs11Names> {
  try {
    const imported = (await import("pkcs11js")) as Pkcs11Names & { readonly default?: Pkcs11Names };
    return imported.default ?? imported;
  } catch (cause) {
    throw kimberliteError(
      "runtime_unsupported",
      "PKCS#11 needs the optional package pkcs11js, which did not install here",
      {
        cause,
      },
    );
  }
}

function loginFailed(why: string): Error {
  return kimberliteError("master_key_login_failed", why);
}
