/** Reading the API from components. */

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { asProblem, type Problem } from "./api/problem";

export interface Loaded<T> {
  data: T | null;
  problem: Problem | null;
  reload: () => void;
}

/** Load when `key` changes, and again every `everySeconds`; an answer that is out of date is dropped. */
export function useLoaded<T>(key: string | null, load: () => Promise<T>, everySeconds?: number): Loaded<T> {
  const [state, setState] = useState<{ key: string | null; data: T | null; problem: Problem | null }>({
    key,
    data: null,
    problem: null,
  });
  const [turn, setTurn] = useState(0);
  const latest = useRef(load);
  latest.current = load;
  useEffect(() => {
    if (key === null) return;
    let current = true;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const run = async () => {
      try {
        const data = await latest.current();
        if (current) setState({ key, data, problem: null });
      } catch (error) {
        if (current) setState((old) => ({ key, data: old.key === key ? old.data : null, problem: asProblem(error) }));
      }
      if (current && everySeconds) timer = setTimeout(run, everySeconds * 1000);
    };
    void run();
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [key, turn, everySeconds]);
  const reload = useCallback(() => setTurn((now) => now + 1), []);
  const isCurrent = state.key === key;
  return { data: isCurrent ? state.data : null, problem: isCurrent ? state.problem : null, reload };
}

/** The time now, renewed every second while somebody looks. */
export function useNow(active = true): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    if (!active) return;
    const timer = setInterval(() => document.hidden || setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [active]);
  return now;
}

/** A choice that the browser remembers. */
export function useStored(name: string, initial: string): [string, (value: string) => void] {
  const [value, setValue] = useState(() => localStorage.getItem(name) ?? initial);
  const store = useCallback(
    (changed: string) => {
      localStorage.setItem(name, changed);
      setValue(changed);
    },
    [name],
  );
  return [value, store];
}
