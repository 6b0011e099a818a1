/**
 * An emulator of Amazon S3, for tests: put, get, list and delete of objects, as the official SDK asks for them.
 *
 * It checks what the service documents: AWS Signature Version 4 of every request, checksums of what is put, pages of
 * lists, shapes of errors. It is not S3: nothing here shows how the real service behaves beyond its documents.
 */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { CREDENTIALS, REGION, requireSignature } from "./aws-kms.ts";

const PAGE = 50;

export class S3Emulator implements AsyncDisposable {
  /** By bucket and key. */
  readonly objects: Map<string, Buffer> = new Map();
  /** The next so many calls fail inside the service. */
  internalErrors = 0;
  denied = false;
  /** Puts are refused for keys that hold this. */
  refusePuts: string | undefined;
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(): Promise<S3Emulator> {
    const server = createServer();
    const emulator = new S3Emulator(server);
    server.on("request", (request, response) => void emulator.#serve(request, response));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return emulator;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  uriOf(bucket: string, prefix: string): string {
    return `s3://${bucket}/${prefix}?region=${REGION}&endpoint=${this.endpoint}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks);
    try {
      requireSignature(request, body, { name: "s3", credentials: CREDENTIALS });
    } catch (error) {
      return refuse(response, 403, "SignatureDoesNotMatch", String(error));
    }
    if (this.denied) return refuse(response, 403, "AccessDenied", "Access Denied");
    if (this.internalErrors > 0) {
      this.internalErrors -= 1;
      return refuse(response, 500, "InternalError", "We encountered an internal error. Please try again.");
    }
    this.#answer(request, response, body);
  }

  #answer(request: IncomingMessage, response: ServerResponse, body: Buffer): void {
    const url = new URL(request.url ?? "/", "http://host");
    const key = decodeURIComponent(url.pathname.slice(1));
    switch (request.method) {
      case "PUT": {
        const sum = createHash("sha256").update(body).digest("base64");
        if (request.headers["x-amz-checksum-sha256"] !== sum)
          return refuse(response, 400, "BadDigest", "checksum");
        if (this.refusePuts !== undefined && key.includes(this.refusePuts))
          return refuse(response, 507, "InsufficientStorage", "full");
        this.objects.set(key, body);
        return void response.writeHead(200).end();
      }
      case "GET":
        return url.searchParams.has("list-type") ? this.#list(url, response) : this.#get(key, response);
      case "DELETE":
        this.objects.delete(key);
        return void response.writeHead(204).end();
      default:
        return refuse(response, 405, "MethodNotAllowed", "");
    }
  }

  #get(key: string, response: ServerResponse): void {
    const bytes = this.objects.get(key);
    if (bytes === undefined) return refuse(response, 404, "NoSuchKey", "The specified key does not exist.");
    response.writeHead(200, { "content-length": bytes.length }).end(bytes);
  }

  #list(url: URL, response: ServerResponse): void {
    const bucket = `${url.pathname.slice(1).replace(/\/$/, "")}/`;
    const wanted = bucket + (url.searchParams.get("prefix") ?? "");
    const after = url.searchParams.get("continuation-token") ?? "";
    const all = [...this.objects.keys()].filter((key) => key.startsWith(wanted) && key > after).sort();
    const page = all.slice(0, PAGE);
    const more = all.length > PAGE;
    const contents = page
      .map((key) => `<Contents><Key>${key.slice(bucket.length)}</Key></Contents>`)
      .join("");
    const next = more ? `<NextContinuationToken>${page.at(-1)}</NextContinuationToken>` : "";
    response.writeHead(200, { "content-type": "application/xml" });
    response.end(
      `<?xml version="1.0"?><ListBucketResult><IsTruncated>${more}</IsTruncated>${next}${contents}</ListBucketResult>`,
    );
  }
}

function refuse(response: ServerResponse, status: number, code: string, message: string): void {
  response.writeHead(status, { "content-type": "application/xml" });
  response.end(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>${message}</Message></Error>`);
}
