/** The published description of the admin API: valid OpenAPI 3.1, made of the schemas that check, and complete. */
import { Validator } from "@seriousme/openapi-schema-validator";
import { expect, it } from "vitest";
import { openApiDocument } from "../../src/server/openapi.ts";
import { OPERATIONS } from "../../src/server/operations.ts";
import { startServed } from "./served.ts";

interface Document extends Record<string, unknown> {
  readonly openapi: string;
  readonly paths: Readonly<Record<string, Readonly<Record<string, { readonly operationId: string }>>>>;
}

it("is served to anyone, is valid, and has every operation once", async () => {
  await using served = await startServed();
  const response = await fetch(`${served.url}/v1/openapi.json`);
  expect(response.headers.get("content-type")).toMatch(/^application\/json/);
  const document = (await response.json()) as Document;
  expect(document).toEqual(JSON.parse(JSON.stringify(openApiDocument(OPERATIONS))));
  expect(await new Validator().validate(structuredClone(document))).toEqual({ valid: true });
  expect(document.openapi).toBe("3.1.1");
  const ids = Object.values(document.paths).flatMap((path) =>
    Object.values(path).map((one) => one.operationId),
  );
  expect(ids.toSorted()).toEqual(OPERATIONS.map(({ id }) => id).toSorted());
  expect(new Set(ids).size).toBe(ids.length);
});

it("a document that is not OpenAPI is found", async () => {
  const document = structuredClone(openApiDocument(OPERATIONS)) as { paths: Record<string, unknown> };
  document.paths["/v1/bad"] = { get: { responses: 7 } };
  expect(await new Validator().validate(document)).toMatchObject({ valid: false });
});
