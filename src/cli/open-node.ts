/** Opens the installation in a directory, or the server, that a command's options name. */
import type { GlobalOptions } from "./arguments.ts";
import { installationPaths, withInstallation } from "./installation.ts";
import type { Node } from "./node.ts";

/** Opens it, works, and closes it. */
export async function withNode<T>(options: GlobalOptions, work: (node: Node) => Promise<T>): Promise<T> {
  const { server, dir } = options;
  if (server === undefined) return withInstallation(installationPaths(dir), work);
  const { serverNode } = await import("./server-node.ts");
  return work(serverNode(server));
}
