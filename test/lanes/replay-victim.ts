/** The process that is killed in the middle of a replay, before or after its first commit. */
import { onFailpoint } from "../../src/host/failpoint.ts";
import { Kimberlite, masterKeyFile, TenantId } from "../../src/index.ts";

const [dataDir = "", keyPath = "", failpoint = ""] = process.argv.slice(2);
const db = await Kimberlite.open({ dataDir, masterKey: masterKeyFile(keyPath) });
onFailpoint((name) => {
  if (name === failpoint) process.kill(process.pid, "SIGKILL");
});
await db.query(TenantId(1), "SELECT 1");
await db.close();
