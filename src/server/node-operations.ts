/** Operations that concern the node, and who is asking. */
import { Type } from "typebox";
import { CLOSED, type Operation, operation } from "./operation.ts";
import { Decimal, NodeSchema } from "./shapes.ts";

const whoAmI = operation({
  id: "whoami",
  method: "GET",
  path: "/v1/whoami",
  action: "authenticated",
  summary: "Who the credential speaks for",
  answer: Type.Object(
    {
      kind: Type.Union([Type.Literal("tenant"), Type.Literal("operator")]),
      actor: Type.String(),
      credential: Type.String({ description: "the credential's id, which is public" }),
      tenant: Type.Optional(Decimal),
      role: Type.Optional(
        Type.Union([Type.Literal("reader"), Type.Literal("writer"), Type.Literal("admin")]),
      ),
    },
    CLOSED,
  ),
  run: async ({ principal }) => {
    const { kind, actor, credential } = principal;
    const within = principal.kind === "tenant" ? { tenant: principal.tenant, role: principal.role } : {};
    return { kind, actor, credential: credential.id, ...within };
  },
});

const describe = operation({
  id: "node.describe",
  method: "GET",
  path: "/v1/node",
  action: "node.read",
  summary: "What the node holds",
  answer: NodeSchema,
  run: async ({ db }) => db.stats(),
});

const verifierKey = operation({
  id: "node.verifierKey",
  method: "GET",
  path: "/v1/verifier-key",
  action: "authenticated",
  summary: "The public key that checkpoints, exports and certificates verify under (C2SP)",
  answer: Type.Object({ verifierKey: Type.String() }, CLOSED),
  run: async ({ db }) => ({ verifierKey: db.verifierKey() }),
});

export const NODE_OPERATIONS: readonly Operation[] = [whoAmI, describe, verifierKey];
