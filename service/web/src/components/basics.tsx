/** Small parts that every page uses. */

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { JobState } from "../api/client";
import { fetchBlob } from "../api/client";
import type { Connection } from "../api/events";
import { asProblem, type Problem } from "../api/problem";

export function StateBadge({ state }: { state: JobState | string }) {
  return <span class={`badge state-${state}`}>{state}</span>;
}

/** A problem document in its own words: what, where, and what to do. */
export function ProblemBox({ problem }: { problem: Problem }) {
  return (
    <div class="problem" role="alert">
      <strong>{problem.title}</strong>
      <p>{problem.detail}</p>
      {problem.errors.length > 0 && (
        <ul>
          {problem.errors.map((error, index) => (
            <li key={index}>
              {error.pointer && <code>{error.pointer}</code>} {error.message}
              {error.hint && <em> {error.hint}</em>}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

export function ConnectionNote({ connection }: { connection: Connection }) {
  const texts: Record<Connection, string> = {
    connecting: "Connecting",
    live: "Live",
    lost: "Connection lost; trying again",
    ended: "",
  };
  return texts[connection] ? (
    <span class={`connection ${connection}`} role="status">
      {texts[connection]}
    </span>
  ) : null;
}

export function Progress({ percent, label }: { percent: number; label: string }) {
  return <progress max={100} value={percent} aria-label={label} />;
}

interface DialogProps {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
}

/** A modal dialog: focus is kept inside, Escape closes it, and focus goes back. */
export function Dialog({ title, onClose, children }: DialogProps) {
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const before = document.activeElement as HTMLElement | null;
    element.current?.showModal();
    return () => before?.focus();
  }, []);
  return (
    <dialog ref={element} onClose={onClose} aria-label={title}>
      <h2>{title}</h2>
      {children}
    </dialog>
  );
}

interface ConfirmProps {
  title: string;
  text: string;
  action: string;
  danger?: boolean;
  run: () => Promise<unknown>;
  onClose: (done: boolean) => void;
}

/** Ask before something that cannot be undone; a refusal is shown where it was asked. */
export function Confirm({ title, text, action, danger = false, run, onClose }: ConfirmProps) {
  const [problem, setProblem] = useState<Problem | null>(null);
  const [busy, setBusy] = useState(false);
  const confirm = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await run();
      onClose(true);
    } catch (error) {
      setProblem(asProblem(error));
      setBusy(false);
    }
  };
  return (
    <Dialog title={title} onClose={() => onClose(false)}>
      <form onSubmit={confirm}>
        <p>{text}</p>
        {problem && <ProblemBox problem={problem} />}
        <p class="buttons">
          <button type="button" onClick={() => onClose(false)}>
            Keep
          </button>
          <button class={danger ? "danger" : "primary"} disabled={busy}>
            {action}
          </button>
        </p>
      </form>
    </Dialog>
  );
}

/** A picture of the API, fetched with the key. */
export function ApiImage({ path, alt }: { path: string; alt: string }) {
  const [source, setSource] = useState<string | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  useEffect(() => {
    let address: string | null = null;
    let current = true;
    fetchBlob(path).then(
      (blob) => {
        if (current) setSource((address = URL.createObjectURL(blob)));
      },
      (error: unknown) => current && setProblem(asProblem(error)),
    );
    return () => {
      current = false;
      if (address) URL.revokeObjectURL(address);
    };
  }, [path]);
  if (problem) return <ProblemBox problem={problem} />;
  return source ? <img src={source} alt={alt} /> : <p class="muted">Loading the picture</p>;
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>;
}
