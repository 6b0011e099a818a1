/**
 * Loaded into the process of an erasure drill (`node --import`): it keeps of the tenant what an erasure must not leave, a
 * row and a key in memory and a row in a file, so that a test sees the drill find them.
 */
import { hash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { drillText } from "../../src/cli/drill-secrets.ts";

const kept = [];
let begun;

function keepOf(answer) {
  if (answer.keys !== undefined) {
    kept.push(Buffer.from(drillText(begun.seed, 7)));
    kept.push(hash("sha256", `${begun.seed} key ${answer.keys.from}`, "buffer"));
  }
  if (answer.certificate !== undefined) writeFileSync(join(begun.paths.data, "left-behind"), kept[0]);
}

if (process.argv[2] === "drill-subject") {
  const [on, send] = [process.on.bind(process), process.send.bind(process)];
  process.on = (name, listener) =>
    on(name, (...values) => {
      if (name === "message" && values[0].do === "live") begun = values[0];
      listener(...values);
    });
  process.send = (answer) => {
    keepOf(answer);
    return send(answer);
  };
}
