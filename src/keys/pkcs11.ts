/**
 * A master key in an HSM, through PKCS#11: an AES-256 key that the token does not give out, which encrypts and
 * authenticates KEKs inside it (AES-GCM with tenant, purpose and version as associated data).
 *
 * What is wrapped is 0x01 ‖ IV (12 random bytes) ‖ ciphertext ‖ tag. Kept: the key is one that cannot be extracted, or it
 * is not used; a session or token that is lost is looked for once more with each call, and the login is made anew; a
 * refused PIN is not sent again. A call blocks the thread for as long as the token takes: tokens in the machine answer in
 * well under a millisecond.
 */
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Mechanism } from "pkcs11js";
import { assert, KimberliteError, kimberliteError } from "../errors.ts";
import { type Randomness, systemRandomness } from "../host/randomness.ts";
import { bindKey, fromStoredForm, openBoundKey, storedForm, wrongKey } from "./bound-key.ts";
import { encodeKeyContext, KEY_BYTES, type KeyContext, type MasterKeyProvider } from "./master-key.ts";
import { acquireModule, codeOf, logIn, type Pkcs11Module, releaseModule } from "./pkcs11-module.ts";
import { type Pkcs11Place, parsePkcs11Uri, withoutPin } from "./pkcs11-uri.ts";

export interface Pkcs11Options {
  /** Else it is in the URI's `pin-source`, its `pin-value`, or in KIMBERLITE_PKCS11_PIN. */
  readonly pin?: string;
  readonly randomness?: Randomness;
}

const IV_BYTES = 12;
const TAG_BITS = 128;

/**
 * Opens the key that an RFC 7512 URI names:
 * `pkcs11:token=TOKEN;object=LABEL?module-path=/usr/lib/…/libsofthsm2.so&pin-source=file:/path`.
 *
 * @throws `invalid_argument` for another URI; `master_key_login_failed` for a wrong PIN, which is not tried again;
 * `master_key_missing` without library, token or key; `master_key_invalid` for a key that could be extracted or is no
 * AES-256 key; `master_key_unreachable` for a token that fails, as each later use does; `runtime_unsupported`.
 */
export async function pkcs11(uri: string, options: Pkcs11Options = {}): Promise<MasterKeyProvider> {
  const place = parsePkcs11Uri(uri);
  const pin = pinOf(place, options);
  const module = await acquireModule(place.modulePath);
  const token = new Token(module, place, pin);
  try {
    return new Pkcs11Key({
      uri: withoutPin(uri),
      token,
      randomness: options.randomness ?? systemRandomness(),
    });
  } catch (error) {
    token.close();
    throw error;
  }
}

/**
 * Makes the key that a URI names in its token: AES-256, not extractable, by the token's own generator.
 *
 * @throws `master_key_exists` if there is a key of that name; else as `pkcs11`
 */
export async function createPkcs11Key(uri: string, options: Pkcs11Options = {}): Promise<void> {
  const place = parsePkcs11Uri(uri);
  const pin = pinOf(place, options);
  const token = new Token(await acquireModule(place.modulePath), place, pin);
  try {
    token.generate();
  } finally {
    token.close();
  }
}

class Pkcs11Key implements MasterKeyProvider {
  readonly uri: string;
  readonly keyId: string;
  readonly #token: Token;
  readonly #randomness: Randomness;
  #closed = false;

  constructor(parts: { readonly uri: string; readonly token: Token; readonly randomness: Randomness }) {
    this.uri = parts.uri;
    this.#token = parts.token;
    this.#randomness = parts.randomness;
    this.keyId = parts.token.keyId();
  }

