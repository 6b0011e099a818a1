/** Which version of the product this is. */
import { createRequire } from "node:module";

/** As `package.json` says, which is two folders up from here in sources and in what is built of them. */
export const PRODUCT_VERSION: string = (
  createRequire(import.meta.url)("../../package.json") as { readonly version: string }
).version;
