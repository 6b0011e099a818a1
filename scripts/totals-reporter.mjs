/**
 * A vitest reporter that writes what `scripts/test.mjs` counts to the file that KIMBERLITE_TOTALS names.
 *
 * vitest's own JSON report leaves out why a test was skipped, files that failed before their first test, and errors
 * outside of any test. Here a file that fails with no failed test of its own counts as one failure, as does a test that
 * never ended, and all errors outside of tests together count as one.
 */
import { writeFileSync } from "node:fs";

export default class TotalsReporter {
  onTestRunEnd(modules, unhandledErrors) {
    const totals = { passed: 0, failed: 0, skipped: [] };
    for (const module of modules) countModule(module, totals);
    if (unhandledErrors.length > 0) totals.failed += 1;
    if (process.env.KIMBERLITE_TOTALS) writeFileSync(process.env.KIMBERLITE_TOTALS, JSON.stringify(totals));
  }
}

function countModule(module, totals) {
  const failedBefore = totals.failed;
  for (const test of module.children.allTests()) {
    const result = test.result();
    if (result.state === "passed") totals.passed += 1;
    else if (result.state === "skipped") totals.skipped.push(skippedTest(module, test, result.note));
    else totals.failed += 1;
  }
  if (!module.ok() && totals.failed === failedBefore) totals.failed += 1;
}

function skippedTest(module, test, note) {
  const reason = note ?? (test.options.mode === "todo" ? "to do" : "no reason given");
  return { test: `${module.relativeModuleId} > ${test.fullName}`, reason };
}
