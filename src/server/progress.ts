/** How far work is that takes long. */

export interface Progress {
  readonly done: number;
  /** Absent where it is not known. */
  readonly total?: number;
  readonly unit: "records" | "bytes" | "tenants";
}

/** Progress of the library's that is counted in records, as an operation's. */
export function inRecords(
  onProgress: (progress: Progress) => void,
): (progress: { readonly doneRecords: bigint; readonly totalRecords: bigint }) => void {
  return ({ doneRecords, totalRecords }) =>
    onProgress({ done: Number(doneRecords), total: Number(totalRecords), unit: "records" });
}

/** The same of what is counted in bytes, without knowing how many there are. */
export function inBytes(
  onProgress: (progress: Progress) => void,
): (progress: { readonly bytes: number }) => void {
  return ({ bytes }) => onProgress({ done: bytes, unit: "bytes" });
}
