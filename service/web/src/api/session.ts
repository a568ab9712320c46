/** Who is signed in: an API key that lives as long as the tab, or the cookie of a sign-in at the identity provider. */

const STORED = "trainkit-key";
const PROJECT = "trainkit-project";
const listeners = new Set<() => void>();

export function apiKey(): string | null {
  return sessionStorage.getItem(STORED);
}

export function rememberKey(key: string): void {
  sessionStorage.setItem(STORED, key);
}

export function forgetKey(): void {
  sessionStorage.removeItem(STORED);
  for (const listener of listeners) listener();
}

/** Call `listener` when the key is refused or the user signs out; returns the way to end it. */
export function onSignedOut(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Work in a project, of several that a signed-in person is in; null forgets the choice. */
export function chooseProject(name: string | null): void {
  if (name === null) localStorage.removeItem(PROJECT);
  else localStorage.setItem(PROJECT, name);
}

export function chosenProject(): string | null {
  return localStorage.getItem(PROJECT);
}

/** Headers of who asks, in which project: a key belongs to one already. */
export function authorization(): Record<string, string> {
  const key = apiKey();
  if (key) return { Authorization: `Bearer ${key}` };
  const project = chosenProject();
  return project ? { "Trainkit-Project": project } : {};
}

/** The page lies at `<root>/ui/`, the API at `<root>/v1`. */
export const ROOT = new URL("..", new URL("./", document.baseURI)).pathname.replace(/\/$/, "");