  async wrap(key: Buffer, context: KeyContext): Promise<Uint8Array> {
    this.#assertOpen();
    const plaintext = bindKey(key, context);
    const iv = this.#randomness.bytes(IV_BYTES);
    try {
      return storedForm(Buffer.concat([iv, this.#token.encrypt(iv, plaintext, encodeKeyContext(context))]));
    } finally {
      plaintext.fill(0);
    }
  }

  async unwrap(wrapped: Uint8Array, context: KeyContext): Promise<Buffer> {
    this.#assertOpen();
    const sealed = fromStoredForm(wrapped, context);
    const expected = IV_BYTES + KEY_BYTES + 16 + TAG_BITS / 8;
    if (sealed.length !== expected) throw wrongKey(context);
    const iv = sealed.subarray(0, IV_BYTES);
    const plaintext = this.#token.decrypt(iv, sealed.subarray(IV_BYTES), encodeKeyContext(context));
    if (plaintext === undefined) throw wrongKey(context);
    try {
      return openBoundKey(plaintext, context);
    } finally {
      plaintext.fill(0);
    }
  }

  async close(): Promise<void> {
    if (!this.#closed) this.#token.close();
    this.#closed = true;
  }

  #assertOpen(): void {
    assert(!this.#closed, "a master key is not used after it was closed");
  }
}

interface Session {
  readonly handle: Buffer;
  readonly key: Buffer;
}

/** One key in one token, with a session that is opened when it is needed and again when it is lost. */
class Token {
  readonly #module: Pkcs11Module;
  readonly #place: Pkcs11Place;
  readonly #pin: string;
  #session: Session | undefined;

  constructor(module: Pkcs11Module, place: Pkcs11Place, pin: string) {
    this.#module = module;
    this.#place = place;
    this.#pin = pin;
  }

  /**
   * Public, the same for one key and other for another: a hash of what the key makes of a fixed text. The IV of that is
   * one that no wrapped KEK has, for those are random (2⁻⁹⁶), and the hash says nothing of what it was made from.
   */
  keyId(): string {
    const label = Buffer.from("kimberlite/v1/key-id", "ascii");
    const sealed = this.encrypt(Buffer.alloc(IV_BYTES), Buffer.alloc(16), label);
    return `pkcs11:${createHmac("sha256", label).update(sealed).digest("hex").slice(0, 32)}`;
  }

  encrypt(iv: Buffer, plaintext: Buffer, aad: Buffer): Buffer {
    return this.#use(({ handle, key }) => {
      const { library } = this.#module;
      library.C_EncryptInit(handle, this.#mechanism(iv, aad), key);
      return library.C_Encrypt(handle, plaintext, Buffer.alloc(plaintext.length + TAG_BITS / 8));
    });
  }

  /** Undefined if it does not authenticate. */
  decrypt(iv: Buffer, sealed: Buffer, aad: Buffer): Buffer | undefined {
    const { library, names } = this.#module;
    const refusals: readonly number[] = [
      names.CKR_ENCRYPTED_DATA_INVALID,
      names.CKR_ENCRYPTED_DATA_LEN_RANGE,
      names.CKR_GENERAL_ERROR,
      names.CKR_FUNCTION_FAILED,
    ];
    const opened = this.#use(({ handle, key }) => {
      library.C_DecryptInit(handle, this.#mechanism(iv, aad), key);
      try {
        return { plaintext: library.C_Decrypt(handle, sealed, Buffer.alloc(sealed.length)) };
      } catch (error) {
        if (!refusals.includes(codeOf(error) ?? -1)) throw error;
        return { refused: codeOf(error) };
      }
    });
    if (opened.plaintext !== undefined) return opened.plaintext;
    // Some tokens have no code of its own for it: one that still seals is well, and the bytes are not.
    if (opened.refused !== names.CKR_ENCRYPTED_DATA_INVALID) this.keyId();
    return undefined;
  }

  generate(): void {
    const { library, names } = this.#module;
    const handle = this.#openSession();
    if (this.#findKeys(handle).length > 0) {
      throw kimberliteError("master_key_exists", "the token has a key of that name; it is left as it is");
    }
    const { object, id } = this.#place;
    library.C_GenerateKey(handle, { mechanism: names.CKM_AES_KEY_GEN }, [
      { type: names.CKA_CLASS, value: names.CKO_SECRET_KEY },
      { type: names.CKA_KEY_TYPE, value: names.CKK_AES },
      { type: names.CKA_VALUE_LEN, value: KEY_BYTES },
      ...(object === undefined ? [] : [{ type: names.CKA_LABEL, value: object }]),
      ...(id === undefined ? [] : [{ type: names.CKA_ID, value: id }]),
      ...[names.CKA_TOKEN, names.CKA_PRIVATE, names.CKA_SENSITIVE, names.CKA_ENCRYPT, names.CKA_DECRYPT].map(
        (type) => ({ type, value: true }),
      ),
      { type: names.CKA_EXTRACTABLE, value: false },
    ]);
  }

  close(): void {
    this.#leaveSession();
    releaseModule(this.#place.modulePath);
  }

  #leaveSession(): void {
    try {
      if (this.#session !== undefined) this.#module.library.C_CloseSession(this.#session.handle);
    } catch {
      // A session that is lost is closed.
    }
    this.#session = undefined;
  }

  #mechanism(iv: Buffer, aad: Buffer): Mechanism {
    const { names } = this.#module;
    const parameter = {
      type: names.CK_PARAMS_AES_GCM_v240,
      iv,
      ivBits: iv.length * 8,
      aad,
      tagBits: TAG_BITS,
    };
    return { mechanism: names.CKM_AES_GCM, parameter };
  }

  /** Runs work in the session; if that, or the token, was lost, once more in a new one. */
  #use<T>(work: (session: Session) => T): T {
    try {
      return work(this.#live());
    } catch (error) {
      if (error instanceof KimberliteError || codeOf(error) === undefined) throw error;
      this.#leaveSession();
    }
    try {
      return work(this.#live());
    } catch (error) {
      this.#leaveSession();
      if (error instanceof KimberliteError || codeOf(error) === undefined) throw error;
      throw kimberliteError("master_key_unreachable", "the token does not answer as it should", {
        detail: { ckr: codeOf(error) },
        retryAfterMs: 1_000,
      });
    }
  }

  #live(): Session {
    if (this.#session === undefined) {
      const handle = this.#openSession();
      this.#session = { handle, key: this.#requireKey(handle) };
    }
    return this.#session;
  }

  #openSession(): Buffer {
    const { library, names } = this.#module;
    const slot = this.#findSlot();
    const handle = library.C_OpenSession(slot, names.CKF_SERIAL_SESSION | names.CKF_RW_SESSION);
    logIn(this.#module, handle, { slot, pin: this.#pin });
    return handle;
  }

  #findSlot(): Buffer {
    const { library } = this.#module;
    const { token, serial, slotId } = this.#place;
    for (const slot of library.C_GetSlotList(true)) {
      const info = library.C_GetTokenInfo(slot);
      const matches =
        (token === undefined || info.label.trim() === token) &&
        (serial === undefined || info.serialNumber.trim() === serial) &&
        (slotId === undefined || slot.readUInt32LE(0) === slotId);
      if (matches) return slot;
    }
    throw kimberliteError("master_key_missing", "there is no token of that name");
  }

  #findKeys(handle: Buffer): Buffer[] {
    const { library, names } = this.#module;
    const { object, id } = this.#place;
    library.C_FindObjectsInit(handle, [
      { type: names.CKA_CLASS, value: names.CKO_SECRET_KEY },
      ...(object === undefined ? [] : [{ type: names.CKA_LABEL, value: object }]),
      ...(id === undefined ? [] : [{ type: names.CKA_ID, value: id }]),
    ]);
    try {
      return library.C_FindObjects(handle, 2);
    } finally {
      library.C_FindObjectsFinal(handle);
    }
  }

