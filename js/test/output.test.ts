// The page of the output: names that stand under one another.

import { describe, expect, it } from "vitest";
import { shortNames } from "../src/output/names";

describe("names of layers", () => {
  it("lose the path that all of them share, and no more", () => {
    expect(shortNames(["encoder.layers.0", "encoder.layers.1"])).toEqual(["layers.0", "layers.1"]);
    expect(shortNames(["stem.conv", "stage1.0", "head"])).toEqual(["stem.conv", "stage1.0", "head"]);
    expect(shortNames(["a.b", "a.b.c"])).toEqual(["b", "b.c"]);
    expect(shortNames(["a.b.c"])).toEqual(["a.b.c"]);
    expect(shortNames([])).toEqual([]);
  });
});
