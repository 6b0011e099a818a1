/** Links of a Markdown page within the checkout, and the anchors that its headings make, as GitHub makes them. */
import { posix } from "node:path";

/** `path` is from the root of the checkout; `anchor` is undefined when the link has none. */
export interface PageLink {
  readonly target: string;
  readonly path: string;
  readonly anchor: string | undefined;
}

const INLINE_LINK = /\]\(\s*<?([^)\s>]+)>?(?:\s+"[^"]*")?\s*\)/g;
const REFERENCE_LINK = /^\s*\[[^\]]+\]:\s*(\S+)/gm;
const ELSEWHERE = /^([a-z][a-z0-9+.-]*:|\/\/)/i;

/** Links of a page to files and headings of this checkout, in the order of the page. */
export function pageLinks(page: string, markdown: string): PageLink[] {
  const prose = withoutCode(markdown);
  const targets = [...prose.matchAll(INLINE_LINK), ...prose.matchAll(REFERENCE_LINK)].map(
    (match) => match[1] ?? "",
  );
  return targets.filter((target) => !ELSEWHERE.test(target)).map((target) => resolveLink(page, target));
}

/** The anchors of a page's headings; equal headings are numbered. */
export function pageAnchors(markdown: string): Set<string> {
  const anchors = new Set<string>();
  const headings = markdown.replace(/^```[\s\S]*?^```/gm, "").matchAll(/^#{1,6}\s+(.+?)\s*#*$/gm);
  for (const [, heading] of headings) {
    const base = anchorOf(heading ?? "");
    let anchor = base;
    for (let count = 1; anchors.has(anchor); count += 1) anchor = `${base}-${count}`;
    anchors.add(anchor);
  }
  return anchors;
}

/** What `npm run` commands a page tells its reader to use. */
export function pageScripts(markdown: string): string[] {
  return [...markdown.matchAll(/\bnpm run (?:--?[\w-]+ )*([\w:-]+)/g)].map((match) => match[1] ?? "");
}

function resolveLink(page: string, target: string): PageLink {
  const [file = "", anchor] = target.split("#");
  const path = file === "" ? page : posix.normalize(posix.join(posix.dirname(page), decodeURI(file)));
  return { target, path: path.replace(/\/$/, ""), anchor: anchor === "" ? undefined : anchor };
}

function anchorOf(heading: string): string {
  const words = heading.replace(/\[([^\]]*)\]\([^)]*\)/g, "$1").toLowerCase();
  return words.replace(/[^\p{L}\p{N}\p{M}\p{Pc}\- ]/gu, "").replaceAll(" ", "-");
}

function withoutCode(markdown: string): string {
  return markdown.replace(/^\s*```[\s\S]*?^\s*```/gm, "").replace(/`[^`\n]*`/g, "");
}
