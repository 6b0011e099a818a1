/** Every action against every kind of principal: what is allowed is written down here once more, by hand. */
import { describe, expect, it } from "vitest";
import { TenantId } from "../tenant/tenant-id.ts";
import { ACTIONS, type Action, authorize, isAuthorized } from "./authorize.ts";
import type { OperatorPrincipal, TenantPrincipal, TenantRole } from "./principal.ts";

const OWN = TenantId(1);
const OTHER = TenantId(2);

const operator: OperatorPrincipal = {
  kind: "operator",
  actor: "op",
  credential: { kind: "api_key", id: "o" },
};

function of(role: TenantRole, extra: Partial<TenantPrincipal> = {}): TenantPrincipal {
  return {
    kind: "tenant",
    tenant: OWN,
    role,
    actor: "a",
    credential: { kind: "api_key", id: "k" },
    ...extra,
  };
}

/** Action → who may: reader, writer, admin of the tenant, operator. */
const TABLE: Readonly<Record<Action, string>> = {
  "sql.read": "rwa-",
  "sql.write": "-wa-",
  "sql.schema": "--a-",
  "stream.read": "rwa-",
  "stream.append": "-wa-",
  "stream.create": "--a-",
  "shared.read": "rwa-",
  "grant.create": "--a-",
  "grant.revoke": "--a-",
  "grant.list": "--a-",
  "audit.read": "--a-",
  "tenant.export": "--a-",
  "subject.list": "--a-",
  "subject.declare": "--a-",
  "subject.erase": "--a-",
  "token.create": "--a-",
  "token.list": "--a-",
  "token.revoke": "--a-",
  "token.enrol": "---o",
  "issuer.register": "--a-",
  "issuer.list": "--a-",
  "issuer.remove": "--a-",
  "proof.read": "rwao",
  "tenant.verify": "rwao",
  "tenant.describe": "rwao",
  "job.read": "rwao",
  "key.list": "--ao",
  "key.rotate": "--ao",
  "key.reencrypt": "--ao",
  "key.move": "--a-",
  "retention.set": "--ao",
  "hold.place": "--ao",
  "hold.release": "--ao",
  "tenant.trim": "--ao",
  "tenant.erase": "--ao",
  "erasure.read": "--ao",
  "tenant.suspend": "---o",
  "tenant.resume": "---o",
  "tenant.rebuild": "---o",
  "quota.set": "---o",
  "tenant.create": "---O",
  "tenant.import": "---O",
  "tenant.restore": "---O",
  "tenant.list": "---O",
  "node.read": "---O",
  "node.audit": "---O",
  "node.backup": "---O",
  "node.tokens": "---O",
  "key.rotate-master": "---O",
};

describe("the decision", () => {
  it.each(ACTIONS)("%s", (action) => {
    const row = TABLE[action];
    const node = row.endsWith("O");
    const target = node ? undefined : OWN;
    const roles = (["reader", "writer", "admin"] as const).map((role) =>
      isAuthorized(of(role), action, target) ? role[0] : "-",
    );
    const last = isAuthorized(operator, action, target) ? (node ? "O" : "o") : "-";
    expect([...roles, last].join("")).toBe(row);
  });

  it("is never for another tenant, nor for a tenant where the node is meant, nor the other way round", () => {
    for (const action of ACTIONS) {
      for (const role of ["reader", "writer", "admin"] as const) {
        expect(isAuthorized(of(role), action, OTHER)).toBe(false);
        expect(isAuthorized(of(role), action, undefined)).toBe(false);
      }
      const node = TABLE[action].endsWith("O");
      expect(isAuthorized(operator, action, node ? OWN : undefined)).toBe(false);
    }
  });

  it("lets a token scoped to a grant, and an enrolment, do their one thing", () => {
    for (const action of ACTIONS) {
      expect(isAuthorized(of("admin", { grant: "g" }), action, OWN)).toBe(action === "shared.read");
      expect(isAuthorized(of("admin", { enrolment: true }), action, OWN)).toBe(action === "token.create");
    }
  });

  it("refuses what is no action, with a code", () => {
    for (const nonsense of ["", "sql", "toString", "__proto__", "constructor"]) {
      expect(isAuthorized(operator, nonsense as Action, undefined)).toBe(false);
    }
    expect(() => authorize(operator, "sql.read", OWN)).toThrow(
      expect.objectContaining({ code: "not_authorized", detail: { action: "sql.read" } }),
    );
    expect(() => authorize(of("reader"), "sql.read", OWN)).not.toThrow();
  });
});
