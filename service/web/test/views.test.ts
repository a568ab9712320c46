import { describe, expect, it } from "vitest";
import { axisOf } from "../src/components/parallel_coordinates";
import { numbersOf } from "../src/components/scatter";
import { differences, merged, mergePatch } from "../src/components/spec_diff";
import { changed, simpleForm, typed } from "../src/components/spec_form";
import { bytes, duration, number, tick } from "../src/format";
import { listQuery, sorted } from "../src/pages/jobs";
import { differingFields, groupsOf } from "../src/pages/compare";
import { bestSoFar, importancesOf } from "../src/pages/experiments";
import { parsedSpec } from "../src/pages/submit";
import { address, parseRoute } from "../src/router";

describe("listQuery", () => {
  const query = (text: string) => listQuery(new URLSearchParams(text)).replace(/&fields=[^&]*/, "");
  it("sends the filters as the API names them", () => {
    expect(query("state=running,queued&name=digits*&label=team%3Dvision")).toBe("limit=1000&state=running&state=queued&name=digits*&label.team=vision");
  });
  it("takes the whole last day in", () => {
    const sent = new URLSearchParams(listQuery(new URLSearchParams("from=2026-01-31&to=2026-01-31")));
    const [after, before] = [sent.get("created_after"), sent.get("created_before")].map((time) => Date.parse(time ?? ""));
    expect((before ?? 0) - (after ?? 0)).toBe(24 * 3600 * 1000);
  });
  it("writes comparisons of metrics so that the server reads the same", () => {
    expect(query("metric=val_accuracy%3E%3D0.9")).toBe("limit=1000&metric.val_accuracy%3E=0.9");
    expect(query("metric=val_loss%3C0.1")).toBe("limit=1000&metric.val_loss%3C0.1");
    expect(query("metric=val_loss%3D0.1")).toBe("limit=1000&metric.val_loss=0.1");
  });
});

describe("sorted", () => {
  it("puts rows without a value last, whichever way", () => {
    const rows = [{ id: "a", metrics: { best: {} } }, { id: "b", metrics: { best: { val_loss: 2 } } }, { id: "c", metrics: { best: { val_loss: 1 } } }] as never[];
    expect(sorted(rows, "metrics.best.val_loss").map((row) => row.id)).toEqual(["c", "b", "a"]);
    expect(sorted(rows, "-metrics.best.val_loss").map((row) => row.id)).toEqual(["b", "c", "a"]);
  });
});

