/** A server in the place of the library: how long data lives and how it ends, persons in it, and issuers of JWTs. */
import type { KimberliteClient } from "../client/client.ts";
import { toTyped } from "../server/typed-value.ts";
import type { Node } from "./node.ts";
import { type Answer, of, requireNoReason, revive, why } from "./server-answers.ts";

type InRecords = { readonly doneRecords: bigint; readonly totalRecords: bigint };

/** Progress as the library tells it. */
function inRecords(onProgress: ((progress: InRecords) => void) | undefined) {
  return {
    onProgress: ({ done, total = done }: { readonly done: number; readonly total?: number }) =>
      onProgress?.({ doneRecords: BigInt(done), totalRecords: BigInt(total) }),
  };
}

export function lifecycleOver(
  client: KimberliteClient,
): Pick<
  Node,
  | "eraseTenant"
  | "erasureCertificate"
  | "setRetention"
  | "trimTenant"
  | "reencryptTenant"
  | "setTenantMasterKey"
> {
  return {
    eraseTenant: async (id, { reason, overrideRetention = false, keepCiphertext = false }) => {
      const body = { reason, overrideRetention, keepCiphertext };
      // A certificate is text and numbers, in the library too.
      return (await client.call("erasure.erase", { ...of(id), body })) as Answer<"eraseTenant">;
    },
    erasureCertificate: async (id) =>
      (await client.call("erasure.certificate", of(id))) as Answer<"erasureCertificate">,
    setRetention: async (id, retention, options) => {
      const mode = options?.mode === undefined ? {} : { mode: options.mode };
      const body = { retentionMs: retention.ms, ...mode, ...why(options) };
      return revive<Answer<"setRetention">>(await client.call("retention.set", { ...of(id), body }), ["id"]);
    },
    trimTenant: async (id, { reason, before, overrideRetention = false, onProgress }) => {
      const until = before === undefined ? {} : { before: before.toISOString() };
      const body = { reason, overrideRetention, ...until };
      const done = await client.run("tenants.trim", { ...of(id), body }, inRecords(onProgress));
      return revive<Answer<"trimTenant">>(done, ["firstOffset", "trimmed"]);
    },
    reencryptTenant: async (id, options) => {
      const { destroyFormerKeys = false, onProgress } = options ?? {};
      const body = { destroyFormerKeys, ...why(options) };
      const done = await client.run("keys.reencrypt", { ...of(id), body }, inRecords(onProgress));
      return revive<Answer<"reencryptTenant">>(done, ["records"]);
    },
    setTenantMasterKey: async (id, uri, options) =>
      revive<Answer<"setTenantMasterKey">>(
        await client.call("keys.move", { ...of(id), body: { uri, ...why(options) } }),
        ["id"],
      ),
  };
}

export function subjectsOver(
  client: KimberliteClient,
): Pick<Node, "declareSubject" | "subjects" | "subjectCertificates" | "eraseSubject"> {
  return {
    declareSubject: async (id, { table, column }, options) => {
      const body = { table, column, ...why(options) };
      const declared = await client.call("subjects.declare", { ...of(id), body });
      return { ...declared, declaredAt: BigInt(declared.declaredAt) };
    },
    subjects: async (id) =>
      (await client.call("subjects.list", of(id))).items.map((one) => ({
        ...one,
        declaredAt: BigInt(one.declaredAt),
      })),
    subjectCertificates: async (id) =>
      (await client.call("subjects.certificates", of(id))).items as Answer<"subjectCertificates">,
    eraseSubject: async (id, subject, { reason, overrideRetention = false }) => {
      const body = { subject: toTyped(subject), reason, overrideRetention };
      return (await client.run("subjects.erase", { ...of(id), body })) as Answer<"eraseSubject">;
    },
  };
}

export function issuersOver(
  client: KimberliteClient,
): Pick<Node, "registerIssuer" | "listIssuers" | "removeIssuer"> {
  type Issuer = Answer<"registerIssuer">;
  return {
    registerIssuer: async (id, { keys, maxLife, ...config }, options) => {
      const given = keys === undefined ? {} : { keys: keys.map((key) => ({ ...key })) };
      const life = maxLife === undefined ? {} : { maxLifeMs: maxLife.ms };
      const body = { ...config, ...given, ...life, ...why(options) };
      return revive<Issuer>(await client.call("issuers.register", { ...of(id), body }), ["tenant"]);
    },
    listIssuers: async (id) =>
      revive<Issuer[]>((await client.call("issuers.list", of(id))).items, ["tenant"]),
    removeIssuer: async (id, issuer, options) => {
      requireNoReason(options, "the end of an issuer");
      await client.call("issuers.remove", { ...of(id), query: { issuer } });
    },
  };
}
