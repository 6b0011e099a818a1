/** `kimberlite grant …`, as it is typed. */
import { join } from "node:path";
import { expect, it } from "vitest";
import { commandOn, scratchFolder, succeed } from "../e2e/command.ts";

const folder = scratchFolder();

it("grants are made, used, listed and revoked from the command line", async () => {
  const kimberlite = commandOn(join(folder, "db"));
  await succeed(kimberlite(["init"]));
  for (const id of ["1", "2"]) await succeed(kimberlite(["tenant", "create", id, "--name", `T${id}`]));
  await succeed(kimberlite(["sql", "--tenant", "1", "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b)"]));
  await succeed(kimberlite(["sql", "--tenant", "1", "INSERT INTO t VALUES (1, 'x', 'y'), (2, 'z', 'y')"]));
  const terms = ["--columns", "id, a", "--where", "id < 2", "--expires", "1h", "--purpose", "referral"];
  const create = ["grant", "create", "--from", "1", "--to", "2", "--of", "t", ...terms];
  const { id } = JSON.parse(await succeed(kimberlite([...create, "--json"]))) as { id: string };
  const query = ["grant", "query", "SELECT * FROM t", "--tenant", "2", "--grant", id];
  const read = JSON.parse(await succeed(kimberlite([...query, "--json"]))) as { rows: unknown };
  expect(read.rows).toEqual([{ id: 1, a: "x" }]);
  expect(await succeed(kimberlite(["grant", "list", "--tenant", "1"]))).toMatch(/id < 2/);
  expect(await succeed(kimberlite(["grant", "list", "--tenant", "2"]))).not.toMatch(/id < 2/);
  await succeed(kimberlite(["grant", "revoke", id, "--reason", "over"]));
  expect((await kimberlite(query)).code).toBe(4);
  expect((await kimberlite([...create.slice(0, -2), "--purpose", "x", "--expires", "soon"])).code).toBe(2);
});
