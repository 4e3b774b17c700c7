// The page that compares as a module of its own (js/build.mjs).

import "./compare.css";

export { ComparePanel as default } from "./ComparePanel";
