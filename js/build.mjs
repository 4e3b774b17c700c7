// Builds the front end into the Python package: one ES module and one style sheet that travel with every widget, and
// the pages that are fetched from the kernel when they are first opened. Nothing comes from anywhere else.
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

for (const options of [main, pages]) {
  if (watching) await (await context(options)).watch();
  else await build(options);
}
