/** The typed client of the admin API: `kimberlite/client`. */
export {
  type ErrorCode,
  type ErrorDetail,
  HaltError,
  KimberliteError,
  RejectError,
  RetryError,
} from "../errors.ts";
export type { Calls, Lasting, Streams } from "./calls.ts";
export {
  type CallOptions,
  type ClientOptions,
  KimberliteClient,
  type ListId,
  type ReportedJob,
  type RunOptions,
} from "./client.ts";
