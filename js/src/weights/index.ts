// What a layer has learned: a side of the drawer as a module of its own (js/build.mjs).

import "../math/math.css";
import "./weights.css";

export { WeightsPanel as default } from "./WeightsPanel";
