// The side of the drawer that changes a layer, as a module of its own (js/build.mjs).

import "./intervene.css";

export { ChangePanel as default } from "./ChangePanel";
