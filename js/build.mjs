// Builds the front end into the Python package: one ES module and one style sheet, nothing fetched at run time.
import { build, context } from "esbuild";

const options = {
  entryPoints: { index: "js/src/index.tsx" },
  outdir: "nnviz_widget/static",
  bundle: true,
  minify: !process.argv.includes("--watch"),
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  define: { "define.amd": "false" },
  alias: {
    "d3-interpolate": "./js/src/graph/noTransitions.ts",
    "d3-transition": "./js/src/graph/noTransitions.ts",
  },
  logLevel: "info",
};

if (process.argv.includes("--watch")) {
  await (await context(options)).watch();
} else {
  await build(options);
}
