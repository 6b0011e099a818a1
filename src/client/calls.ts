/**
 * What each operation of the admin API takes and gives. Written by `npm run docs:client` from the table of operations
 * that the server validates with; not by hand.
 *
 * Over 500 lines because there are many operations.
 */

/** Method and path of an operation. */
export type Route = readonly [method: "GET" | "POST" | "PUT" | "DELETE", path: string];

export const ROUTES: Readonly<Record<keyof Calls | keyof Streams, Route>> = {
  whoami: ["GET", "/v1/whoami"],
  "node.describe": ["GET", "/v1/node"],
  "node.verifierKey": ["GET", "/v1/verifier-key"],
  "tenants.list": ["GET", "/v1/tenants"],
  "tenants.create": ["POST", "/v1/tenants"],
  "tenants.describe": ["GET", "/v1/tenants/{tenant}"],
  "tenants.suspend": ["POST", "/v1/tenants/{tenant}/suspend"],
  "tenants.resume": ["POST", "/v1/tenants/{tenant}/resume"],
  "quota.set": ["PUT", "/v1/tenants/{tenant}/quota"],
  "retention.set": ["PUT", "/v1/tenants/{tenant}/retention"],
  "holds.list": ["GET", "/v1/tenants/{tenant}/holds"],
  "holds.place": ["POST", "/v1/tenants/{tenant}/holds"],
  "holds.release": ["POST", "/v1/tenants/{tenant}/holds/release"],
  "erasure.erase": ["POST", "/v1/tenants/{tenant}/erasure"],
  "erasure.certificate": ["GET", "/v1/tenants/{tenant}/erasure"],
  "erasure.refused": ["GET", "/v1/tenants/{tenant}/erasure/refused"],
  "tenants.trim": ["POST", "/v1/tenants/{tenant}/trim"],
  "tokens.list": ["GET", "/v1/tenants/{tenant}/tokens"],
  "tokens.create": ["POST", "/v1/tenants/{tenant}/tokens"],
  "tokens.revoke": ["DELETE", "/v1/tenants/{tenant}/tokens/{token}"],
  "tokens.enrol": ["POST", "/v1/tenants/{tenant}/enrolment"],
  "node.listTokens": ["GET", "/v1/node/tokens"],
  "node.createToken": ["POST", "/v1/node/tokens"],
  "node.revokeToken": ["DELETE", "/v1/node/tokens/{token}"],
  "issuers.list": ["GET", "/v1/tenants/{tenant}/issuers"],
  "issuers.register": ["POST", "/v1/tenants/{tenant}/issuers"],
  "issuers.remove": ["DELETE", "/v1/tenants/{tenant}/issuers"],
  "keys.list": ["GET", "/v1/tenants/{tenant}/keys"],
  "keys.rotate": ["POST", "/v1/tenants/{tenant}/keys/rotations"],
  "keys.reencrypt": ["POST", "/v1/tenants/{tenant}/keys/reencryption"],
  "keys.move": ["PUT", "/v1/tenants/{tenant}/master-key"],
  "node.rotateMasterKey": ["POST", "/v1/node/master-key/rotations"],
  "proofs.checkpoint": ["GET", "/v1/tenants/{tenant}/checkpoint"],
  "proofs.inclusion": ["GET", "/v1/tenants/{tenant}/proofs/inclusion"],
  "proofs.consistency": ["GET", "/v1/tenants/{tenant}/proofs/consistency"],
  "tenants.verify": ["POST", "/v1/tenants/{tenant}/verify"],
  "tenants.rebuild": ["POST", "/v1/tenants/{tenant}/rebuild"],
  "exports.create": ["POST", "/v1/tenants/{tenant}/exports"],
  "tenants.import": ["POST", "/v1/imports"],
  "node.backup": ["POST", "/v1/node/backups"],
  "node.backups": ["GET", "/v1/node/backups"],
  "subjects.list": ["GET", "/v1/tenants/{tenant}/subjects"],
  "subjects.declare": ["POST", "/v1/tenants/{tenant}/subjects"],
  "subjects.erase": ["POST", "/v1/tenants/{tenant}/subjects/erasures"],
  "subjects.certificates": ["GET", "/v1/tenants/{tenant}/subjects/erasures"],
  "streams.list": ["GET", "/v1/tenants/{tenant}/streams"],
  "streams.create": ["POST", "/v1/tenants/{tenant}/streams"],
  "streams.append": ["POST", "/v1/tenants/{tenant}/streams/{stream}/events"],
  "streams.read": ["GET", "/v1/tenants/{tenant}/streams/{stream}/events"],
  "streams.tail": ["GET", "/v1/tenants/{tenant}/streams/{stream}/tail"],
  "history.query": ["POST", "/v1/tenants/{tenant}/history/query"],
  "grants.list": ["GET", "/v1/tenants/{tenant}/grants"],
  "grants.create": ["POST", "/v1/tenants/{tenant}/grants"],
  "grants.revoke": ["POST", "/v1/tenants/{tenant}/grants/{grant}/revoke"],
  "shared.query": ["POST", "/v1/tenants/{tenant}/shared/query"],
  "shared.read": ["GET", "/v1/tenants/{tenant}/shared/events"],
  "jobs.list": ["GET", "/v1/tenants/{tenant}/jobs"],
  "jobs.describe": ["GET", "/v1/tenants/{tenant}/jobs/{job}"],
  "node.jobs": ["GET", "/v1/node/jobs"],
  "node.job": ["GET", "/v1/node/jobs/{job}"],
  "audit.list": ["GET", "/v1/tenants/{tenant}/audit"],
  "audit.ocsf": ["GET", "/v1/tenants/{tenant}/audit/ocsf"],
  "audit.tail": ["GET", "/v1/tenants/{tenant}/audit/tail"],
  "node.audit": ["GET", "/v1/node/audit"],
  "node.auditOcsf": ["GET", "/v1/node/audit/ocsf"],
  "node.auditTail": ["GET", "/v1/node/audit/tail"],
};

