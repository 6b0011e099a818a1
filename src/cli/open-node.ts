/** Opens the installation in a directory, or the server, that a command's options name. */
import type { GlobalOptions } from "./arguments.ts";
import { installationPaths, withInstallation } from "./installation.ts";
import type { Node } from "./node.ts";
import { serverNode } from "./server-node.ts";

/** Opens it, works, and closes it. */
export function withNode<T>(options: GlobalOptions, work: (node: Node) => Promise<T>): Promise<T> {
  const { server, dir } = options;
  return server === undefined ? withInstallation(installationPaths(dir), work) : work(serverNode(server));
}
