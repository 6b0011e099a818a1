/** Links between the documents lead somewhere, and the commands in them exist. */
import { describe, expect, it } from "vitest";
import { checkoutFiles, readCheckoutFile } from "./checkout.ts";
import { pageAnchors, pageLinks, pageScripts } from "./links.ts";

const REQUIRED = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/SPEC.md", "docs/errors.md"];

const files = new Set(checkoutFiles());
const folders = new Set([...files].flatMap(foldersAbove));
const pages = [...files].filter((path) => path.endsWith(".md"));

describe("the documents", () => {
  it.each(REQUIRED)("include %s", (page) => {
    expect([...files]).toContain(page);
  });

  it.each(pages)("%s links only to what is there", (page) => {
    const broken = pageLinks(page, readCheckoutFile(page)).filter(
      ({ path, anchor }) => !leadsTo(path, anchor),
    );
    expect(broken.map((link) => link.target)).toEqual([]);
  });

  it.each(pages)("%s names only scripts that package.json has", (page) => {
    const { scripts } = JSON.parse(readCheckoutFile("package.json")) as { scripts: Record<string, string> };
    expect(pageScripts(readCheckoutFile(page)).filter((name) => !(name in scripts))).toEqual([]);
  });
});

describe("the checker of links", () => {
  it("resolves targets against their page and leaves other sites and code alone", () => {
    const text =
      "[a](b.md#c) [d](../x/) [e](#f) [g](https://h.example/) `[i](j)`\n```\n[k](l)\n```\n[m]: n.md";
    expect(pageLinks("docs/p.md", text)).toEqual([
      { target: "b.md#c", path: "docs/b.md", anchor: "c" },
      { target: "../x/", path: "x", anchor: undefined },
      { target: "#f", path: "docs/p.md", anchor: "f" },
      { target: "n.md", path: "docs/n.md", anchor: undefined },
    ]);
  });

  it("makes anchors as GitHub does", () => {
    const text = "# The way of a write\n## I-1: `tenant` isolation\n## Same\n## Same\n```\n# no\n```";
    expect([...pageAnchors(text)]).toEqual(["the-way-of-a-write", "i-1-tenant-isolation", "same", "same-1"]);
  });

  it("finds a broken path and a broken anchor", () => {
    expect(leadsTo("docs/no-such-page.md", undefined)).toBe(false);
    expect(leadsTo("CONTRIBUTING.md", "no-such-heading")).toBe(false);
    expect(leadsTo("src/host", undefined)).toBe(true);
  });
});

function leadsTo(path: string, anchor: string | undefined): boolean {
  if (!files.has(path)) return anchor === undefined && (path === "." || folders.has(path));
  return anchor === undefined || !path.endsWith(".md") || pageAnchors(readCheckoutFile(path)).has(anchor);
}

function foldersAbove(path: string): string[] {
  const parts = path.split("/").slice(0, -1);
  return parts.map((_, index) => parts.slice(0, index + 1).join("/"));
}
