/** Why a credential was refused: for the audit stream, never for who presented it. */
export type FailureReason =
  | "malformed"
  | "too_large"
  | "unknown_key"
  | "wrong_secret"
  | "revoked"
  | "expired"
  | "tenant_gone"
  | "unknown_issuer"
  | "unknown_signing_key"
  | "wrong_signature"
  | "algorithm_not_allowed"
  | "wrong_audience"
  | "not_yet_valid"
  | "life_too_long"
  | "bad_claims"
  | "role_not_allowed"
  | "tenant_not_allowed";
