/** Problem documents (RFC 9457), shown in their own words. */

export interface FieldError {
  pointer?: string;
  code?: string;
  message?: string;
  hint?: string | null;
}

export interface Problem {
  title: string;
  status: number;
  code: string;
  detail: string;
  errors: FieldError[];
}

export class ApiError extends Error {
  constructor(readonly problem: Problem) {
    super(problem.detail);
  }
}

export const UNREACHABLE: Problem = {
  title: "Service unreachable",
  status: 0,
  code: "unreachable",
  detail: "The service does not answer. The page tries again by itself.",
  errors: [],
};

/** Read whatever an answer of an error holds: a proxy's page is no problem document. */
export function problemOf(body: unknown, status: number): Problem {
  const given = (typeof body === "object" && body !== null ? body : {}) as Partial<Problem>;
  return {
    title: given.title ?? "Request failed",
    status: given.status ?? status,
    code: given.code ?? "unknown",
    detail: given.detail ?? `The service answered with status ${status}.`,
    errors: Array.isArray(given.errors) ? given.errors : [],
  };
}

export function asProblem(error: unknown): Problem {
  if (error instanceof ApiError) return error.problem;
  if (error instanceof TypeError) return UNREACHABLE; // what fetch throws without a connection
  return { title: "Error in the page", status: 0, code: "page", detail: String(error), errors: [] };
}
