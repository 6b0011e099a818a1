/** Kimberlite: a compliance-first, multi-tenant database. */
export type { ApiKeyRequest, KeyRequest, NewApiKey } from "./access.ts";
export type { GovernanceOptions, HoldRelease, HoldRequest } from "./administration.ts";
export type { AuditAction, AuditDetail, AuditEntry, AuditEvent, AuditOutcome } from "./audit/audit-event.ts";
export type { AuditRange } from "./audit/audit-stream.ts";
export type { ApiKeyDescription } from "./auth/api-key.ts";
export type { Authenticator, RequestOrigin } from "./auth/authenticator.ts";
export type { Action } from "./auth/authorize.ts";
export { isAuthorized } from "./auth/authorize.ts";
export type { IssuerConfig, IssuerDescription, NodeIssuerConfig, RegisteredIssuer } from "./auth/issuer.ts";
export type { PublicJwk } from "./auth/jwk.ts";
export type { JwksPolicy } from "./auth/jwks-uri.ts";
export type {
  Credential,
  OperatorPrincipal,
  Principal,
  TenantPrincipal,
  TenantRole,
} from "./auth/principal.ts";
export { type S3TargetOptions, s3Target } from "./backup/s3-target.ts";
export type { BackupTarget } from "./backup/target.ts";
export type {
  BackupOptions,
  BackupProgress,
  BackupReport,
  RestoreTenantOptions,
} from "./backup.ts";
export type { BackupPlace } from "./backup-places.ts";
export { type VerifiedBackup, type VerifyBackupOptions, verifyBackup } from "./backup-verification.ts";
export type { RefusedErasure } from "./directory/catalogue.ts";
export {
  type ErasureCertificate,
  type ErasureFacts,
  type RemovedPart,
  verifyErasureCertificate,
} from "./erasure/certificate.ts";
export {
  type SubjectErasureCertificate,
  verifySubjectCertificate,
} from "./erasure/subject-certificate.ts";
export type { EraseOptions } from "./erasure.ts";
export {
  ERROR_CODES,
  type ErrorAction,
  type ErrorCode,
  type ErrorDetail,
  HaltError,
  KimberliteError,
  RejectError,
  RetryError,
} from "./errors.ts";
export type { Clock } from "./host/clock.ts";
export type { Disk, DiskFile } from "./host/disk.ts";
export type { Randomness } from "./host/randomness.ts";
export { type AwsKmsOptions, awsKms } from "./keys/aws-kms.ts";
export type { TenantKeyReport } from "./keys/key-report.ts";
export type { KeyContext, MasterKeyProvider } from "./keys/master-key.ts";
export { createMasterKeyFile, masterKeyFile } from "./keys/master-key-file.ts";
export type { OpenMasterKey } from "./keys/master-key-ring.ts";
export { openMasterKey } from "./keys/master-key-uri.ts";
export { createPkcs11Key, type Pkcs11Options, pkcs11 } from "./keys/pkcs11.ts";
export type { VaultOptions } from "./keys/vault-client.ts";
export { vaultTransit } from "./keys/vault-transit.ts";
export { Kimberlite, type TenantKeyUse } from "./kimberlite.ts";
export { type Checkpoint, openCheckpoint } from "./log/checkpoint.ts";
export {
  type ConsistencyProof,
  type InclusionProof,
  verifyConsistency,
  verifyInclusion,
} from "./log/proofs.ts";
export { parseVerifierKey, type VerifierKey } from "./log/signed-note.ts";
export type { VerifyProgress, VerifyReport } from "./log/verify.ts";
export type { RotationProgress } from "./master-rotation.ts";
export type { OpenOptions } from "./open-options.ts";
export type {
  ArraysResult,
  ExecuteResult,
  NodeStats,
  OperationOptions,
  Statement,
  StreamDescription,
  TenantDescription,
  Transaction,
  TransactionOptions,
} from "./operations.ts";
export type { RebuildProgress } from "./pipeline/replay-into.ts";
export type { Moment } from "./pipeline/time-travel.ts";
export type { VerifyTenantOptions } from "./pipeline/verify-tenant.ts";
export type { ExportProgress } from "./portability/export-tenant.ts";
export type { VerifiedExport, VerifyExportOptions } from "./portability/export-verifier.ts";
export {
  type ExportOptions,
  type ExportReport,
  type ImportOptions,
  type ImportProgress,
  verifyExport,
} from "./portability.ts";
export { DEFAULT_LIMITS, type StatementLimits } from "./projection/connection.ts";
export type { Row, SqlInput, SqlParams, SqlValue } from "./projection/values.ts";
export type { ReencryptOptions, ReencryptProgress, ReencryptReport } from "./reencryption.ts";
export { type RestoreOptions, type RestoreReport, restoreNode } from "./restore.ts";
export { type Grant, type GrantState, type Permission, Permissions } from "./sharing/grant.ts";
export type { GrantRequest } from "./sharing/grant-terms.ts";
export type { SharedItem, SharedOptions } from "./sharing.ts";
export type { AppendOptions, AppendResult } from "./stream/append.ts";
export type { EventValue } from "./stream/event.ts";
export type {
  ErasedRowItem,
  ReadRange,
  RowChangeItem,
  StreamEvent,
  StreamItem,
} from "./stream/stream-reader.ts";
export type { DeclaredSubject, EraseSubjectOptions, SubjectDeclaration } from "./subjects.ts";
export { Duration } from "./tenant/duration.ts";
export { Region } from "./tenant/region.ts";
export type {
  KeyAccess,
  LegalHold,
  RetentionMode,
  TenantConfig,
  TenantEntry,
  TenantQuota,
  TenantState,
} from "./tenant/tenant-config.ts";
export { StreamId, TenantId } from "./tenant/tenant-id.ts";
export type { TrimOptions, TrimReport } from "./trimming.ts";
