/** Server-sent events over fetch: the browser's EventSource cannot send a key. */

import { ApiError, problemOf } from "./problem";
import { authorization, ROOT } from "./session";

export interface StreamEvent {
  id: string | null;
  name: string;
  data: unknown;
}

/** Cut a text stream into events (WHATWG HTML, 9.2.6); keeps what is not complete yet. */
export class EventParser {
  private rest = "";

  push(text: string): StreamEvent[] {
    const given = this.rest + text;
    // a carriage return at the end may be half of a line's end
    const whole = given.endsWith("\r") ? given.slice(0, -1) : given;
    const blocks = whole.replace(/\r\n?/g, "\n").split("\n\n");
    this.rest = (blocks.pop() ?? "") + given.slice(whole.length);
    return blocks.map(parseBlock).filter((event) => event !== null);
  }
}

function parseBlock(block: string): StreamEvent | null {
  let name = "message";
  let id: string | null = null;
  const data: string[] = [];
  for (const line of block.split("\n")) {
    const cut = line.indexOf(":");
    if (cut === 0) continue; // a comment keeps the connection alive
    const field = cut < 0 ? line : line.slice(0, cut);
    const value = cut < 0 ? "" : line.slice(cut + 1).replace(/^ /, "");
    if (field === "event") name = value;
    else if (field === "id") id = value;
    else if (field === "data") data.push(value);
  }
  return data.length ? { id, name, data: JSON.parse(data.join("\n")) } : null;
}

export type Connection = "connecting" | "live" | "lost" | "ended";

interface Options {
  path: string;
  lastEventId?: string;
  onEvent: (event: StreamEvent) => void;
  onConnection?: (state: Connection) => void;
  signal: AbortSignal;
}

const FIRST_DELAY = 500;
const LONGEST_DELAY = 15_000;

/** Follow a stream until it ends or is aborted; after a cut it continues behind the last event that came. */
export async function follow({ path, lastEventId, onEvent, onConnection, signal }: Options): Promise<void> {
  let position = lastEventId ?? null;
  let delay = FIRST_DELAY;
  while (!signal.aborted) {
    try {
      const headers: Record<string, string> = { Accept: "text/event-stream", ...authorization() };
      if (position !== null) headers["Last-Event-ID"] = position;
      const response = await fetch(ROOT + path, { headers, signal, credentials: "same-origin" });
      if (response.status === 204) return onConnection?.("ended");
      if (!response.ok) throw new ApiError(problemOf(await response.json().catch(() => null), response.status));
      onConnection?.("live");
      const reader = (response.body as ReadableStream<BufferSource>).pipeThrough(new TextDecoderStream()).getReader();
      const parser = new EventParser();
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        delay = FIRST_DELAY;
        for (const event of parser.push(part.value)) {
          if (event.id !== null) position = event.id;
          onEvent(event);
          if (event.name === "end") return onConnection?.("ended");
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      // what will not get better by asking again
      if (error instanceof ApiError && error.problem.status < 500 && error.problem.status !== 429) throw error;
    }
    onConnection?.("lost");
    await wait(delay, signal);
    delay = Math.min(LONGEST_DELAY, 2 * delay);
  }
}

function wait(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
