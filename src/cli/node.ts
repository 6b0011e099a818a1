/** The calls of the library that the commands make which work on a directory and over a server alike. */
import type { Kimberlite } from "../kimberlite.ts";

export type Node = Pick<
  Kimberlite,
  | "createTenant"
  | "listTenants"
  | "describeTenant"
  | "refusedErasures"
  | "suspendTenant"
  | "resumeTenant"
  | "setQuota"
  | "placeLegalHold"
  | "releaseLegalHold"
  | "audit"
  | "nodeAudit"
  | "keys"
  | "rotateDek"
  | "rotateKek"
  | "createApiKey"
  | "createOperatorKey"
  | "enrolTenant"
  | "listApiKeys"
  | "listOperatorKeys"
  | "revokeApiKey"
  | "revokeOperatorKey"
  | "checkpoint"
  | "streams"
  | "grantAccess"
  | "listGrants"
  | "revokeAccess"
> & { verifierKey(): string | Promise<string> };
