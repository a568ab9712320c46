// What the modules read of a page when they are loaded.
import { vi } from "vitest";

vi.stubGlobal("document", { baseURI: "http://127.0.0.1/tools/ui/" });
vi.stubGlobal("sessionStorage", { getItem: () => "tk_a_b", setItem: () => undefined, removeItem: () => undefined });
