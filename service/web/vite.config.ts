import preact from "@preact/preset-vite";
import { defineConfig } from "vitest/config";

// Relative addresses: the same files work below any path of a proxy.
export default defineConfig({
  base: "./",
  plugins: [preact({ devToolsEnabled: false })],
  // Inlined files would be data: addresses, which the page's policy refuses for scripts and fonts.
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  test: { setupFiles: ["test/setup.ts"] },
});
