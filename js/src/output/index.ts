// The page of the output as a module of its own (js/build.mjs).

import "./output.css";

export { OutputPanel as default } from "./OutputPanel";
