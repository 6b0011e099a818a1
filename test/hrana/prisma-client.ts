/**
 * Prisma's client for the schema in `prisma-schema.json`, as its generator (7.10, `prisma-client`) makes it: there `Patient`
 * and their `Visit`s. The generator itself is not a dependency, for it downloads an engine for migrations that its client
 * does not have; with `PRISMA_SCHEMA_ENGINE_BINARY=/bin/true prisma generate` it makes the same anew, and what is in the
 * JSON is the configuration in its `internal/class.ts`.
 */
import { readFileSync } from "node:fs";
import { PrismaLibSql } from "@prisma/adapter-libsql";
import { type GetPrismaClientConfig, getPrismaClient } from "@prisma/client/runtime/client";

type Options = Readonly<Record<string, unknown>>;
export type Found = Readonly<Record<string, unknown>>;

/** The part of a model's operations that is used. */
interface Model {
  create(options: Options): Promise<Found>;
  createMany(options: Options): Promise<{ readonly count: number }>;
  update(options: Options): Promise<Found>;
  upsert(options: Options): Promise<Found>;
  delete(options: Options): Promise<Found>;
  findMany(options?: Options): Promise<Found[]>;
  groupBy(options: Options): Promise<Found[]>;
  count(): Promise<number>;
}

interface Models {
  readonly patient: Model;
  readonly visit: Model;
}

export interface Prisma extends Models {
  $transaction<T>(work: (models: Models) => Promise<T>): Promise<T>;
  $transaction(work: readonly Promise<Found>[]): Promise<Found[]>;
  $queryRaw(text: TemplateStringsArray, ...values: readonly unknown[]): Promise<Found[]>;
  $disconnect(): Promise<void>;
}

const schema = JSON.parse(
  readFileSync(new URL("prisma-schema.json", import.meta.url), "utf8"),
) as GetPrismaClientConfig;

const COMPILER = "query_compiler_fast_bg.sqlite";
/** These have no types. */
const importRuntime = (name: string): Promise<never> =>
  import(`@prisma/client/runtime/${name}`) as Promise<never>;
const { WebAssembly } = globalThis as unknown as {
  readonly WebAssembly: { readonly Module: new (bytes: Uint8Array) => object };
};

export function prismaClient(url: string, authToken: string): Prisma {
  const Client = getPrismaClient({
    ...schema,
    previewFeatures: [],
    activeProvider: "sqlite",
    compilerWasm: {
      getRuntime: async () => importRuntime(`${COMPILER}.mjs`),
      getQueryCompilerWasmModule: async () => {
        const { wasm } = (await importRuntime(`${COMPILER}.wasm-base64.mjs`)) as { readonly wasm: string };
        return new WebAssembly.Module(Buffer.from(wasm, "base64"));
      },
      importName: "./query_compiler_fast_bg.js",
    },
  });
  return new Client({
    adapter: new PrismaLibSql({ url, authToken, intMode: "bigint" }),
  }) as unknown as Prisma;
}
