/** A user's JavaScript: the public names are there and behave at first touch. */
import assert from "node:assert/strict";
import { Duration, Kimberlite, masterKeyFile, Region, StreamId, TenantId } from "kimberlite";

assert.equal(TenantId(1), 1n);
assert.equal(StreamId(TenantId(1), 2).local, 2);
assert.throws(() => TenantId(0), { code: "invalid_argument" });
assert.equal(typeof Kimberlite.open, "function");
assert.equal(typeof masterKeyFile, "function");
assert.equal(Duration.days(1).ms, 86_400_000);
assert.ok(Region.UsEast);
await assert.rejects(import("kimberlite/dist/errors.js"), { code: "ERR_PACKAGE_PATH_NOT_EXPORTED" });
