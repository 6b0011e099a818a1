import { createHmac } from "node:crypto";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { SYSTEM_TENANT, TenantId } from "../tenant/tenant-id.ts";
import { deriveSubkey, type SubkeyPurpose } from "./derive.ts";

const DEK = Buffer.from(Array.from({ length: 32 }, (_, index) => index));
const PURPOSES: readonly SubkeyPurpose[] = ["log", "projection", "export"];

/** HKDF of RFC 5869 for one block of output, written out from the RFC. */
function hkdfOneBlock(ikm: Buffer, info: Buffer): Buffer {
  const prk = createHmac("sha256", Buffer.alloc(32)).update(ikm).digest();
  return createHmac("sha256", prk).update(info).update(Buffer.of(1)).digest();
}

describe("deriveSubkey", () => {
  it("is HKDF-SHA-256 over the documented info", () => {
    const info = Buffer.concat([
      Buffer.from("kimberlite/v1/projection"),
      Buffer.from("0807060504030201", "hex"),
      Buffer.from("04030201", "hex"),
    ]);
    const subkey = deriveSubkey(DEK, "projection", TenantId(0x0102030405060708n), 0x01020304);
    expect(subkey).toEqual(hkdfOneBlock(DEK, info));
  });

  it("never changes: data of earlier versions is encrypted under these keys", () => {
    const hex = (purpose: SubkeyPurpose): string =>
      deriveSubkey(DEK, purpose, TenantId(1), 1).toString("hex");
    expect(PURPOSES.map(hex)).toMatchInlineSnapshot(`
      [
        "c88c60d855908f6f885250027a543312ed9e8333aaff7e23964ac84e7e255bb9",
        "d3ff81303cd61339d11e6c27a7def0e856fca89741d2b1aaf9f19d5302af6812",
        "d62146ee6349aeb3b9a377ca55117242f5e4364a9714db038ebb3d36b5b1537f",
      ]
    `);
  });

  it("gives each purpose, tenant and version a key of its own", () => {
    const place = fc.record({
      purpose: fc.constantFrom(...PURPOSES),
      tenant: fc.oneof(
        fc.constant(SYSTEM_TENANT),
        fc.bigInt({ min: 1n, max: 2n ** 63n - 1n }).map((id) => TenantId(id)),
      ),
      version: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
    });
    fc.assert(
      fc.property(place, place, (a, b) => {
        const same = a.purpose === b.purpose && a.tenant === b.tenant && a.version === b.version;
        const keyA = deriveSubkey(DEK, a.purpose, a.tenant, a.version);
        expect(keyA.equals(deriveSubkey(DEK, b.purpose, b.tenant, b.version))).toBe(same);
      }),
    );
  });

  it("asserts the sizes of key and version", () => {
    expect(() => deriveSubkey(Buffer.alloc(31), "log", TenantId(1), 1)).toThrow("assertion failed");
    for (const version of [0, -1, 1.5, 2 ** 32]) {
      expect(() => deriveSubkey(DEK, "log", TenantId(1), version)).toThrow("assertion failed");
    }
  });
});
