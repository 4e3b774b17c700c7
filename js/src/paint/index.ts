// The painter as a module of its own (js/build.mjs).

import "./paint.css";

export { PaintCard as default } from "./PaintCard";
