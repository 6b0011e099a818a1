/**
 * Bytes of the statements and events that wait to be written: of a node, so that its memory is bounded, and of each
 * tenant, so that it is not one tenant that fills it.
 *
 * Kept: a tenant with little waiting is admitted whatever the others have; one call, however large, is admitted where its
 * tenant has nothing else waiting.
 */
import type { StatementRequest } from "../projection/writer.ts";

const MIB = 1024 * 1024;

export interface PendingLimits {
  /** What one tenant may have waiting. */
  readonly tenantBytes: number;
  /** What all may have; past it a tenant that has more than `smallBytes` waits. */
  readonly nodeBytes: number;
  readonly smallBytes: number;
}

const PENDING_LIMITS: PendingLimits = {
  tenantBytes: 64 * MIB,
  nodeBytes: 512 * MIB,
  smallBytes: 1 * MIB,
};

/** The statements that wait on a node. */
export class PendingBytes {
  readonly #limits: PendingLimits;
  #all = 0;

  constructor(limits: PendingLimits = PENDING_LIMITS) {
    this.#limits = limits;
  }

  get all(): number {
    return this.#all;
  }

  /** Counts a call of so many bytes, of a tenant that has `own` waiting. @returns false if it is not admitted */
  admit(bytes: number, own: number): boolean {
    const { tenantBytes, nodeBytes, smallBytes } = this.#limits;
    if (own > 0) {
      if (own + bytes > tenantBytes) return false;
      if (this.#all + bytes > nodeBytes && own + bytes > smallBytes) return false;
    }
    this.#all += bytes;
    return true;
  }

  /** The call was answered. */
  release(bytes: number): void {
    this.#all -= bytes;
  }
}

/** What a request holds while it waits, about: its text and its parameters. */
export function requestBytes({ sql, params, exact }: StatementRequest): number {
  let bytes = sizeOf(sql);
  const values = exact ?? params;
  if (values === undefined || values === null) return bytes;
  if (Array.isArray(values)) for (const value of values as unknown[]) bytes += sizeOf(value);
  else for (const value of Object.values(values)) bytes += sizeOf(value);
  return bytes;
}

function sizeOf(value: unknown): number {
  if (typeof value === "string") return value.length;
  return ArrayBuffer.isView(value) ? value.byteLength : 8;
}
