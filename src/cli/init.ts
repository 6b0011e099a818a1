/** `kimberlite init` */
import type { GlobalOptions } from "./arguments.ts";
import { initialise, installationPaths } from "./installation.ts";
import { toJson } from "./render.ts";

export async function init(options: GlobalOptions & { readonly masterKey?: string }): Promise<undefined> {
  const paths = installationPaths(options.dir);
  const fresh = await initialise(paths, options.masterKey);
  if (options.json === true) {
    console.log(
      toJson({ dir: paths.dir, masterKey: paths.masterKey, data: paths.data, masterKeyCreated: fresh }),
    );
    return;
  }
  if (options.masterKey !== undefined) console.log(`${paths.config}  names the master key`);
  else
    console.log(
      `${paths.masterKey}  ${fresh ? "new master key: keep a copy elsewhere" : "the master key that was there"}`,
    );
  console.log(`${paths.data}         data directory`);
  console.log(`\nNext: kimberlite tenant create 1 --name "Hospital A" --dir ${paths.dir}`);
}
