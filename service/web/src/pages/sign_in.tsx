/** Sign-in by key, kept until the tab is closed, or at the identity provider where there is one. */

import { useState } from "preact/hooks";
import type { Problem } from "../api/problem";
import { rememberKey, ROOT } from "../api/session";
import { ProblemBox } from "../components/basics";

/** The service writes it into the page where an identity provider is set up. */
const hasProvider = () => document.querySelector('meta[name="trainkit-sign-in"]') !== null;

interface Props {
  problem: Problem | null;
  onSignedIn: () => Promise<void>;
}

export function SignIn({ problem, onSignedIn }: Props) {
  const [key, setKey] = useState("");
  const submit = async (event: Event) => {
    event.preventDefault();
    rememberKey(key.trim());
    setKey("");
    await onSignedIn();
  };
  return (
    <main class="sign-in">
      <h1>trainkit</h1>
      <form onSubmit={submit}>
        <label for="key">API key</label>
        <input
          id="key"
          type="password"
          autocomplete="off"
          spellcheck={false}
          placeholder="tk_..."
          required
          value={key}
          onInput={(event) => setKey(event.currentTarget.value)}
        />
        <button class="primary">Sign in</button>
      </form>
      {hasProvider() && <a href={`${ROOT}/v1/auth/login`}>Sign in at your organisation</a>}
      {problem && <ProblemBox problem={problem} />}
      <p class="muted">
        <code>trainkit up</code> writes the first key to <code>api-key</code> in its folder and prints the path. The key
        stays in this tab.
      </p>
    </main>
  );
}
