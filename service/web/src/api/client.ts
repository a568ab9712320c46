/** The public API, typed from its OpenAPI document. */

import createClient, { type Middleware } from "openapi-fetch";
import { ApiError, problemOf } from "./problem";
import type { components, paths } from "./schema";
import { apiKey, authorization, forgetKey, ROOT } from "./session";

export type Schemas = components["schemas"];
export type JobState = Schemas["JobRow"]["state"];
export type SpecDocument = Record<string, unknown>;
/** A job; its spec is shown and compared as plain data. */
export type Job = Omit<Schemas["Job"], "spec" | "resolved"> & { spec: SpecDocument; resolved: SpecDocument | null };

const authenticated: Middleware = {
  onRequest({ request }) {
    for (const [name, value] of Object.entries(authorization())) request.headers.set(name, value);
    return request;
  },
  async onResponse({ response }) {
    if (response.ok || response.status === 304) return;
    if (response.status === 401 && apiKey()) forgetKey();
    throw new ApiError(problemOf(await response.json().catch(() => null), response.status));
  },
};

export const api = createClient<paths>({ baseUrl: ROOT || "/", credentials: "same-origin" });
api.use(authenticated);

/** Return the data of an answer: errors were thrown before. */
export function dataOf<T>(answer: { data?: T }): T {
  return answer.data as T;
}

export async function getJob(id: string): Promise<Job> {
  return dataOf(await api.GET("/v1/jobs/{job_id}", { params: { path: { job_id: id } } })) as unknown as Job;
}

/** Fetch a picture or a file, which an `<img>` could not: it sends no key. */
export async function fetchBlob(path: string): Promise<Blob> {
  const response = await fetch(path.startsWith("/v1") ? ROOT + path : path, {
    headers: authorization(),
    credentials: "same-origin",
  });
  if (!response.ok) throw new ApiError(problemOf(await response.json().catch(() => null), response.status));
  return response.blob();
}
