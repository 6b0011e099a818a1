/** Full-text search: what MATCH finds is found again in a projection that is built from the log. */
import { testFeatures } from "./feature.ts";

const OWN = [
  "CREATE VIRTUAL TABLE notes USING fts5(title, body, tokenize = 'porter')",
  "INSERT INTO notes VALUES ('Running', 'She runs far'), ('Sleep', 'He sleeps well'), ('Both', 'run and sleep')",
];

const EXTERNAL = [
  "CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT)",
  "CREATE VIRTUAL TABLE found USING fts5(body, content = 'docs', content_rowid = 'id')",
  "CREATE TRIGGER di AFTER INSERT ON docs BEGIN INSERT INTO found (rowid, body) VALUES (NEW.id, NEW.body); END",
  "CREATE TRIGGER dd AFTER DELETE ON docs BEGIN INSERT INTO found (found, rowid, body) VALUES ('delete', OLD.id, OLD.body); END",
  `CREATE TRIGGER du AFTER UPDATE ON docs BEGIN
    INSERT INTO found (found, rowid, body) VALUES ('delete', OLD.id, OLD.body);
    INSERT INTO found (rowid, body) VALUES (NEW.id, NEW.body); END`,
  "INSERT INTO docs (body) VALUES ('red apple'), ('green pear'), ('red pear')",
];

testFeatures([
  {
    name: "own content: insert, update, delete, MATCH, rank and auxiliary functions",
    steps: [...OWN, "UPDATE notes SET body = 'He naps' WHERE rowid = 2", "DELETE FROM notes WHERE rowid = 1"],
    expect: {
      "SELECT rowid FROM notes WHERE notes MATCH 'run' ORDER BY rank": [[3]],
      "SELECT rowid FROM notes WHERE notes MATCH 'title : sleep OR naps' ORDER BY rowid": [[2]],
      "SELECT highlight(notes, 1, '[', ']'), snippet(notes, 1, '<', '>', '…', 2) FROM notes('sleep') WHERE rowid = 3":
        [["run and [sleep]", "…and <sleep>"]],
      "SELECT bm25(notes) < 0 FROM notes('naps')": [[1]],
    },
  },
  {
    name: "a failure beside the table's making leaves its documents captured",
    steps: [
      "CREATE VIRTUAL TABLE notes USING fts5(body)",
      { sql: "CREATE TRIGGER r BEFORE INSERT ON notes BEGIN SELECT 1; END", fails: "invalid_sql" },
      "INSERT INTO notes VALUES ('run')",
      { sql: "INSERT INTO nowhere VALUES (1)", fails: "invalid_sql" },
      "INSERT INTO notes VALUES ('run again')",
    ],
    expect: { "SELECT rowid FROM notes('run') ORDER BY rowid": [[1], [2]] },
  },
  {
    name: "settings of a full-text table are kept",
    steps: [
      ...OWN,
      "INSERT INTO notes (notes, rank) VALUES ('rank', 'bm25(100.0, 1.0)')",
      "INSERT INTO notes (notes, rank) VALUES ('pgsz', 512)",
    ],
    expect: {
      "SELECT k, v FROM notes_config ORDER BY k": [
        ["pgsz", 512],
        ["rank", "bm25(100.0, 1.0)"],
        ["version", 4],
      ],
      "SELECT rowid FROM notes('sleep') ORDER BY rank": [[2], [3]],
    },
  },
  {
    name: "external content with triggers",
    steps: [...EXTERNAL, "UPDATE docs SET body = 'blue plum' WHERE id = 1", "DELETE FROM docs WHERE id = 2"],
    expect: {
      "SELECT rowid, body FROM found('red')": [[3, "red pear"]],
      "SELECT rowid FROM found('plum OR apple')": [[1]],
      "SELECT count(*) FROM found('green')": [[0]],
    },
  },
  {
    name: "the index of external content is built by command, alone in its transaction",
    steps: [
      "CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT)",
      "INSERT INTO docs VALUES (1, 'red apple')",
      "CREATE VIRTUAL TABLE found USING fts5(body, content = 'docs', content_rowid = 'id')",
      "INSERT INTO found (found) VALUES ('rebuild')",
    ],
    expect: { "SELECT rowid FROM found('apple')": [[1]] },
  },
  {
    name: "a content table that is dropped first does not stop a rebuild",
    steps: [...EXTERNAL, "DROP TABLE docs", "CREATE TABLE other (a)", "INSERT INTO other VALUES (1)"],
    expect: { "SELECT a FROM other": [[1]] },
  },
  {
    name: "tables without content are refused however they are written",
    steps: [
      "content=''",
      'content=""',
      "content=[]",
      "content=``",
      "content=",
      "content = '', contentless_delete = 1",
    ].map((option) => ({
      sql: `CREATE VIRTUAL TABLE f USING fts5(a, ${option})`,
      fails: "unsupported_sql" as const,
    })),
  },
  {
    name: "other virtual tables are refused",
    steps: ["fts3(a)", "fts4(a)", "rtree(a, b, c)", "dbstat"].map((module) => ({
      sql: `CREATE VIRTUAL TABLE f USING ${module}`,
      fails: "unsupported_sql" as const,
    })),
  },
  {
    name: "the tables of an index are for it alone",
    steps: [
      ...OWN,
      { sql: "DELETE FROM notes_content", fails: "invalid_sql" },
      { sql: "DROP TABLE notes_data", fails: "invalid_sql" },
    ],
    expect: { "SELECT count(*) FROM notes": [[3]] },
  },
  {
    name: "RENAME, and then more documents",
    steps: [...OWN, "ALTER TABLE notes RENAME TO memos", "INSERT INTO memos VALUES ('New', 'a new run')"],
    expect: { "SELECT rowid FROM memos('run') ORDER BY rowid": [[1], [3], [4]] },
  },
  {
    name: "RENAME after a failure",
    steps: [
      "CREATE VIRTUAL TABLE notes USING fts5(body)",
      { sql: "DELETE FROM nowhere", fails: "invalid_sql" },
      "ALTER TABLE notes RENAME TO memos",
      "INSERT INTO memos VALUES ('run')",
    ],
    expect: { "SELECT rowid FROM memos('run')": [[1]] },
  },
  {
    name: "DROP, and another of the same name",
    steps: [
      ...OWN,
      "DROP TABLE notes",
      "CREATE VIRTUAL TABLE notes USING fts5(body)",
      "INSERT INTO notes VALUES ('run')",
    ],
    expect: { "SELECT rowid FROM notes('run')": [[1]] },
  },
]);
