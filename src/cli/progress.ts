/** A progress bar on stderr: only on a terminal, and only once the work has taken long enough to want one. */
import { Presets, SingleBar } from "cli-progress";

export interface Progress {
  update(done: number, total: number): void;
  /** Removes the bar. Safe to call twice. */
  stop(): void;
}

const SHOW_AFTER_MS = 300;

export function startProgress(label: string): Progress {
  if (process.stderr.isTTY !== true) return { update: () => undefined, stop: () => undefined };
  const bar = new SingleBar(
    {
      stream: process.stderr,
      format: `${label} {bar} {percentage}% | {eta_formatted} left`,
      hideCursor: true,
      clearOnComplete: true,
      linewrap: false,
    },
    Presets.shades_classic,
  );
  const startedMs = performance.now();
  let shown = false;
  return {
    update(done, total) {
      if (!shown && performance.now() - startedMs < SHOW_AFTER_MS) return;
      if (!shown) bar.start(total, done);
      shown = true;
      bar.setTotal(total);
      bar.update(done);
    },
    stop() {
      if (shown) bar.stop();
      shown = false;
    },
  };
}
