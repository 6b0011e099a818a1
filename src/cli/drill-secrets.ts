/**
 * The secrets of an erasure drill, made from a seed: whoever looks for them has to know them, and the process that they
 * are looked for in must not keep them.
 */
import { hash } from "node:crypto";
import { type Randomness, systemRandomness } from "../host/randomness.ts";
import { deriveSubkey } from "../keys/derive.ts";
import { KEY_BYTES } from "../keys/master-key.ts";
import type { TenantId } from "../tenant/tenant-id.ts";

/** How the texts of all rows begin, which is nowhere else. */
export function drillPrefix(seed: string): string {
  return `Drill${hash("sha256", `${seed} rows`).slice(0, 16)}`;
}

/** Text of a row. */
export function drillText(seed: string, index: number): string {
  return `${drillPrefix(seed)}${String(index).padStart(6, "0")}`;
}

function drillKey(seed: string, index: number): Buffer {
  return hash("sha256", `${seed} key ${index}`, "buffer");
}

/** Randomness whose keys follow from the seed, in the order in which they are drawn; all else is random. */
export function drillRandomness(seed: string): Randomness & { readonly keysDrawn: number } {
  const others = systemRandomness();
  let keysDrawn = 0;
  return {
    get keysDrawn() {
      return keysDrawn;
    },
    bytes(size) {
      if (size !== KEY_BYTES) return others.bytes(size);
      keysDrawn += 1;
      return drillKey(seed, keysDrawn - 1);
    },
  };
}

/** A secret under the forms in which memory or a file may hold it. */
export interface Needle {
  readonly name: string;
  readonly forms: readonly Buffer[];
}

export function textNeedle(name: string, text: string): Needle {
  return { name, forms: [Buffer.from(text, "latin1"), Buffer.from(text, "utf16le")] };
}

/** The keys that were drawn from `from` on and before `to`, and what is derived from them, as bytes and in hexadecimal. */
export function keyNeedles(seed: string, tenant: TenantId, range: { from: number; to: number }): Needle[] {
  const needles: Needle[] = [];
  for (let index = range.from; index < range.to; index += 1) {
    const key = drillKey(seed, index);
    const derived = (["log", "projection"] as const).flatMap((purpose) =>
      [1, 2].map((version) => deriveSubkey(key, purpose, tenant, version)),
    );
    for (const [at, bytes] of [key, ...derived].entries()) {
      // Half of a key is enough to be found; the hexadecimal form is how SQLite is told a key.
      const half = bytes.subarray(0, 16);
      const forms = [half, Buffer.from(half.toString("hex"), "latin1")];
      needles.push({ name: `key ${index}${at === 0 ? "" : `, derived ${at}`}`, forms });
    }
  }
  return needles;
}

/** Looks for needles in a piece of memory or of a file; cost: one pass over it for each form. */
export function findNeedles(bytes: Buffer, needles: readonly Needle[], found: Map<string, number>): void {
  for (const { name, forms } of needles) {
    for (const form of forms) {
      for (let at = bytes.indexOf(form); at >= 0; at = bytes.indexOf(form, at + form.length))
        found.set(name, (found.get(name) ?? 0) + 1);
    }
  }
}
