/** The table of the admin API: what is not in it is not served under `/v1`. */
import { AUDIT_OPERATIONS } from "./audit-operations.ts";
import { HISTORY_OPERATIONS } from "./history-operations.ts";
import { JOB_OPERATIONS } from "./job-operations.ts";
import { KEY_OPERATIONS } from "./key-operations.ts";
import { NODE_OPERATIONS } from "./node-operations.ts";
import type { Operation } from "./operation.ts";
import { PORTABILITY_OPERATIONS } from "./portability-operations.ts";
import { PROOF_OPERATIONS } from "./proof-operations.ts";
import { SHARING_OPERATIONS } from "./sharing-operations.ts";
import { STREAM_OPERATIONS } from "./stream-operations.ts";
import { SUBJECT_OPERATIONS } from "./subject-operations.ts";
import { TENANT_OPERATIONS } from "./tenant-operations.ts";
import { TOKEN_OPERATIONS } from "./token-operations.ts";

export const OPERATIONS: readonly Operation[] = [
  ...NODE_OPERATIONS,
  ...TENANT_OPERATIONS,
  ...TOKEN_OPERATIONS,
  ...KEY_OPERATIONS,
  ...PROOF_OPERATIONS,
  ...PORTABILITY_OPERATIONS,
  ...SUBJECT_OPERATIONS,
  ...STREAM_OPERATIONS,
  ...HISTORY_OPERATIONS,
  ...SHARING_OPERATIONS,
  ...JOB_OPERATIONS,
  ...AUDIT_OPERATIONS,
];
