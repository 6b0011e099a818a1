/**
 * Builds what is shipped: `dist` from `src`, and the native extension for this platform. Also npm's prepack.
 *
 * Always compiles: a package is never packed from files that were only believed current.
 */
import { buildDist, buildNative } from "./artifacts.mjs";

try {
  buildNative();
  buildDist();
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
console.log("built  dist and the native extension");
