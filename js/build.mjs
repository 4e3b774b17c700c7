// Builds the front end into the Python package: one ES module and one style sheet that travel with every widget, and
// the pages that are fetched from the kernel when they are first opened. Nothing comes from anywhere else.

import { createHash } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { build, context } from "esbuild";

const watching = process.argv.includes("--watch");
const common = {
  outdir: "nnviz_widget/static",
  bundle: true,
  minify: !watching,
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  logLevel: "info",
};

const main = {
  ...common,
  entryPoints: { index: "js/src/index.tsx" },
  format: "esm",
  define: { "define.amd": "false" },
  alias: {
    "d3-interpolate": "./js/src/graph/noTransitions.ts",
    "d3-transition": "./js/src/graph/noTransitions.ts",
  },
};

// A page is a function of `require`, which gives it the libraries of the main module (js/src/pages.ts): two copies
// of them would not know of each other's state.
const pages = {
  ...common,
  entryPoints: Object.fromEntries(
    ["explain", "paint", "influence", "output", "math", "weights", "intervene", "compare"].map((name) => [
      name,
      `js/src/${name}/index.ts`,
    ]),
  ),
  format: "cjs",
  external: ["preact", "preact/hooks", "preact/jsx-runtime", "@preact/signals"],
  banner: { js: "export default (require) => { const module = { exports: {} };" },
  footer: { js: "return module.exports; };" },
};

// The host imports the module anew for every widget. What it gets is the text of ours, which only the first widget
// of a page reads: that takes longer than to draw a graph, and the code that has run before is fast.
function once(text) {
  const name = `nnviz_widget ${createHash("sha256").update(text).digest("hex")}`;
  return `const name = Symbol.for(${JSON.stringify(name)});
async function load() {
  const url = URL.createObjectURL(new Blob([${JSON.stringify(text)}], { type: "text/javascript" }));
  try {
    return await import(url);
  } catch (error) {
    delete globalThis[name];
    throw error;
  } finally {
    URL.revokeObjectURL(url);
  }
}
export default (await (globalThis[name] ??= load())).default;
`;
}

if (watching) {
  for (const options of [main, pages]) await (await context(options)).watch();
} else {
  const { outputFiles } = await build({ ...main, write: false });
  await mkdir(common.outdir, { recursive: true });
  for (const { path, text } of outputFiles) {
    await writeFile(path, path.endsWith(".js") ? once(text) : text);
  }
  await build(pages);
}
