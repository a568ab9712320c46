import { afterEach, describe, expect, it, vi } from "vitest";
import { EventParser, follow, type StreamEvent } from "../src/api/events";
import { applied, type JobRow } from "../src/live_jobs";

describe("EventParser", () => {
  it("takes events whole, however they are cut", () => {
    const text = 'event: metric\ndata: [1,\ndata: 2]\nid: 7.0.1\n\n: ping\n\nevent: end\r\ndata: {}\r\n\r\n';
    for (let cut = 1; cut < text.length; cut += 1) {
      const parser = new EventParser();
      const found = [...parser.push(text.slice(0, cut)), ...parser.push(text.slice(cut))];
      expect(found).toEqual([
        { id: "7.0.1", name: "metric", data: [1, 2] },
        { id: null, name: "end", data: {} },
      ]);
    }
  });
});

function answer(parts: string[], { cut = false } = {}): Response {
  const encoder = new TextEncoder();
  const body = new ReadableStream({
    start(controller) {
      for (const part of parts) controller.enqueue(encoder.encode(part));
      if (cut) controller.error(new TypeError("network"));
      else controller.close();
    },
  });
  return new Response(body, { status: 200, headers: { "Content-Type": "text/event-stream" } });
}

describe("follow", () => {
  afterEach(() => vi.useRealTimers());

  it("continues behind the last event after a cut, with the key, and stops at the end", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const asked: (string | null)[] = [];
    const answers = [answer(['event: metric\ndata: 1\nid: 1.0.0\n\n'], { cut: true }), answer(['event: metric\ndata: 2\nid: 2.0.0\n\nevent: end\ndata: {}\nid: 2.0.0.end\n\n'])];
    vi.stubGlobal("fetch", async (path: string, { headers }: { headers: Record<string, string> }) => {
      expect(path).toBe("/tools/v1/jobs/a/stream");
      expect(headers.Authorization).toBe("Bearer tk_a_b");
      asked.push(headers["Last-Event-ID"] ?? null);
      return answers[asked.length - 1];
    });
    const seen: StreamEvent[] = [];
    const states: string[] = [];
    const done = follow({
      path: "/v1/jobs/a/stream",
      signal: new AbortController().signal,
      onEvent: (event) => seen.push(event),
      onConnection: (state) => states.push(state),
    });
    await vi.advanceTimersByTimeAsync(60_000);
    await done;
    // what an errored stream still held may be lost: it is asked for again by the position
    expect(asked.length).toBe(2);
    expect(asked[0]).toBeNull();
    expect(seen.at(-1)?.name).toBe("end");
    expect(states.at(-1)).toBe("ended");
    expect(states).toContain("lost");
  });

  it("does not ask again for what is refused", async () => {
    vi.stubGlobal("fetch", async () => new Response(JSON.stringify({ title: "Not found", status: 404, code: "not_found", detail: "No such job." }), { status: 404 }));
    await expect(follow({ path: "/v1/jobs/a/stream", signal: new AbortController().signal, onEvent: () => undefined })).rejects.toThrow("No such job.");
  });
});

describe("applied", () => {
  const job = (id: string, state = "running") => ({ id, state }) as unknown as JobRow;
  it("drops what the list no longer names, takes changes, and forgets what left", () => {
    let rows: ReadonlyMap<string, JobRow> = new Map([["a", job("a")], ["b", job("b")]]);
    rows = applied(rows, { id: null, name: "sync", data: { ids: ["b", "c"] } });
    expect([...rows.keys()]).toEqual(["b"]);
    rows = applied(rows, { id: null, name: "jobs", data: [job("b", "failed"), job("c")] });
    expect(rows.get("b")?.state).toBe("failed");
    rows = applied(rows, { id: null, name: "left", data: { ids: ["c"] } });
    expect([...rows.keys()]).toEqual(["b"]);
  });
});
