/** Results as tables for people and as JSON for machines. */
import { mkdirSync, writeFileSync } from "node:fs";
import { availableParallelism, loadavg, totalmem } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import Table from "cli-table3";
import type { Results } from "./results.ts";
import { ratioOf } from "./verdicts.ts";

const FOLDER = fileURLToPath(new URL("results", import.meta.url));
/** A load average above this share of the cores means that something else was running too. */
const BUSY_SHARE = 0.25;

export interface Machine {
  readonly cores: number;
  readonly memoryGib: number;
  readonly node: string;
  /** Load average over a minute before the run: of others. */
  readonly loadBefore: number;
}

export function machine(): Machine {
  return {
    cores: availableParallelism(),
    memoryGib: Math.round(totalmem() / 2 ** 30),
    node: process.version,
    loadBefore: loadavg()[0] ?? 0,
  };
}

export function describe(host: Machine): string {
  const quiet = host.loadBefore <= host.cores * BUSY_SHARE;
  const others = quiet ? "" : `; the machine was shared (load ${host.loadBefore.toFixed(1)} before the run)`;
  return `${host.cores} cores, ${host.memoryGib} GiB, Node ${host.node}${others}`;
}

export function print(results: Results): void {
  if (results.comparisons.length > 0) console.log(comparisonTable(results));
  if (results.figures.length > 0) console.log(figureTable(results));
  if (results.verdicts.length > 0) console.log(verdictTable(results));
  for (const { name, reason } of results.skipped) console.log(`skipped: ${name}: ${reason}`);
}

function comparisonTable(results: Results): string {
  const table = new Table({
    head: [
      "operations/s",
      "tenants",
      "callers",
      "Kimberlite",
      "SQLite",
      "PostgreSQL",
      "× SQLite",
      "× PG",
      "p50 µs",
      "p99 µs",
    ],
    colAligns: ["left", ...new Array<"right">(9).fill("right")],
    style: { head: [], border: [], compact: true },
  });
  for (const comparison of results.comparisons) {
    const { workload, tenants, callers, subjects } = comparison;
    const rate = (name: string): string => number(subjects[name]?.perSecond);
    const ratio = (name: string): string => ratioOf(comparison, name)?.toFixed(2) ?? "–";
    const { p50Us, p99Us } = subjects["Kimberlite"] ?? {};
    const rates = [rate("Kimberlite"), rate("SQLite"), rate("PostgreSQL")];
    table.push([
      workload,
      tenants,
      callers,
      ...rates,
      ratio("SQLite"),
      ratio("PostgreSQL"),
      number(p50Us),
      number(p99Us),
    ]);
  }
  return table.toString();
}

function figureTable(results: Results): string {
  const table = new Table({
    head: ["measured", "", "", ""],
    colAligns: ["left", "right", "left", "left"],
    style: { head: [], border: [], compact: true },
  });
  for (const { name, value, unit, note = "" } of results.figures)
    table.push([name, number(value), unit, note]);
  return table.toString();
}

function verdictTable(results: Results): string {
  const table = new Table({
    head: ["target", "measured", ""],
    style: { head: [], border: [], compact: true },
  });
  for (const { target, measured, met } of results.verdicts)
    table.push([target, measured, met ? "met" : "MISSED"]);
  return table.toString();
}

/** Three digits that mean something, thousands apart. */
function number(value: number | undefined): string {
  if (value === undefined) return "–";
  if (value >= 100) return Math.round(value).toLocaleString("en-US");
  return value.toPrecision(3);
}

/** @returns the file's path */
export function save(results: Results, about: object): string {
  mkdirSync(FOLDER, { recursive: true });
  const at = new Date();
  const path = join(FOLDER, `${at.toISOString().slice(0, 19).replaceAll(":", "-")}.json`);
  writeFileSync(path, `${JSON.stringify({ at: at.toISOString(), ...about, ...results }, undefined, 2)}\n`);
  return path;
}
