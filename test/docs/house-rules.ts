/**
 * The rules of the house that a linter does not know, decided on the syntax tree and never on the text: a word in a
 * comment or a string is not a use. Pure: a path and a text in, what is wrong out.
 */
import ts from "typescript";

/** One breach; `line` counts from 1. */
export interface Breach {
  readonly path: string;
  readonly line: number;
  readonly rule: string;
}

const MAX_LINES = 500;
const EMPTY_NAMES = /(^|\/)(utils?|helpers?|common|misc)(\/|\.[^/]*$)/;
const TEST_FILE = /\.test\.ts$/;
const CLOCK_FOLDERS = /^src\/(host|cli)\//;
const MACHINE_PATH = new RegExp(
  `(^|[\\s"'\`(=:])/(${["home", "Users", "root", "work", "tmp", "mnt"].join("|")})/`,
);

/** Every breach in one TypeScript file of `src`; tests beside the sources may use clock, console and randomness. */
export function breachesOf(path: string, text: string): Breach[] {
  const source = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true);
  const breaches: Breach[] = fileBreaches(path, text);
  const visit = (node: ts.Node): void => {
    for (const rule of nodeRules(node, path)) {
      breaches.push({ path, line: source.getLineAndCharacterOfPosition(node.getStart()).line + 1, rule });
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return breaches;
}

/** Paths of a machine, which work on no other. */
export function machinePathBreaches(path: string, text: string): Breach[] {
  const lines = text.split("\n").map((line, index) => ({ line, number: index + 1 }));
  const found = lines.filter(({ line }) => MACHINE_PATH.test(line));
  return found.map(({ number }) => ({ path, line: number, rule: "an absolute path of some machine" }));
}

function fileBreaches(path: string, text: string): Breach[] {
  const breaches = machinePathBreaches(path, text);
  if (EMPTY_NAMES.test(path)) breaches.push({ path, line: 1, rule: "a name that says nothing" });
  const lines = text.split("\n");
  const reason = lines.slice(0, 40).some((line) => /over 500 lines because/i.test(line));
  if (lines.length > MAX_LINES && !reason) {
    breaches.push({
      path,
      line: MAX_LINES,
      rule: 'over 500 lines without "Over 500 lines because …" at the top',
    });
  }
  return breaches;
}

function nodeRules(node: ts.Node, path: string): string[] {
  if (isStarExport(node)) return ["export *"];
  if (ts.isAsExpression(node) && node.type.kind === ts.SyntaxKind.AnyKeyword) return ["as any"];
  if (TEST_FILE.test(path)) return [];
  if (isMember(node, "Math", "random")) return ["Math.random: randomness is passed in"];
  if (!CLOCK_FOLDERS.test(path) && (isMember(node, "Date", "now") || isNewDate(node))) {
    return ["Date: time is passed in"];
  }
  if (!path.startsWith("src/cli/") && isMember(node, "console")) return ["console outside src/cli"];
  return [];
}

function isStarExport(node: ts.Node): boolean {
  if (!ts.isExportDeclaration(node)) return false;
  return node.exportClause === undefined || ts.isNamespaceExport(node.exportClause);
}

function isNewDate(node: ts.Node): boolean {
  // With arguments it is another form of a time that was passed in.
  if (!ts.isNewExpression(node) || (node.arguments?.length ?? 0) > 0) return false;
  return ts.isIdentifier(node.expression) && node.expression.text === "Date";
}

function isMember(node: ts.Node, object: string, member?: string): boolean {
  if (!ts.isPropertyAccessExpression(node) && !ts.isElementAccessExpression(node)) return false;
  if (!ts.isIdentifier(node.expression) || node.expression.text !== object) return false;
  return member === undefined || memberName(node) === member;
}

function memberName(node: ts.PropertyAccessExpression | ts.ElementAccessExpression): string | undefined {
  if (ts.isPropertyAccessExpression(node)) return node.name.text;
  return ts.isStringLiteral(node.argumentExpression) ? node.argumentExpression.text : undefined;
}
