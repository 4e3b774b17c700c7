// The page of attributions as a module of its own (js/build.mjs).

import "./explain.css";

export { ExplainPanel as default } from "./ExplainPanel";