/** Operations that answer once. */
export interface Calls {
  /** Who the credential speaks for. */
  readonly whoami: {
    readonly input: Readonly<Record<string, never>>;
    readonly answer: {
      readonly kind: "tenant" | "operator";
      readonly actor: string;
      readonly credential: string;
      readonly tenant?: string;
      readonly role?: "reader" | "writer" | "admin";
    };
  };
  /** What the node holds. */
  readonly "node.describe": {
    readonly input: Readonly<Record<string, never>>;
    readonly answer: {
      readonly tenants: number;
      readonly openTenants: number;
      readonly installation: string;
    };
  };
  /** The public key that checkpoints, exports and certificates verify under (C2SP). */
  readonly "node.verifierKey": {
    readonly input: Readonly<Record<string, never>>;
    readonly answer: { readonly verifierKey: string };
  };
  /** The tenants, in order of id. */
  readonly "tenants.list": {
    readonly input: { readonly query?: { readonly cursor?: string; readonly limit?: number } };
    readonly answer: {
      readonly items: readonly {
        readonly id: string;
        readonly name: string;
        readonly region: string;
        readonly retentionMs: number;
        readonly retentionMode: "governance" | "compliance";
        readonly legalHolds: readonly {
          readonly name: string;
          readonly reason: string;
          readonly actor: string;
          readonly placedAtUs: string;
        }[];
        readonly quota: {
          readonly maxLogBytes?: number;
          readonly maxProjectionBytes?: number;
          readonly maxOpsPerSec?: number;
          readonly burstOps?: number;
          readonly maxConcurrentOps?: number;
        };
        readonly masterKey?: string;
        readonly keyAccess?: "available" | "withdrawn" | "unknown";
        readonly state: "active" | "suspended" | "erasing" | "erased";
        readonly createdAtUs: string;
      }[];
      readonly next?: string;
    };
  };
  /** Makes a tenant, with keys of its own. */
  readonly "tenants.create": {
    readonly input: {
      readonly body: {
        readonly id: string;
        readonly name: string;
        readonly region?: string;
        readonly retentionMs?: number;
        readonly retentionMode?: "governance" | "compliance";
        readonly quota?: {
          readonly maxLogBytes?: number;
          readonly maxProjectionBytes?: number;
          readonly maxOpsPerSec?: number;
          readonly burstOps?: number;
          readonly maxConcurrentOps?: number;
        };
        readonly reason?: string;
      };
    };
    readonly answer: {
      readonly id: string;
      readonly name: string;
      readonly region: string;
      readonly retentionMs: number;
      readonly retentionMode: "governance" | "compliance";
      readonly legalHolds: readonly {
        readonly name: string;
        readonly reason: string;
        readonly actor: string;
        readonly placedAtUs: string;
      }[];
      readonly quota: {
        readonly maxLogBytes?: number;
        readonly maxProjectionBytes?: number;
        readonly maxOpsPerSec?: number;
        readonly burstOps?: number;
        readonly maxConcurrentOps?: number;
      };
      readonly masterKey?: string;
      readonly keyAccess?: "available" | "withdrawn" | "unknown";
      readonly state: "active" | "suspended" | "erasing" | "erased";
      readonly createdAtUs: string;
    };
  };
  /** A tenant, and what it uses. */
  readonly "tenants.describe": {
    readonly input: { readonly params: { readonly tenant: string } };
    readonly answer: {
      readonly id: string;
      readonly name: string;
      readonly region: string;
      readonly retentionMs: number;
      readonly retentionMode: "governance" | "compliance";
      readonly legalHolds: readonly {
        readonly name: string;
        readonly reason: string;
        readonly actor: string;
        readonly placedAtUs: string;
      }[];
      readonly quota: {
        readonly maxLogBytes?: number;
        readonly maxProjectionBytes?: number;
        readonly maxOpsPerSec?: number;
        readonly burstOps?: number;
        readonly maxConcurrentOps?: number;
      };
      readonly masterKey?: string;
      readonly keyAccess?: "available" | "withdrawn" | "unknown";
      readonly state: "active" | "suspended" | "erasing" | "erased";
      readonly createdAtUs: string;
      readonly size: string;
      readonly firstOffset: string;
      readonly logBytes: number;
      readonly projectionBytes: number;
    };
  };
  /** Refuses the tenant's reads and writes until it is resumed. */
  readonly "tenants.suspend": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly body?: { readonly reason?: string };
    };
    readonly answer: {
      readonly id: string;
      readonly name: string;
      readonly region: string;
      readonly retentionMs: number;
      readonly retentionMode: "governance" | "compliance";
      readonly legalHolds: readonly {
        readonly name: string;
        readonly reason: string;
        readonly actor: string;
        readonly placedAtUs: string;
      }[];
      readonly quota: {
        readonly maxLogBytes?: number;
        readonly maxProjectionBytes?: number;
        readonly maxOpsPerSec?: number;
        readonly burstOps?: number;
        readonly maxConcurrentOps?: number;
      };
      readonly masterKey?: string;
      readonly keyAccess?: "available" | "withdrawn" | "unknown";
      readonly state: "active" | "suspended" | "erasing" | "erased";
      readonly createdAtUs: string;
    };
  };
  /** Ends a suspension. */
  readonly "tenants.resume": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly body?: { readonly reason?: string };
    };
    readonly answer: {
      readonly id: string;
      readonly name: string;
      readonly region: string;
      readonly retentionMs: number;
      readonly retentionMode: "governance" | "compliance";
      readonly legalHolds: readonly {
        readonly name: string;
        readonly reason: string;
        readonly actor: string;
        readonly placedAtUs: string;
      }[];
      readonly quota: {
        readonly maxLogBytes?: number;
        readonly maxProjectionBytes?: number;
        readonly maxOpsPerSec?: number;
        readonly burstOps?: number;
        readonly maxConcurrentOps?: number;
      };
      readonly masterKey?: string;
      readonly keyAccess?: "available" | "withdrawn" | "unknown";
      readonly state: "active" | "suspended" | "erasing" | "erased";
      readonly createdAtUs: string;
    };
  };
  /** Replaces the tenant's quota, at once; a limit that is absent is none. */
  readonly "quota.set": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly body: {
        readonly quota: {
          readonly maxLogBytes?: number;
          readonly maxProjectionBytes?: number;
          readonly maxOpsPerSec?: number;
          readonly burstOps?: number;
          readonly maxConcurrentOps?: number;
        };
        readonly reason?: string;
      };
    };
    readonly answer: {
      readonly id: string;
      readonly name: string;
      readonly region: string;
      readonly retentionMs: number;
      readonly retentionMode: "governance" | "compliance";
      readonly legalHolds: readonly {
        readonly name: string;
        readonly reason: string;
        readonly actor: string;
        readonly placedAtUs: string;
      }[];
      readonly quota: {
        readonly maxLogBytes?: number;
        readonly maxProjectionBytes?: number;
        readonly maxOpsPerSec?: number;
        readonly burstOps?: number;
        readonly maxConcurrentOps?: number;
      };
      readonly masterKey?: string;
      readonly keyAccess?: "available" | "withdrawn" | "unknown";
      readonly state: "active" | "suspended" | "erasing" | "erased";
      readonly createdAtUs: string;
    };
  };
  /** How long data is kept at least; a shorter one takes a reason, and in compliance mode is refused. */
  readonly "retention.set": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly body: {
        readonly retentionMs: number;
        readonly mode?: "governance" | "compliance";
        readonly reason?: string;
      };
    };
    readonly answer: {
      readonly id: string;
      readonly name: string;
      readonly region: string;
      readonly retentionMs: number;
      readonly retentionMode: "governance" | "compliance";
      readonly legalHolds: readonly {
        readonly name: string;
        readonly reason: string;
        readonly actor: string;
        readonly placedAtUs: string;
      }[];
      readonly quota: {
        readonly maxLogBytes?: number;
        readonly maxProjectionBytes?: number;
        readonly maxOpsPerSec?: number;
        readonly burstOps?: number;
        readonly maxConcurrentOps?: number;
      };
      readonly masterKey?: string;
      readonly keyAccess?: "available" | "withdrawn" | "unknown";
      readonly state: "active" | "suspended" | "erasing" | "erased";
      readonly createdAtUs: string;
    };
  };
  /** The legal holds that stand. */
  readonly "holds.list": {
    readonly input: { readonly params: { readonly tenant: string } };
    readonly answer: {
      readonly items: readonly {
        readonly name: string;
        readonly reason: string;
        readonly actor: string;
        readonly placedAtUs: string;
      }[];
    };
  };
  /** Places a legal hold: nothing of the tenant is erased or trimmed while it stands. */
  readonly "holds.place": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly body: { readonly name: string; readonly reason: string };
    };
    readonly answer: {
      readonly name: string;
      readonly reason: string;
      readonly actor: string;
      readonly placedAtUs: string;
    };
  };
  /** Ends a legal hold. */
  readonly "holds.release": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly body: { readonly name: string; readonly reason: string };
    };
    readonly answer: {
      readonly legalHolds: readonly {
        readonly name: string;
        readonly reason: string;
        readonly actor: string;
        readonly placedAtUs: string;
      }[];
      readonly refusedErasures: readonly {
        readonly tenant: string;
        readonly refusedAtUs: string;
        readonly actor: string;
        readonly reason: string;
        readonly code: string;
      }[];
    };
  };
  /** Erases the tenant for ever: destroys its keys, removes its data, certifies it. */
  readonly "erasure.erase": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly body: {
        readonly reason: string;
        readonly overrideRetention?: boolean;
        readonly keepCiphertext?: boolean;
      };
    };
    readonly answer: {
      readonly tenant: string;
      readonly installation: string;
      readonly actor: string;
      readonly reason: string;
      readonly beganAt: string;
      readonly endedAt: string;
      readonly keysDestroyed: {
        readonly kek: number;
        readonly deks: readonly number[];
        readonly masterKeyId: string;
      };
      readonly log: { readonly size: string; readonly root: string; readonly checkpoint: string } | null;
      readonly removed: readonly {
        readonly what: "keys" | "memory" | "journal" | "projection" | "log" | "log payload";
        readonly where: string;
        readonly count: number;
      }[];
      readonly ciphertextKept: boolean;
      readonly retentionOverriddenUntil?: string;
      readonly outsideReach: readonly string[];
      readonly note: string;
    };
  };
  /** The certificate of a tenant that was erased. */
  readonly "erasure.certificate": {
    readonly input: { readonly params: { readonly tenant: string } };
    readonly answer: {
      readonly tenant: string;
      readonly installation: string;
      readonly actor: string;
      readonly reason: string;
      readonly beganAt: string;
      readonly endedAt: string;
      readonly keysDestroyed: {
        readonly kek: number;
        readonly deks: readonly number[];
        readonly masterKeyId: string;
      };
      readonly log: { readonly size: string; readonly root: string; readonly checkpoint: string } | null;
      readonly removed: readonly {
        readonly what: "keys" | "memory" | "journal" | "projection" | "log" | "log payload";
        readonly where: string;
        readonly count: number;
      }[];
      readonly ciphertextKept: boolean;
      readonly retentionOverriddenUntil?: string;
      readonly outsideReach: readonly string[];
      readonly note: string;
    };
  };
  /** Erasures that were asked for and refused, oldest first. */
  readonly "erasure.refused": {
    readonly input: { readonly params: { readonly tenant: string } };
    readonly answer: {
      readonly items: readonly {
        readonly tenant: string;
        readonly refusedAtUs: string;
        readonly actor: string;
        readonly reason: string;
        readonly code: string;
      }[];
    };
  };
  /** Destroys the records that are past their retention; tables and proofs stay. */
  readonly "tenants.trim": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly body: {
        readonly reason: string;
        readonly before?: string;
        readonly overrideRetention?: boolean;
      };
    };
    readonly answer: { readonly firstOffset: string; readonly trimmed: string };
  };
  /** The tenant's API keys, oldest first, ended ones too; never a secret. */
  readonly "tokens.list": {
    readonly input: { readonly params: { readonly tenant: string } };
    readonly answer: {
      readonly items: readonly {
        readonly id: string;
        readonly tenant?: string;
        readonly role: "reader" | "writer" | "admin" | "operator";
        readonly name: string;
        readonly grant?: string;
        readonly enrolment?: true;
        readonly createdAtUs: string;
        readonly createdBy: string;
        readonly expiresAtUs?: string;
        readonly revokedAtUs?: string;
        readonly lastUsedAtUs?: string;
      }[];
    };
  };
  /** Makes an API key of the tenant. */
  readonly "tokens.create": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly body: {
        readonly role: "reader" | "writer" | "admin";
        readonly grant?: string;
        readonly name?: string;
        readonly expiresInMs?: number;
        readonly reason?: string;
      };
    };
    readonly answer: {
      readonly token: string;
      readonly key: {
        readonly id: string;
        readonly tenant?: string;
        readonly role: "reader" | "writer" | "admin" | "operator";
        readonly name: string;
        readonly grant?: string;
        readonly enrolment?: true;
        readonly createdAtUs: string;
        readonly createdBy: string;
        readonly expiresAtUs?: string;
        readonly revokedAtUs?: string;
        readonly lastUsedAtUs?: string;
      };
    };
  };
  /** Ends an API key, also for connections that it opened. */
  readonly "tokens.revoke": {
    readonly input: { readonly params: { readonly tenant: string; readonly token: string } };
    readonly answer: {
      readonly id: string;
      readonly tenant?: string;
      readonly role: "reader" | "writer" | "admin" | "operator";
      readonly name: string;
      readonly grant?: string;
      readonly enrolment?: true;
      readonly createdAtUs: string;
      readonly createdBy: string;
      readonly expiresAtUs?: string;
      readonly revokedAtUs?: string;
      readonly lastUsedAtUs?: string;
    };
  };
  /** Makes the key that makes an untouched tenant's first key, once, and does nothing else. */
  readonly "tokens.enrol": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly body?: { readonly name?: string; readonly expiresInMs?: number; readonly reason?: string };
    };
    readonly answer: {
      readonly token: string;
      readonly key: {
        readonly id: string;
        readonly tenant?: string;
        readonly role: "reader" | "writer" | "admin" | "operator";
        readonly name: string;
        readonly grant?: string;
        readonly enrolment?: true;
        readonly createdAtUs: string;
        readonly createdBy: string;
        readonly expiresAtUs?: string;
        readonly revokedAtUs?: string;
        readonly lastUsedAtUs?: string;
      };
    };
  };
  /** The operators' API keys. */
  readonly "node.listTokens": {
    readonly input: Readonly<Record<string, never>>;
    readonly answer: {
      readonly items: readonly {
        readonly id: string;
        readonly tenant?: string;
        readonly role: "reader" | "writer" | "admin" | "operator";
        readonly name: string;
        readonly grant?: string;
        readonly enrolment?: true;
        readonly createdAtUs: string;
        readonly createdBy: string;
        readonly expiresAtUs?: string;
        readonly revokedAtUs?: string;
        readonly lastUsedAtUs?: string;
      }[];
    };
  };
  /** Makes an API key of the node's operators, which reads no tenant's data. */
  readonly "node.createToken": {
    readonly input: {
      readonly body?: { readonly name?: string; readonly expiresInMs?: number; readonly reason?: string };
    };
    readonly answer: {
      readonly token: string;
      readonly key: {
        readonly id: string;
        readonly tenant?: string;
        readonly role: "reader" | "writer" | "admin" | "operator";
        readonly name: string;
        readonly grant?: string;
        readonly enrolment?: true;
        readonly createdAtUs: string;
        readonly createdBy: string;
        readonly expiresAtUs?: string;
        readonly revokedAtUs?: string;
        readonly lastUsedAtUs?: string;
      };
    };
  };
  /** Ends an operator's API key. */
  readonly "node.revokeToken": {
    readonly input: { readonly params: { readonly token: string } };
    readonly answer: {
      readonly id: string;
      readonly tenant?: string;
      readonly role: "reader" | "writer" | "admin" | "operator";
      readonly name: string;
      readonly grant?: string;
      readonly enrolment?: true;
      readonly createdAtUs: string;
      readonly createdBy: string;
      readonly expiresAtUs?: string;
      readonly revokedAtUs?: string;
      readonly lastUsedAtUs?: string;
    };
  };
  /** Who may mint JWTs of the tenant. */
  readonly "issuers.list": {
    readonly input: { readonly params: { readonly tenant: string } };
    readonly answer: {
      readonly items: readonly {
        readonly issuer: string;
        readonly audience: string;
        readonly jwksUri?: string;
        readonly keys?: readonly Readonly<Record<string, unknown>>[];
        readonly maxRole: "reader" | "writer" | "admin";
        readonly defaultRole?: "reader" | "writer" | "admin";
        readonly maxLifeMs: number;
        readonly tenant: string;
        readonly createdAtUs: string;
        readonly createdBy: string;
      }[];
    };
  };
  /** Registers an issuer of JWTs, in the place of one of its name: its tokens are of this tenant and no other. */
  readonly "issuers.register": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly body: {
        readonly issuer: string;
        readonly audience: string;
        readonly jwksUri?: string;
        readonly keys?: readonly Readonly<Record<string, unknown>>[];
        readonly maxRole?: "reader" | "writer" | "admin";
        readonly defaultRole?: "reader" | "writer" | "admin";
        readonly maxLifeMs?: number;
        readonly reason?: string;
      };
    };
    readonly answer: {
      readonly issuer: string;
      readonly audience: string;
      readonly jwksUri?: string;
      readonly keys?: readonly Readonly<Record<string, unknown>>[];
      readonly maxRole: "reader" | "writer" | "admin";
      readonly defaultRole?: "reader" | "writer" | "admin";
      readonly maxLifeMs: number;
      readonly tenant: string;
      readonly createdAtUs: string;
      readonly createdBy: string;
    };
  };
  /** Ends an issuer, and what its tokens opened. */
  readonly "issuers.remove": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly query: { readonly issuer: string };
    };
    readonly answer: Readonly<Record<string, never>>;
  };
  /** Versions and ages of the tenant's keys. */
  readonly "keys.list": {
    readonly input: { readonly params: { readonly tenant: string } };
    readonly answer: {
      readonly tenant: string;
      readonly masterKeyId: string;
      readonly kek: { readonly version: number; readonly createdAtUs: string; readonly ageMs: number };
      readonly deks: readonly {
        readonly version: number;
        readonly createdAtUs: string;
        readonly ageMs: number;
      }[];
      readonly projectionDek: number;
      readonly hasSigningKey: boolean;
      readonly blocksSealed: number;
      readonly blocksLimit: number;
    };
  };
  /** Puts a new data key into force for new blocks, or wraps the data keys under a new key. */
  readonly "keys.rotate": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly body: { readonly key: "dek" | "kek"; readonly reason?: string };
    };
    readonly answer: {
      readonly tenant: string;
      readonly masterKeyId: string;
      readonly kek: { readonly version: number; readonly createdAtUs: string; readonly ageMs: number };
      readonly deks: readonly {
        readonly version: number;
        readonly createdAtUs: string;
        readonly ageMs: number;
      }[];
      readonly projectionDek: number;
      readonly hasSigningKey: boolean;
      readonly blocksSealed: number;
      readonly blocksLimit: number;
    };
  };
  /** Writes log and database anew under a new data key; interrupted, it goes on when it is asked again. */
  readonly "keys.reencrypt": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly body?: { readonly destroyFormerKeys?: boolean; readonly reason?: string };
    };
    readonly answer: {
      readonly dekVersion: number;
      readonly records: string;
      readonly destroyed: readonly number[];
    };
  };
  /** Moves the tenant's keys under a master key of its own, or with null back under the node's. */
  readonly "keys.move": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly body: { readonly uri: string | null; readonly reason?: string };
    };
    readonly answer: {
      readonly id: string;
      readonly name: string;
      readonly region: string;
      readonly retentionMs: number;
      readonly retentionMode: "governance" | "compliance";
      readonly legalHolds: readonly {
        readonly name: string;
        readonly reason: string;
        readonly actor: string;
        readonly placedAtUs: string;
      }[];
      readonly quota: {
        readonly maxLogBytes?: number;
        readonly maxProjectionBytes?: number;
        readonly maxOpsPerSec?: number;
        readonly burstOps?: number;
        readonly maxConcurrentOps?: number;
      };
      readonly masterKey?: string;
      readonly keyAccess?: "available" | "withdrawn" | "unknown";
      readonly state: "active" | "suspended" | "erasing" | "erased";
      readonly createdAtUs: string;
    };
  };
  /** Wraps every tenant's key under another of the master keys that the settings name. */
  readonly "node.rotateMasterKey": {
    readonly input: { readonly body: { readonly to: string } };
    readonly answer: { readonly masterKeyId: string };
  };
  /** A signed checkpoint (C2SP tlog-checkpoint) of the tenant's log as it is now. */
  readonly "proofs.checkpoint": {
    readonly input: { readonly params: { readonly tenant: string } };
    readonly answer: { readonly note: string; readonly verifierKey: string };
  };
  /** Proof that the record at an offset is in the log (RFC 9162 §2.1.3). */
  readonly "proofs.inclusion": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly query: { readonly offset: string };
    };
    readonly answer: {
      readonly offset: string;
      readonly size: string;
      readonly leafHash: string;
      readonly path: readonly string[];
      readonly root: string;
    };
  };
  /** Proof that the log of `from` records is a prefix of the log of `to` records (RFC 9162 §2.1.4). */
  readonly "proofs.consistency": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly query: { readonly from: string; readonly to: string };
    };
    readonly answer: {
      readonly fromSize: string;
      readonly toSize: string;
      readonly fromRoot: string;
      readonly toRoot: string;
      readonly path: readonly string[];
    };
  };
  /** Checks the tenant's whole log; with a checkpoint, also that it still begins with that. */
  readonly "tenants.verify": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly body?: { readonly checkpoint?: string };
    };
    readonly answer: {
      readonly tenant: string;
      readonly ok: boolean;
      readonly size: string;
      readonly trimmed: string;
      readonly blocks: number;
      readonly segments: number;
      readonly bytes: number;
      readonly root: string;
      readonly sealsOpened: boolean;
      readonly firstBadOffset?: string;
      readonly reason?: string;
    };
  };
  /** Deletes the tenant's SQL database and builds it anew from its log. */
  readonly "tenants.rebuild": {
    readonly input: { readonly params: { readonly tenant: string } };
    readonly answer: Readonly<Record<string, never>>;
  };
  /** Writes the tenant, in clear text and with its proofs, into a folder of the server's; interrupted, it goes on when it is asked again. */
  readonly "exports.create": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly body: { readonly name: string; readonly reason?: string };
    };
    readonly answer: {
      readonly tenant: string;
      readonly size: string;
      readonly root: string;
      readonly bytes: number;
      readonly name: string;
    };
  };
  /** Brings an export from a folder of the server's into this installation. */
  readonly "tenants.import": {
    readonly input: {
      readonly body: {
        readonly name: string;
        readonly key: string;
        readonly tenant?: string;
        readonly as?: string;
        readonly quota?: {
          readonly maxLogBytes?: number;
          readonly maxProjectionBytes?: number;
          readonly maxOpsPerSec?: number;
          readonly burstOps?: number;
          readonly maxConcurrentOps?: number;
        };
        readonly reason?: string;
      };
    };
    readonly answer: {
      readonly id: string;
      readonly name: string;
      readonly region: string;
      readonly retentionMs: number;
      readonly retentionMode: "governance" | "compliance";
      readonly legalHolds: readonly {
        readonly name: string;
        readonly reason: string;
        readonly actor: string;
        readonly placedAtUs: string;
      }[];
      readonly quota: {
        readonly maxLogBytes?: number;
        readonly maxProjectionBytes?: number;
        readonly maxOpsPerSec?: number;
        readonly burstOps?: number;
        readonly maxConcurrentOps?: number;
      };
      readonly masterKey?: string;
      readonly keyAccess?: "available" | "withdrawn" | "unknown";
      readonly state: "active" | "suspended" | "erasing" | "erased";
      readonly createdAtUs: string;
    };
  };
  /** Backs up what was written since the backup before, sealed, to a place that the settings name. */
  readonly "node.backup": {
    readonly input: {
      readonly body: {
        readonly place: string;
        readonly tenants?: readonly string[];
        readonly reason?: string;
      };
    };
    readonly answer: {
      readonly id: string;
      readonly tenants: number;
      readonly changed: number;
      readonly bytes: number;
      readonly keys: number;
    };
  };
  /** The backups in a place, oldest first. */
  readonly "node.backups": {
    readonly input: { readonly query: { readonly place: string } };
    readonly answer: {
      readonly items: readonly {
        readonly id: string;
        readonly timeUs: string;
        readonly partial: boolean;
        readonly tenants: number;
      }[];
    };
  };
  /** Tables with the column that says whose a row is. */
  readonly "subjects.list": {
    readonly input: { readonly params: { readonly tenant: string } };
    readonly answer: {
      readonly items: readonly {
        readonly table: string;
        readonly column: string;
        readonly declaredAt: string;
      }[];
    };
  };
  /** Declares the column of a table without rows that says whose a row is. */
  readonly "subjects.declare": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly body: { readonly table: string; readonly column: string; readonly reason?: string };
    };
    readonly answer: { readonly table: string; readonly column: string; readonly declaredAt: string };
  };
  /** Erases one person: deletes the rows, destroys the key of their history, certifies it. */
  readonly "subjects.erase": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly body: {
        readonly subject:
          | { readonly type: "null" }
          | { readonly type: "integer"; readonly value: string }
          | { readonly type: "float"; readonly value: number | "Infinity" | "-Infinity" }
          | { readonly type: "text"; readonly value: string }
          | { readonly type: "blob"; readonly base64: string };
        readonly reason: string;
        readonly overrideRetention?: boolean;
      };
    };
    readonly answer: {
      readonly tenant: string;
      readonly installation: string;
      readonly subject: string;
      readonly actor: string;
      readonly reason: string;
      readonly beganAt: string;
      readonly endedAt: string;
      readonly tables: readonly {
        readonly table: string;
        readonly column: string;
        readonly declaredAt: string;
        readonly rows: number;
      }[];
      readonly retentionOverriddenUntil?: string;
      readonly offset: string;
      readonly log: { readonly size: string; readonly root: string; readonly checkpoint: string };
      readonly removed: readonly {
        readonly what: "keys" | "memory" | "journal" | "projection" | "log" | "log payload";
        readonly where: string;
        readonly count: number;
      }[];
      readonly outsideReach: readonly string[];
      readonly note: string;
    };
  };
  /** The certificates of persons who were erased, oldest first. */
  readonly "subjects.certificates": {
    readonly input: { readonly params: { readonly tenant: string } };
    readonly answer: {
      readonly items: readonly {
        readonly tenant: string;
        readonly installation: string;
        readonly subject: string;
        readonly actor: string;
        readonly reason: string;
        readonly beganAt: string;
        readonly endedAt: string;
        readonly tables: readonly {
          readonly table: string;
          readonly column: string;
          readonly declaredAt: string;
          readonly rows: number;
        }[];
        readonly retentionOverriddenUntil?: string;
        readonly offset: string;
        readonly log: { readonly size: string; readonly root: string; readonly checkpoint: string };
        readonly removed: readonly {
          readonly what: "keys" | "memory" | "journal" | "projection" | "log" | "log payload";
          readonly where: string;
          readonly count: number;
        }[];
        readonly outsideReach: readonly string[];
        readonly note: string;
      }[];
    };
  };
  /** The tenant's streams: its tables and its event streams. */
  readonly "streams.list": {
    readonly input: { readonly params: { readonly tenant: string } };
    readonly answer: {
      readonly items: readonly {
        readonly id: { readonly tenant: string; readonly local: number };
        readonly kind: "table" | "events";
        readonly name: string;
      }[];
    };
  };
  /** Makes an event stream. */
  readonly "streams.create": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly body: { readonly name: string };
    };
    readonly answer: {
      readonly id: { readonly tenant: string; readonly local: number };
      readonly kind: "table" | "events";
      readonly name: string;
    };
  };
  /** Appends events as one transaction; the idempotency key, if there is one, is kept with them and outlives a restart. */
  readonly "streams.append": {
    readonly input: {
      readonly params: { readonly tenant: string; readonly stream: string };
      readonly body: { readonly events: readonly unknown[]; readonly expectedOffset?: string };
    };
    readonly answer: { readonly offset: string; readonly count: number; readonly logOffset: string };
  };
  /** A stream's items in order: events, or the changes of a table's rows; the next page is there if more is. */
  readonly "streams.read": {
    readonly input: {
      readonly params: { readonly tenant: string; readonly stream: string };
      readonly query?: { readonly cursor?: string; readonly limit?: number; readonly from?: string };
    };
    readonly answer: {
      readonly items: readonly {
        readonly offset: string;
        readonly logOffset: string;
        readonly timeUs: string;
        readonly actor: string;
        readonly kind: "event" | "insert" | "update" | "delete" | "erased";
        readonly data?: unknown;
        readonly cbor?: string;
        readonly before?:
          | readonly (
              | { readonly type: "null" }
              | { readonly type: "integer"; readonly value: string }
              | { readonly type: "float"; readonly value: number | "Infinity" | "-Infinity" }
              | { readonly type: "text"; readonly value: string }
              | { readonly type: "blob"; readonly base64: string }
            )[]
          | null;
        readonly after?:
          | readonly (
              | { readonly type: "null" }
              | { readonly type: "integer"; readonly value: string }
              | { readonly type: "float"; readonly value: number | "Infinity" | "-Infinity" }
              | { readonly type: "text"; readonly value: string }
              | { readonly type: "blob"; readonly base64: string }
            )[]
          | null;
        readonly subject?: string;
      }[];
      readonly next?: string;
    };
  };
  /** Reads the tenant's rows by SQL as they were at an offset of its log, or at a time. */
  readonly "history.query": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly body: {
        readonly sql: string;
        readonly params?:
          | readonly (
              | { readonly type: "null" }
              | { readonly type: "integer"; readonly value: string }
              | { readonly type: "float"; readonly value: number | "Infinity" | "-Infinity" }
              | { readonly type: "text"; readonly value: string }
              | { readonly type: "blob"; readonly base64: string }
            )[]
          | Readonly<
              Record<
                string,
                | { readonly type: "null" }
                | { readonly type: "integer"; readonly value: string }
                | { readonly type: "float"; readonly value: number | "Infinity" | "-Infinity" }
                | { readonly type: "text"; readonly value: string }
                | { readonly type: "blob"; readonly base64: string }
              >
            >;
        readonly at: string;
      };
    };
    readonly answer: {
      readonly columns: readonly string[];
      readonly rows: readonly (readonly (
        | { readonly type: "null" }
        | { readonly type: "integer"; readonly value: string }
        | { readonly type: "float"; readonly value: number | "Infinity" | "-Infinity" }
        | { readonly type: "text"; readonly value: string }
        | { readonly type: "blob"; readonly base64: string }
      )[])[];
    };
  };
  /** Grants that the tenant made and that were made to it, oldest first, ended ones too. */
  readonly "grants.list": {
    readonly input: { readonly params: { readonly tenant: string } };
    readonly answer: {
      readonly items: readonly {
        readonly id: string;
        readonly fromTenant: string;
        readonly toTenant: string;
        readonly stream: { readonly tenant: string; readonly local: number };
        readonly kind: "table" | "events";
        readonly name: string;
        readonly permissions: "read";
        readonly columns?: readonly string[];
        readonly where?: string;
        readonly maxRows?: number;
        readonly purpose: string;
        readonly actor: string;
        readonly createdAtUs: string;
        readonly notBeforeUs?: string;
        readonly expiresAtUs?: string;
        readonly state: "active" | "revoked" | "expired" | "ended";
        readonly endedAtUs?: string;
        readonly endReason?: string;
      }[];
    };
  };
  /** Lets another tenant read a table or event stream of this one. */
  readonly "grants.create": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly body: {
        readonly toTenant: string;
        readonly stream: number;
        readonly columns?: readonly string[];
        readonly where?: string;
        readonly maxRows?: number;
        readonly notBefore?: string;
        readonly expiresInMs?: number;
        readonly purpose: string;
      };
    };
    readonly answer: {
      readonly id: string;
      readonly fromTenant: string;
      readonly toTenant: string;
      readonly stream: { readonly tenant: string; readonly local: number };
      readonly kind: "table" | "events";
      readonly name: string;
      readonly permissions: "read";
      readonly columns?: readonly string[];
      readonly where?: string;
      readonly maxRows?: number;
      readonly purpose: string;
      readonly actor: string;
      readonly createdAtUs: string;
      readonly notBeforeUs?: string;
      readonly expiresAtUs?: string;
      readonly state: "active" | "revoked" | "expired" | "ended";
      readonly endedAtUs?: string;
      readonly endReason?: string;
    };
  };
  /** Ends a grant that the tenant made, at once, also for reads that are under way. */
  readonly "grants.revoke": {
    readonly input: {
      readonly params: { readonly tenant: string; readonly grant: string };
      readonly body: { readonly reason: string };
    };
    readonly answer: {
      readonly id: string;
      readonly fromTenant: string;
      readonly toTenant: string;
      readonly stream: { readonly tenant: string; readonly local: number };
      readonly kind: "table" | "events";
      readonly name: string;
      readonly permissions: "read";
      readonly columns?: readonly string[];
      readonly where?: string;
      readonly maxRows?: number;
      readonly purpose: string;
      readonly actor: string;
      readonly createdAtUs: string;
      readonly notBeforeUs?: string;
      readonly expiresAtUs?: string;
      readonly state: "active" | "revoked" | "expired" | "ended";
      readonly endedAtUs?: string;
      readonly endReason?: string;
    };
  };
  /** Reads a table that another tenant shares with this one, by SQL. */
  readonly "shared.query": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly body: {
        readonly grant?: string;
        readonly owner?: string;
        readonly stream?: number;
        readonly sql: string;
        readonly params?: readonly (
          | { readonly type: "null" }
          | { readonly type: "integer"; readonly value: string }
          | { readonly type: "float"; readonly value: number | "Infinity" | "-Infinity" }
          | { readonly type: "text"; readonly value: string }
          | { readonly type: "blob"; readonly base64: string }
        )[];
      };
    };
    readonly answer: {
      readonly columns: readonly string[];
      readonly rows: readonly (readonly (
        | { readonly type: "null" }
        | { readonly type: "integer"; readonly value: string }
        | { readonly type: "float"; readonly value: number | "Infinity" | "-Infinity" }
        | { readonly type: "text"; readonly value: string }
        | { readonly type: "blob"; readonly base64: string }
      )[])[];
    };
  };
  /** Reads an event stream that another tenant shares with this one. */
  readonly "shared.read": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly query: {
        readonly cursor?: string;
        readonly limit?: number;
        readonly from?: string;
        readonly grant: string;
      };
    };
    readonly answer: {
      readonly items: readonly {
        readonly offset: string;
        readonly timeUs: string;
        readonly kind: "event";
        readonly data?: unknown;
        readonly cbor?: string;
      }[];
      readonly next?: string;
    };
  };
  /** Long work on the tenant, under way or ended within the hour, of those kinds that the caller may ask for. */
  readonly "jobs.list": {
    readonly input: { readonly params: { readonly tenant: string } };
    readonly answer: {
      readonly items: readonly {
        readonly id: string;
        readonly operation: string;
        readonly actor: string;
        readonly state: "running" | "done" | "failed";
        readonly beganAtUs: string;
        readonly endedAtUs?: string;
        readonly progress?: {
          readonly done: number;
          readonly total?: number;
          readonly unit: "records" | "bytes" | "tenants";
        };
        readonly answer?: unknown;
        readonly problem?: unknown;
      }[];
    };
  };
  /** How far it is, and what came of it. */
  readonly "jobs.describe": {
    readonly input: { readonly params: { readonly tenant: string; readonly job: string } };
    readonly answer: {
      readonly id: string;
      readonly operation: string;
      readonly actor: string;
      readonly state: "running" | "done" | "failed";
      readonly beganAtUs: string;
      readonly endedAtUs?: string;
      readonly progress?: {
        readonly done: number;
        readonly total?: number;
        readonly unit: "records" | "bytes" | "tenants";
      };
      readonly answer?: unknown;
      readonly problem?: unknown;
    };
  };
  /** Long work on the node: backups, imports, rotations of the master key. */
  readonly "node.jobs": {
    readonly input: Readonly<Record<string, never>>;
    readonly answer: {
      readonly items: readonly {
        readonly id: string;
        readonly operation: string;
        readonly actor: string;
        readonly state: "running" | "done" | "failed";
        readonly beganAtUs: string;
        readonly endedAtUs?: string;
        readonly progress?: {
          readonly done: number;
          readonly total?: number;
          readonly unit: "records" | "bytes" | "tenants";
        };
        readonly answer?: unknown;
        readonly problem?: unknown;
      }[];
    };
  };
  /** How far it is, and what came of it. */
  readonly "node.job": {
    readonly input: { readonly params: { readonly job: string } };
    readonly answer: {
      readonly id: string;
      readonly operation: string;
      readonly actor: string;
      readonly state: "running" | "done" | "failed";
      readonly beganAtUs: string;
      readonly endedAtUs?: string;
      readonly progress?: {
        readonly done: number;
        readonly total?: number;
        readonly unit: "records" | "bytes" | "tenants";
      };
      readonly answer?: unknown;
      readonly problem?: unknown;
    };
  };
  /** The tenant's audit stream, in order. */
  readonly "audit.list": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly query?: {
        readonly action?: string;
        readonly from?: string;
        readonly cursor?: string;
        readonly limit?: number;
      };
    };
    readonly answer: {
      readonly items: readonly {
        readonly offset: string;
        readonly logOffset: string;
        readonly timeUs: string;
        readonly action: string;
        readonly outcome: "began" | "done" | "refused" | "failed";
        readonly actor: string;
        readonly reason?: string;
        readonly correlationId?: string;
        readonly tenant?: string;
        readonly code?: string;
        readonly detail?: Readonly<Record<string, string | number | boolean | null>>;
      }[];
      readonly next?: string;
    };
  };
  /** The system's audit stream, in order. */
  readonly "node.audit": {
    readonly input: {
      readonly query?: {
        readonly action?: string;
        readonly from?: string;
        readonly cursor?: string;
        readonly limit?: number;
      };
    };
    readonly answer: {
      readonly items: readonly {
        readonly offset: string;
        readonly logOffset: string;
        readonly timeUs: string;
        readonly action: string;
        readonly outcome: "began" | "done" | "refused" | "failed";
        readonly actor: string;
        readonly reason?: string;
        readonly correlationId?: string;
        readonly tenant?: string;
        readonly code?: string;
        readonly detail?: Readonly<Record<string, string | number | boolean | null>>;
      }[];
      readonly next?: string;
    };
  };
}

