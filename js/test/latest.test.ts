import { describe, expect, it } from "vitest";
import { Latest } from "../src/state/latest";

/** An answerer whose answers come when the test says so. */
function manual() {
  const asked: number[] = [];
  const finish: Array<() => void> = [];
  const latest = new Latest<number>((question) => {
    asked.push(question);
    return new Promise((resolve) => finish.push(resolve));
  });
  const step = async () => {
    finish.shift()?.();
    await Promise.resolve();
    await Promise.resolve();
  };
  return { asked, latest, step };
}

describe("Latest", () => {
  it("answers the first question at once", () => {
    const { asked, latest } = manual();
    latest.ask(1);
    expect(asked).toEqual([1]);
  });

  it("keeps only the newest question while one is being answered", async () => {
    const { asked, latest, step } = manual();
    latest.ask(1);
    latest.ask(2);
    latest.ask(3);
    await step();
    expect(asked).toEqual([1, 3]);
  });

  it("starts again after it ran dry", async () => {
    const { asked, latest, step } = manual();
    latest.ask(1);
    await step();
    latest.ask(2);
    expect(asked).toEqual([1, 2]);
  });

  it("asks nothing after it was stopped", async () => {
    const { asked, latest, step } = manual();
    latest.ask(1);
    latest.ask(2);
    latest.stop();
    await step();
    latest.ask(3);
    expect(asked).toEqual([1]);
  });
});
