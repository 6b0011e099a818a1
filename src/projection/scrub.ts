/** Overwriting what the process freed, through the guard, which has the allocator at hand. */
import Database from "better-sqlite3-multiple-ciphers";
import { installGuard } from "./guard.ts";

/** @returns false where the platform's allocator does not let it */
export function scrubFreedMemory(): boolean {
  const db = new Database(":memory:");
  try {
    return installGuard(db, { maxValueBytes: 1_000, maxSqlBytes: 1_000 }).scrubMemory();
  } finally {
    db.close();
  }
}
