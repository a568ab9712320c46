/** Who is signed in: an API key that lives as long as the tab, or the cookie of a sign-in at the identity provider. */

const STORED = "trainkit-key";
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

export function authorization(): Record<string, string> {
  const key = apiKey();
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** The page lies at `<root>/ui/`, the API at `<root>/v1`. */
export const ROOT = new URL("..", new URL("./", document.baseURI)).pathname.replace(/\/$/, "");
