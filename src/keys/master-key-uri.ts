/** Which master key a URI names. The code of a provider, and the libraries that it needs, are loaded when it is used. */
import { kimberliteError } from "../errors.ts";
import type { MasterKeyProvider } from "./master-key.ts";
import { masterKeyFile } from "./master-key-file.ts";

/** The path of a master key file, of a URI `file:PATH` or a path. */
export function masterKeyPath(uri: string): string {
  if (!uri.startsWith("file:")) return uri;
  return decodeURIComponent(uri.slice("file:".length).replace(/^\/\/(?=\/)/, ""));
}

/**
 * Opens the master key at `file:PATH`, `awskms:///ARN`, `vault://HOST/MOUNT/keys/NAME` or `pkcs11:…`, with
 * credentials from the environment.
 *
 * @throws `invalid_argument` for a scheme that is not known; else what the provider throws.
 */
export async function openMasterKey(uri: string): Promise<MasterKeyProvider> {
  if (typeof uri !== "string") throw kimberliteError("invalid_argument", "a master key is named by a URI");
  const scheme = /^([a-z][a-z0-9+.-]*):/.exec(uri)?.[1];
  switch (scheme) {
    case "file":
      return masterKeyFile(masterKeyPath(uri));
    case "awskms":
      return (await import("./aws-kms.ts")).awsKms(uri);
    case "vault":
    case "openbao":
      return (await import("./vault-transit.ts")).vaultTransit(uri);
    case "pkcs11":
      return (await import("./pkcs11.ts")).pkcs11(uri);
    default:
      throw kimberliteError(
        "invalid_argument",
        "a master key's URI begins with file:, awskms:, vault: or pkcs11:",
      );
  }
}
