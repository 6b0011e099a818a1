/**
 * Writes `src/client/calls.ts`: what each operation of the admin API takes and gives, as the table of operations says it.
 *
 * `npm run docs:client` after a change to an operation.
 */
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Operation } from "../src/server/operation.ts";
import { OPERATIONS } from "../src/server/operations.ts";

const FILE = new URL("../src/client/calls.ts", import.meta.url);

interface Json {
  readonly type?: string;
  readonly const?: unknown;
  readonly anyOf?: readonly Json[];
  readonly items?: Json;
  readonly properties?: Readonly<Record<string, Json>>;
  readonly required?: readonly string[];
  readonly patternProperties?: Readonly<Record<string, Json>>;
}

/** The text of the file, not yet formatted. */
export function clientCalls(): string {
  const routes = OPERATIONS.map(({ id, method, path }) => `${JSON.stringify(id)}: ["${method}", "${path}"],`);
  const [answered, streamed] = [
    OPERATIONS.filter(({ streams }) => streams === undefined),
    OPERATIONS.filter(({ streams }) => streams !== undefined),
  ];
  return `/**
 * What each operation of the admin API takes and gives. Written by \`npm run docs:client\` from the table of operations
 * that the server validates with; not by hand.
 *
 * Over 500 lines because there are many operations.
 */

/** Method and path of an operation. */
export type Route = readonly [method: "GET" | "POST" | "PUT" | "DELETE", path: string];

export const ROUTES: Readonly<Record<keyof Calls | keyof Streams, Route>> = {
${routes.join("\n")}
};

/** Operations that answer once. */
export interface Calls {
${answered.map((operation) => `${documented(operation)} readonly ${JSON.stringify(operation.id)}: { readonly input: ${inputOf(operation)}; readonly answer: ${typeOf(toJson(operation.answer))} };`).join("\n")}
}

/** Operations that may take long. */
export type Lasting =
${OPERATIONS.filter(({ lasting }) => lasting === true)
  .map(({ id }) => `  | ${JSON.stringify(id)}`)
  .join("\n")};

/** Operations that send as they go. */
export interface Streams {
${streamed.map((operation) => `${documented(operation)} readonly ${JSON.stringify(operation.id)}: { readonly input: ${inputOf(operation)} };`).join("\n")}
}
`;
}

function documented({ summary }: Operation): string {
  return `/** ${summary}. */\n`;
}

function inputOf({ path, params, query, body }: Operation): string {
  const ofPath = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => `readonly ${name}: string`);
  const parts = [
    ...(ofPath.length === 0 ? [] : [`readonly params: { ${ofPath.join("; ")} }`]),
    ...part("query", toJson(query)),
    ...(body === undefined ? [] : part("body", toJson(body))),
  ];
  return params === undefined || parts.length === 0
    ? "Readonly<Record<string, never>>"
    : `{ ${parts.join("; ")} }`;
}

function part(name: string, schema: Json): readonly string[] {
  if (Object.keys(schema.properties ?? {}).length === 0) return [];
  const optional = (schema.required ?? []).length === 0 ? "?" : "";
  return [`readonly ${name}${optional}: ${typeOf(schema)}`];
}

function typeOf(schema: Json): string {
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.anyOf !== undefined) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.type === "array") return `readonly (${typeOf(schema.items ?? {})})[]`;
  if (schema.type === "object") return objectOf(schema);
  if (schema.type === "integer" || schema.type === "number") return "number";
  if (schema.type === "string" || schema.type === "boolean" || schema.type === "null") return schema.type;
  return "unknown";
}

function objectOf({ properties = {}, required = [], patternProperties }: Json): string {
  const [values] = Object.values(patternProperties ?? {});
  if (values !== undefined) return `Readonly<Record<string, ${typeOf(values)}>>`;
  const fields = Object.entries(properties).map(
    ([name, field]) => `readonly ${name}${required.includes(name) ? "" : "?"}: ${typeOf(field)}`,
  );
  return fields.length === 0 ? "Readonly<Record<string, never>>" : `{ ${fields.join("; ")} }`;
}

function toJson(schema: unknown): Json {
  return JSON.parse(JSON.stringify(schema)) as Json;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(FILE, clientCalls());