  /** @throws `master_key_missing`, `master_key_invalid` */
  #requireKey(handle: Buffer): Buffer {
    const { library, names } = this.#module;
    const [key, another] = this.#findKeys(handle);
    if (key === undefined) throw kimberliteError("master_key_missing", "the token has no key of that name");
    if (another !== undefined) throw unfit("the token has several keys of that name");
    const read = (type: number): Buffer =>
      (library.C_GetAttributeValue(handle, key, [{ type }])[0]?.value as Buffer | undefined) ??
      Buffer.alloc(0);
    const flag = (type: number): boolean => read(type)[0] === 1;
    const number = (type: number): number => (read(type).length >= 4 ? read(type).readUInt32LE(0) : -1);
    if (number(names.CKA_KEY_TYPE) !== names.CKK_AES || number(names.CKA_VALUE_LEN) !== KEY_BYTES) {
      throw unfit("the key is no AES-256 key");
    }
    if (flag(names.CKA_EXTRACTABLE) || !flag(names.CKA_SENSITIVE)) throw unfit("the key could be extracted");
    if (!flag(names.CKA_ENCRYPT) || !flag(names.CKA_DECRYPT))
      throw unfit("the key does not encrypt and decrypt");
    return key;
  }
}

function unfit(why: string): Error {
  return kimberliteError("master_key_invalid", why);
}

function pinOf(place: Pkcs11Place, options: Pkcs11Options): string {
  const given =
    options.pin ?? readPin(place.pinSource) ?? place.pinValue ?? process.env["KIMBERLITE_PKCS11_PIN"];
  if (given !== undefined && given !== "") return given;
  throw kimberliteError(
    "master_key_login_failed",
    "there is no PIN: give pin-source, or KIMBERLITE_PKCS11_PIN",
  );
}

function readPin(source: string | undefined): string | undefined {
  if (source === undefined) return undefined;
  const path = /^(?:file:)?(\/.*)$/.exec(source)?.[1];
  if (path === undefined) throw kimberliteError("invalid_argument", "pin-source is file:/path");
  try {
    return readFileSync(path, "utf8").replace(/\r?\n$/, "");
  } catch (cause) {
    throw kimberliteError("master_key_login_failed", "the file of the PIN cannot be read", { cause });
  }
}
