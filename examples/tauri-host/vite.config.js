import { defineConfig } from "vite";

export default defineConfig({
  clearScreen: false, // messages of Rust stay
  server: { port: 1420, strictPort: true, watch: { ignored: ["**/src-tauri/**"] },
    fs: { allow: [".", "../../clients/tauri/guest-js"] } }, // the bindings' worklet lies there
  build: { target: "es2022", assetsInlineLimit: 0 }, // a worklet is a file: the policy has no data: scripts
  // The bindings find their worklet beside themselves.
  optimizeDeps: { exclude: ["tauri-plugin-vibevoice-asr-api"] },
});
