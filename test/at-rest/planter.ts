/**
 * A process of its own that plants the marks and says how far it is, one word a line; it then waits to be killed.
 *
 * Arguments: data directory, master key file, and what to do: `plant`, or `rebuild` to read what must first be rebuilt.
 */
import { Kimberlite, masterKeyFile } from "../../src/index.ts";
import { A, plant } from "./markers.ts";

const [dataDir = "", keyPath = "", work = ""] = process.argv.slice(2);
const say = (word: string): void => void process.stdout.write(`${word}\n`);

const db = await Kimberlite.open({
  dataDir,
  masterKey: masterKeyFile(keyPath),
  journalFileBytes: 1024 * 1024,
  onProgress: () => say("rebuilding"),
});
say("open");
if (work === "plant") await plant(db);
else await db.query(A, "SELECT count(*) FROM plain");
say("done");
setInterval(() => undefined, 1_000);
