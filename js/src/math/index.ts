// How one number came about: a side of the drawer as a module of its own (js/build.mjs).

import "./math.css";

export { MathPanel as default } from "./MathPanel";
