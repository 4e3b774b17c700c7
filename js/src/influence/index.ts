// What an input pixel does, as a module of its own (js/build.mjs).

import "./influence.css";

export { InfluenceCard as default } from "./InfluenceCard";
