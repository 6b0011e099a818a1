/**
 * Who may do what: one table, one pure decision.
 *
 * A tenant's principal acts on its own tenant alone. An operator runs the node and has no action that reads a tenant's
 * rows, events or audit stream, or that would give somebody else a credential of a tenant that holds anything.
 */
import { kimberliteError } from "../errors.ts";
import type { TenantId } from "../tenant/tenant-id.ts";
import type { Principal, TenantPrincipal, TenantRole } from "./principal.ts";

/** Least role of the tenant that may do it, or "nobody" of a tenant; and whether an operator may. */
interface Rule {
  readonly tenant: TenantRole | "nobody";
  readonly operator: boolean;
  /** It concerns the node: no tenant is named. */
  readonly node?: true;
}

/** What is asked for, as `<object>.<verb>`. */
export type Action =
  | "sql.read"
  | "sql.write"
  | "sql.schema"
  | "stream.read"
  | "stream.append"
  | "stream.create"
  | "shared.read"
  | "grant.create"
  | "grant.revoke"
  | "grant.list"
  | "audit.read"
  | "tenant.export"
  | "subject.list"
  | "subject.declare"
  | "subject.erase"
  | "token.create"
  | "token.list"
  | "token.revoke"
  | "token.enrol"
  | "issuer.register"
  | "issuer.list"
  | "issuer.remove"
  | "proof.read"
  | "tenant.verify"
  | "tenant.describe"
  | "job.read"
  | "key.list"
  | "key.rotate"
  | "key.reencrypt"
  | "key.move"
  | "retention.set"
  | "hold.place"
  | "hold.release"
  | "tenant.trim"
  | "tenant.erase"
  | "erasure.read"
  | "tenant.suspend"
  | "tenant.resume"
  | "tenant.rebuild"
  | "quota.set"
  | "tenant.create"
  | "tenant.import"
  | "tenant.restore"
  | "tenant.list"
  | "node.read"
  | "node.audit"
  | "node.backup"
  | "node.tokens"
  | "key.rotate-master";

const RULES: Readonly<Record<Action, Rule>> = {
  /** Rows and time travel. */
  "sql.read": { tenant: "reader", operator: false },
  "sql.write": { tenant: "writer", operator: false },
  /** CREATE, ALTER, DROP. */
  "sql.schema": { tenant: "admin", operator: false },
  "stream.read": { tenant: "reader", operator: false },
  "stream.append": { tenant: "writer", operator: false },
  "stream.create": { tenant: "admin", operator: false },
  /** What another tenant shares. */
  "shared.read": { tenant: "reader", operator: false },
  "grant.create": { tenant: "admin", operator: false },
  "grant.revoke": { tenant: "admin", operator: false },
  "grant.list": { tenant: "admin", operator: false },
  "audit.read": { tenant: "admin", operator: false },
  /** In clear text. */
  "tenant.export": { tenant: "admin", operator: false },
  "subject.list": { tenant: "admin", operator: false },
  "subject.declare": { tenant: "admin", operator: false },
  "subject.erase": { tenant: "admin", operator: false },
  "token.create": { tenant: "admin", operator: false },
  "token.list": { tenant: "admin", operator: false },
  "token.revoke": { tenant: "admin", operator: false },
  /** The one key of a tenant that has neither data nor a credential; it can make the first key and nothing else. */
  "token.enrol": { tenant: "nobody", operator: true },
  "issuer.register": { tenant: "admin", operator: false },
  "issuer.list": { tenant: "admin", operator: false },
  "issuer.remove": { tenant: "admin", operator: false },
  /** Checkpoints and proofs: hashes alone. */
  "proof.read": { tenant: "reader", operator: true },
  "tenant.verify": { tenant: "reader", operator: true },
  /** Name, region, state, sizes, quota, holds. */
  "tenant.describe": { tenant: "reader", operator: true },
  /** Each of the work that it may ask for itself. */
  "job.read": { tenant: "reader", operator: true },
  "key.list": { tenant: "admin", operator: true },
  "key.rotate": { tenant: "admin", operator: true },
  "key.reencrypt": { tenant: "admin", operator: true },
  /** Under a master key of the tenant's own, which holds the operator off. */
  "key.move": { tenant: "admin", operator: false },
  "retention.set": { tenant: "admin", operator: true },
  "hold.place": { tenant: "admin", operator: true },
  "hold.release": { tenant: "admin", operator: true },
  "tenant.trim": { tenant: "admin", operator: true },
  "tenant.erase": { tenant: "admin", operator: true },
  "erasure.read": { tenant: "admin", operator: true },
  "tenant.suspend": { tenant: "nobody", operator: true },
  "tenant.resume": { tenant: "nobody", operator: true },
  "tenant.rebuild": { tenant: "nobody", operator: true },
  "quota.set": { tenant: "nobody", operator: true },
  "tenant.create": { tenant: "nobody", operator: true, node: true },
  "tenant.import": { tenant: "nobody", operator: true, node: true },
  "tenant.restore": { tenant: "nobody", operator: true, node: true },
  "tenant.list": { tenant: "nobody", operator: true, node: true },
  "node.read": { tenant: "nobody", operator: true, node: true },
  "node.audit": { tenant: "nobody", operator: true, node: true },
  "node.backup": { tenant: "nobody", operator: true, node: true },
  "node.tokens": { tenant: "nobody", operator: true, node: true },
  "key.rotate-master": { tenant: "nobody", operator: true, node: true },
};

export const ACTIONS: readonly Action[] = Object.keys(RULES) as Action[];

/** What a principal that is scoped to a grant may do. */
const SCOPED_TO_GRANT: ReadonlySet<Action> = new Set(["shared.read"]);
/** What a principal may do that came with a tenant's enrolment. */
const ENROLMENT: ReadonlySet<Action> = new Set(["token.create"]);

const RANK = { reader: 1, writer: 2, admin: 3, nobody: 4 } as const;

/** True if the principal may do it to the tenant; a node's action names none. */
export function isAuthorized(principal: Principal, action: Action, tenant: TenantId | undefined): boolean {
  if (!Object.hasOwn(RULES, action)) return false;
  const rule = RULES[action];
  if ((rule.node === true) !== (tenant === undefined)) return false;
  if (principal.kind === "operator") return rule.operator;
  if (tenant === undefined || principal.tenant !== tenant) return false;
  return isInScope(principal, action) && RANK[principal.role] >= RANK[rule.tenant];
}

/** @throws `not_authorized`, which says nothing about whether the tenant exists */
export function authorize(principal: Principal, action: Action, tenant: TenantId | undefined): void {
  if (isAuthorized(principal, action, tenant)) return;
  throw kimberliteError("not_authorized", "the credential does not allow this", { detail: { action } });
}

function isInScope(principal: TenantPrincipal, action: Action): boolean {
  if (principal.grant !== undefined && !SCOPED_TO_GRANT.has(action)) return false;
  return principal.enrolment !== true || ENROLMENT.has(action);
}