/** Operations that may take long. */
export type Lasting =
  | "tenants.trim"
  | "keys.reencrypt"
  | "node.rotateMasterKey"
  | "tenants.verify"
  | "tenants.rebuild"
  | "exports.create"
  | "tenants.import"
  | "node.backup"
  | "subjects.erase";

/** Operations that send as they go. */
export interface Streams {
  /** A stream's items as they come; `Last-Event-ID` goes on after one. */
  readonly "streams.tail": {
    readonly input: {
      readonly params: { readonly tenant: string; readonly stream: string };
      readonly query?: { readonly from?: string };
    };
  };
  /** The tenant's audit stream as OCSF events, one a line. */
  readonly "audit.ocsf": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly query?: { readonly action?: string; readonly from?: string };
    };
  };
  /** The tenant's audit stream as it grows; `Last-Event-ID` goes on after an event. */
  readonly "audit.tail": {
    readonly input: {
      readonly params: { readonly tenant: string };
      readonly query?: { readonly action?: string; readonly from?: string };
    };
  };
  /** The system's audit stream as OCSF events, one a line. */
  readonly "node.auditOcsf": {
    readonly input: { readonly query?: { readonly action?: string; readonly from?: string } };
  };
  /** The system's audit stream as it grows; `Last-Event-ID` goes on after an event. */
  readonly "node.auditTail": {
    readonly input: { readonly query?: { readonly action?: string; readonly from?: string } };
  };
}
