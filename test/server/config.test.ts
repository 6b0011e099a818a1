/** Settings: one schema for file, environment and flags, and no name that it does not know. */
import { describe, expect, it } from "vitest";
import { DEFAULT_LIMITS } from "../../src/projection/connection.ts";
import { parseServerConfig } from "../../src/server/config.ts";
import { gatherSettings } from "../../src/server/setting-sources.ts";
import { openOptionsOf, type ServerSettings } from "../../src/server/settings.ts";

const file = (settings: unknown): Buffer => Buffer.from(JSON.stringify(settings));

describe("settings", () => {
  it("have defaults, and the later source wins", () => {
    const trustedProxies = ["127.0.0.1", "10.0.0.0/8", "fc00::/7", "loopback"];
    expect(parseServerConfig({ trustedProxies }).trustedProxies).toEqual(trustedProxies);
    expect(parseServerConfig()).toMatchObject({ host: "127.0.0.1", port: 8080, folders: {} });
    const settings = gatherSettings({
      file: file({ port: 1, host: "0.0.0.0", limits: { maxConnections: 7, maxBodyBytes: 9 } }),
      environment: {
        KIMBERLITE_SERVE_PORT: "2",
        KIMBERLITE_SERVE_LIMITS__MAX_CONNECTIONS: "8",
        KIMBERLITE_SERVE_TLS__CERT_FILE: "cert.pem",
        KIMBERLITE_TOKEN: "not a setting",
      },
      assignments: ["port=3", "tls.keyFile=key.pem", 'backupPlaces={"nightly":{"logs":"file:b"}}'],
    });
    expect(parseServerConfig(settings)).toMatchObject({
      host: "0.0.0.0",
      port: 3,
      tls: { certFile: "cert.pem", keyFile: "key.pem" },
      backupPlaces: { nightly: { logs: "file:b" } },
      limits: { maxConnections: 8, maxBodyBytes: 9, headersTimeoutMs: 10_000 },
    });
  });

  it("of the database reach it, each by its own name", () => {
    const settings = gatherSettings({
      file: file({ database: { maxOpenTenants: 7, maxResultRows: 10 } }),
      environment: { KIMBERLITE_SERVE_DATABASE__TIME_LIMIT_MS: "500" },
      assignments: ["database.maxOpenTenants=1016", "jwks.allowLoopback=true"],
    });
    expect(openOptionsOf(parseServerConfig(settings))).toEqual({
      maxOpenTenants: 1_016,
      limits: { ...DEFAULT_LIMITS, maxResultRows: 10, timeLimitMs: 500 },
      jwks: { allowLoopback: true, allowPrivateAddresses: false },
    });
  });

  it("that are unknown, or of the wrong kind, are refused wherever they are written", () => {
    const none = { environment: {}, assignments: [] };
    const refused = (gather: () => ServerSettings): void => {
      expect(() => parseServerConfig(gather())).toThrow(
        expect.objectContaining({ code: "invalid_argument" }),
      );
    };
    refused(() => gatherSettings({ ...none, file: file({ prot: 1 }) }));
    refused(() => gatherSettings({ ...none, file: file({ limits: { maxBody: 1 } }) }));
    expect(() =>
      parseServerConfig(gatherSettings({ ...none, file: file({ limits: { maxBody: 1 } }) })),
    ).toThrow("there is none of the name limits.maxBody");
    expect(() => gatherSettings({ ...none, file: Buffer.from("{bad") })).toThrow(
      "the configuration file is not JSON",
    );
    refused(() => gatherSettings({ ...none, file: file({ limits: 7 }) }));
    refused(() => gatherSettings({ ...none, file: file({ port: 65_536 }) }));
    refused(() => gatherSettings({ ...none, file: file({ tls: { certFile: "a" } }) }));
    refused(() => gatherSettings({ ...none, file: file({ database: { maxOpen: 1 } }) }));
    refused(() => gatherSettings({ ...none, file: file({ database: { maxOpenTenants: 0 } }) }));
    refused(() => gatherSettings({ ...none, file: file({ database: { timeLimitMs: 2 ** 31 } }) }));
    refused(() => gatherSettings({ ...none, assignments: ["database.dataDir=/"] }));
    refused(() => gatherSettings({ ...none, file: file([]) }));
    refused(() => gatherSettings({ ...none, file: file({ limits: { drainTimeoutMs: 2 ** 31 } }) }));
    refused(() => gatherSettings({ ...none, file: file({ limits: { idleTimeoutMs: 2 ** 33 } }) }));
    refused(() =>
      gatherSettings({ ...none, file: file({ limits: { headersTimeoutMs: 2, requestTimeoutMs: 1 } }) }),
    );
    for (const proxy of [
      "",
      "proxy.example",
      "10.0.0.1/33",
      "10.0.0.0/8/8",
      "10.0.0.0/x",
      "::1/129",
      "0x7f.1",
    ]) {
      refused(() => gatherSettings({ ...none, file: file({ trustedProxies: [proxy] }) }));
    }
    refused(() => gatherSettings({ ...none, file: Buffer.from('{"port":1,"port":2}') }));
    refused(() => gatherSettings({ ...none, environment: { KIMBERLITE_SERVE_PROT: "1" } }));
    refused(() => gatherSettings({ ...none, environment: { KIMBERLITE_SERVE_PORT: "x" } }));
    refused(() => gatherSettings({ ...none, environment: { KIMBERLITE_SERVE___PROTO__: "1" } }));
    refused(() => gatherSettings({ ...none, assignments: ["limits.constructor=1"] }));
    refused(() => gatherSettings({ ...none, assignments: ["port"] }));
  });
});