describe("merged", () => {
  // the examples of RFC 7396, appendix A
  const cases: [unknown, unknown, unknown][] = [
    [{ a: "b" }, { a: "c" }, { a: "c" }],
    [{ a: "b" }, { b: "c" }, { a: "b", b: "c" }],
    [{ a: "b" }, { a: null }, {}],
    [{ a: ["b"] }, { a: "c" }, { a: "c" }],
    [{ a: { b: "c" } }, { a: { b: "d", c: null } }, { a: { b: "d" } }],
    [["a", "b"], ["c", "d"], ["c", "d"]],
    [{ e: null }, { a: 1 }, { e: null, a: 1 }],
    [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
  ];
  it.each(cases)("%j with %j gives %j", (document, patch, expected) => expect(merged(document, patch)).toEqual(expected));
});

describe("mergePatch", () => {
  const documents: unknown[] = [{ a: { b: 1, c: [1, 2] }, d: "x" }, { a: { b: 2 }, e: { f: 1 } }, { a: [3] }, {}, { a: { b: 1, c: [1, 2], g: { h: 1 } }, d: "x" }];
  it("makes the one document of the other, and is empty for the same", () => {
    for (const before of documents) for (const after of documents) expect(merged(before, mergePatch(before, after))).toEqual(after);
    expect(mergePatch(documents[0], structuredClone(documents[0]))).toEqual({});
    expect(mergePatch(documents[0], documents[1])).toEqual({ a: { b: 2, c: null }, d: null, e: { f: 1 } });
  });
});

describe("differences", () => {
  it("names fields by path and takes lists as a whole", () => {
    expect(differences({ a: { b: 1, c: [1, 2] }, d: 1 }, { a: { b: 2, c: [1] }, d: 1 })).toEqual([
      { path: "a.b", before: 1, after: 2 },
      { path: "a.c", before: [1, 2], after: [1] },
    ]);
  });
});

describe("parsedSpec", () => {
  it("reads YAML and says where it cannot", () => {
    expect(parsedSpec("dataset: digits\nmodel: {kind: mlp}").spec).toEqual({ dataset: "digits", model: { kind: "mlp" } });
    expect(parsedSpec("a: [1").problem?.detail).toBeTruthy();
    expect(parsedSpec("- 1").problem?.detail).toContain("mapping");
  });
});

describe("addresses", () => {
  it("keep what is strange in names", () => {
    const route = parseRoute(address(["datasets", "a/b c"], { x: "1&2" }));
    expect(route.path).toEqual(["datasets", "a/b c"]);
    expect(route.query.get("x")).toBe("1&2");
  });
});

describe("formats", () => {
  it("reads as people write", () => {
    expect([number(0.123456), number(12), number(1e-7), number(null), number(Number.NaN)]).toEqual(["0.1235", "12", "1.00e-7", "–", "–"]);
    expect([tick(1.5), tick(0.2), tick(1e-5), tick(100000)]).toEqual(["1.5", "0.2", "1e-5", "100000"]);
    expect([duration(3.21), duration(59.6), duration(3700), bytes(1536)]).toEqual(["3.2 s", "1 min 0 s", "1 h 1 min", "1.50 KiB"]);
  });
});

describe("groupsOf", () => {
  const job = (id: string, lr: number, seed: number, fold = 0) =>
    ({ id, name: id, replicate_key: `key of ${lr}`, resolved: { optimizer: { lr }, train: { seed }, split: { fold } } }) as never;
  it("joins runs that differ in seeds and folds alone", () => {
    const jobs = [job("a", 0.1, 0), job("b", 0.1, 1), job("c", 0.2, 0, 1), job("d", 0.2, 1, 2)];
    expect([...groupsOf(jobs)]).toEqual([
      ["lr=0.1", ["a", "b"]],
      ["lr=0.2", ["c", "d"]],
    ]);
    expect(differingFields(jobs).map(([path]) => path)).toEqual(["optimizer.lr", "split.fold", "train.seed"]);
    expect(groupsOf([job("a", 0.1, 0), job("b", 0.2, 0)]).size).toBe(0);
  });
});

describe("importancesOf", () => {
  const trial = (number: number, params: Record<string, unknown>, value: number | null) => ({ number, params, value }) as never;
  it("is the share of the variance that a parameter explains by itself", () => {
    // value = 10 a + b: a explains nearly all, seed nothing
    const trials = [0, 1].flatMap((a) => [0, 1].flatMap((b) => [0, 1, 2].map((seed) => trial(0, { a, b, seed }, 10 * a + b))));
    const found = importancesOf(trials, ["seed", "b", "a"]);
    expect(found.map((one) => one.name)).toEqual(["a", expect.any(String), expect.any(String)]);
    // SS_a = 300, SS_total = 303, MS_within = 3 / 10
    expect(found[0]?.share).toBeCloseTo((300 - 0.3) / (303 + 0.3), 12);
    expect(found.find((one) => one.name === "seed")?.share).toBe(0);
  });
  it("cuts numbers into parts, and says nothing of what never varied", () => {
    const trials = Array.from({ length: 40 }, (_, i) => trial(i, { lr: i / 40, kind: "x" }, i));
    const [only, ...others] = importancesOf([...trials, trial(41, { lr: 1 }, null)], ["lr", "kind"]);
    expect([only?.name, only?.levels, others]).toEqual(["lr", 4, []]);
    expect(only?.share).toBeGreaterThan(0.9);
  });
});

describe("bestSoFar", () => {
  it("never gets worse, and leaves out trials without a value", () => {
    const trials = [3, null, 5, 2].map((value, number) => ({ number, value })) as never[];
    expect(bestSoFar(trials, "min")).toEqual({ x: [0, 2, 3], y: [3, 5, 2], best: [3, 3, 2] });
    expect(bestSoFar(trials, "max").best).toEqual([3, 5, 5]);
  });
});

describe("axisOf", () => {
  it("places numbers by value, wide ranges by logarithm, and names by order", () => {
    expect(axisOf("a", [0, 5, 10]).place(5)).toBe(0.5);
    expect(axisOf("lr", [1e-4, 1e-2, 1]).place(1e-2)).toBeCloseTo(0.5, 12);
    const names = axisOf("kind", ["sgd", "adam", null]);
    expect([names.place("sgd"), names.place("adam"), names.place(null)]).toEqual([0, 1, null]);
    expect(axisOf("c", [7, 7]).place(7)).toBe(0.5);
  });
});

describe("the form of a spec", () => {
  it("reads what is typed as the schema says, and leaves mistakes to the service", () => {
    expect(typed("0.01", { type: "number" })).toBe(0.01);
    expect(typed("256, 128", { type: "array", items: { type: "integer" } })).toEqual([256, 128]);
    expect(typed("true", { type: "boolean" })).toBe(true);
    expect(typed(" ", { type: "number" })).toBeUndefined();
    expect(typed("many", { type: "integer" })).toBe("many");
    expect(typed("2", { enum: [1, 2] })).toBe(2);
  });
  it("takes out what is emptied, so that the default counts", () => {
    expect(changed({ model: { kind: "mlp", dropout: 0.5 } }, "model", changed({ kind: "mlp", dropout: 0.5 }, "dropout", undefined))).toEqual({ model: { kind: "mlp" } });
    expect(changed({ a: 1, train: { epochs: 2 } }, "train", {})).toEqual({ a: 1 });
  });
  it("offers fields for plain values alone", () => {
    expect(simpleForm({ anyOf: [{ type: "null" }, { type: "integer" }] })?.type).toBe("integer");
    expect(simpleForm({ type: "object", properties: {} })).toBeNull();
  });
});

describe("numbersOf", () => {
  it("finds best metrics and numbers of the spec by path", () => {
    const job = { metrics: { best: { val_loss: 0.1, val_r2: null } }, resolved: { optimizer: { kind: "adam", lr: 0.01 }, model: { hidden: [3] } } };
    expect(Object.fromEntries(numbersOf(job as never))).toEqual({ val_loss: 0.1, "optimizer.lr": 0.01 });
  });
});
