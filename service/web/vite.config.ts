import preact from "@preact/preset-vite";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

const SWAGGER_UI = ["swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"];

/** Puts Swagger UI into dist/docs as its makers publish it: the page /docs loads it, the dashboard never does. */
const swaggerUi: Plugin = {
  name: "swagger-ui",
  apply: "build",
  generateBundle() {
    const folder = new URL("node_modules/swagger-ui-dist/", import.meta.url);
    for (const name of SWAGGER_UI) {
      this.emitFile({ type: "asset", fileName: `docs/${name}`, source: readFileSync(fileURLToPath(new URL(name, folder))) });
    }
  },
};

// Relative addresses: the same files work below any path of a proxy.
export default defineConfig({
  base: "./",
  plugins: [preact({ devToolsEnabled: false }), swaggerUi],
  // Inlined files would be data: addresses, which the page's policy refuses for scripts and fonts.
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  test: { setupFiles: ["test/setup.ts"] },
});
