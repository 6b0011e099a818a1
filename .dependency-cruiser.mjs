/**
 * The rooms of `src` and the one direction in which they depend on each other.
 *
 * A room may import the rooms of the lines above its own. Rooms of one line do not know each other, except as
 * `SIBLINGS` allows. Type imports count. Unit tests beside the sources are free of the order, not of the rest.
 */
const ORDER = [
  ["errors.ts"],
  ["host"],
  ["tenant"],
  ["log", "keys", "quota", "retention", "auth"],
  ["projection"],
  ["pipeline"],
  ["stream"],
  ["audit", "erasure", "portability", "backup", "sharing"],
  ["directory"],
  ["engine"],
  ["hrana"],
  ["server"],
  ["client"],
  ["cli", "testing"],
];

/** Room → rooms of its own line that it may import. */
const SIBLINGS = {};

/** The only files that hand on what others export. */
const REEXPORTING = "^src/(index|client/index|testing/index)\\.ts$";

const TEST = "\\.test\\.ts$";
const DEV_GROUPS = ["npm-dev", "npm-no-pkg", "npm-unknown"];

const level = new Map(ORDER.flatMap((rooms, index) => rooms.map((room) => [room, index])));

/** Where a room's files are. The engine is every file directly in src but errors.ts. */
function pathOf(room) {
  if (room === "errors.ts") return "^src/errors\\.ts$";
  if (room === "engine") return "^src/(?!errors\\.ts$)[^/]+\\.ts$";
  return `^src/${room}/`;
}

function mayNotImport(room) {
  const allowed = [room, ...(SIBLINGS[room] ?? [])];
  return [...level.keys()].filter((other) => level.get(other) >= level.get(room) && !allowed.includes(other));
}

const roomRules = [...level.keys()]
  .filter((room) => mayNotImport(room).length > 0)
  .map((room) => ({
    name: `order-${room.replace(".ts", "")}`,
    comment: `${room} is below, or beside, what it imports here.`,
    severity: "error",
    from: { path: pathOf(room), pathNot: TEST },
    to: { path: mayNotImport(room).map(pathOf) },
  }));

const knownRooms = [...level.keys()].filter((room) => /^\w+$/.test(room) && room !== "engine").join("|");

export default {
  forbidden: [
    ...roomRules,
    {
      name: "known-rooms",
      comment: "A new room takes its place in ORDER first.",
      severity: "error",
      from: { path: `^src/(?!(${knownRooms})/)[^/]+/` },
      to: {},
    },
    {
      name: "no-cycles",
      severity: "error",
      from: {},
      to: { circular: true },
    },
    {
      name: "no-barrels",
      comment: "A name is imported from the file that defines it; only the public entries re-export.",
      severity: "error",
      from: { pathNot: REEXPORTING },
      to: { dependencyTypes: ["export"] },
    },
    {
      name: "no-import-of-entries",
      comment: "src/index.ts is for users; inside, import the file that defines the name.",
      severity: "error",
      from: { path: "^src/", pathNot: TEST },
      to: { path: "^src/index\\.ts$" },
    },
    {
      name: "no-tests-in-production",
      severity: "error",
      from: { path: "^src/", pathNot: TEST },
      to: { path: [TEST, "^(test|bench|scripts)/"] },
    },
    {
      name: "no-dev-dependencies-in-production",
      severity: "error",
      from: { path: "^src/", pathNot: TEST },
      to: { dependencyTypes: DEV_GROUPS, dependencyTypesNot: ["type-only"] },
    },
    {
      name: "disk-through-the-port",
      comment:
        "Files are touched through src/host, so that tests can break the disk. SQLite opens its own, and the master " +
        "key file, and files of credentials for a vault or token, lie outside the data directory; the verifier of exports is one file that needs nothing of ours.",
      severity: "error",
      from: {
        path: "^src/",
        pathNot: [
          TEST,
          "^src/(host|cli|projection)/",
          "^src/keys/(master-key-file|vault-client|pkcs11)\\.ts$",
          "^src/portability/export-verifier\\.ts$",
        ],
      },
      to: { path: "^(node:)?fs(/promises)?$" },
    },
    {
      name: "sqlite-in-the-projection",
      comment:
        "Every connection to data is opened where its cipher and its guard are installed. The lock of the data " +
        "directory is an empty database, for the lock alone.",
      severity: "error",
      from: { path: "^src/", pathNot: [TEST, "^src/projection/", "^src/directory/data-directory\\.ts$"] },
      to: { path: ["better-sqlite3", "^(node:)?sqlite$"] },
    },
    {
      name: "resolvable",
      severity: "error",
      from: {},
      to: { couldNotResolve: true },
    },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    enhancedResolveOptions: {
      exportsFields: ["exports"],
      conditionNames: ["import", "node", "default", "types"],
    },
  },
};
