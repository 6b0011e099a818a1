import { readFileSync } from "node:fs";
import { Reference } from "./reference.ts";
const lines = readFileSync(process.argv[2]!, "utf8").split("\n");
const start = lines.findIndex((l) => l.startsWith("step 0:")); const end = lines.findIndex((l, i) => i > start && l === "]");
const steps: any[][] = [];
for (const l of lines.slice(start, end)) {
  if (/^step/.test(l)) steps.push([]);
  else if (/^  (list|callback)/.test(l)) steps.at(-1)!.push({ kind: l.trim().match(/^\w+/)![0], statements: [], abandon: l.includes("abandoned") });
  else if (/^    /.test(l)) steps.at(-1)!.at(-1).statements.push(l.trim().replace(/;$/, ""));
  else if (l.trim()) steps.at(-1)!.push({ kind: "single", sql: l.trim().replace(/;$/, "") });
}
const until = Number(process.argv[3] ?? steps.length);
const ref = new Reference();
for (const s of steps.slice(0, until)) for (const c of s) ref.call(c);
console.log(ref.db.prepare("SELECT sql FROM sqlite_master").pluck().all());
for (const t of ["t1","t2","t3","t4"]) { try { console.log(t, ref.db.prepare("SELECT * FROM "+t).all()); } catch (e: any) { console.log(t, e.message); } }
for (const c of steps[until]!) { console.log(c, ref.call(c)); }
for (const t of ["t1","t2","t3","t4"]) { try { console.log(t, ref.db.prepare("SELECT * FROM "+t).all()); } catch (e: any) { console.log(t, e.message); } }
console.log(ref.db.pragma("foreign_key_check"));
