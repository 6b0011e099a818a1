/** Asks the admin API as any HTTP client would, and holds each answer against the published schema. */
import { Compile } from "typebox/compile";
import { expect } from "vitest";
import { ERROR_CODES, type ErrorCode } from "../../src/errors.ts";
import { OPERATIONS } from "../../src/server/operations.ts";
import type { Served } from "./served.ts";

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  /** What was answered; of a refusal, its problem. */
  readonly body: Record<string, unknown> & { readonly code?: ErrorCode };
}

export type Api = (
  method: string,
  path: string,
  body?: unknown,
  headers?: Record<string, string>,
) => Promise<Answer>;

/** A client with a token, or without. */
export function apiOf({ url }: Pick<Served, "url">, token?: string): Api {
  return async (method, path, body, headers = {}) => {
    const response = await fetch(`${url}${path}`, {
      method,
      headers: {
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const answer = (await response.json()) as Answer["body"];
    check(method, path, response, answer);
    return { status: response.status, headers: response.headers, body: answer };
  };
}

function check(method: string, path: string, response: Response, body: Answer["body"]): void {
  expect(response.headers.get("x-request-id")).toMatch(/^[\w.:-]{1,64}$/);
  if (!response.ok) {
    expect(response.headers.get("content-type")).toBe("application/problem+json");
    expect(ERROR_CODES[body.code as ErrorCode].httpStatus, JSON.stringify(body)).toBe(response.status);
    return;
  }
  const { pathname } = new URL(path, "http://localhost");
  const operation = OPERATIONS.find((one) => one.method === method && patternOf(one.path).test(pathname));
  if (operation === undefined) throw new Error(`${method} ${path} is in no table`);
  expect(response.status).toBe(operation.status ?? 200);
  expect([...Compile(operation.answer).Errors(body)], `answer of ${operation.id}`).toEqual([]);
}

function patternOf(path: string): RegExp {
  return new RegExp(`^${path.replaceAll(/\{\w+\}/g, "[^/]+")}$`);
}
