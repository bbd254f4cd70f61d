// vite.config.ts
import { defineConfig } from "file:///tmp/x/cl2/ui-export/web/node_modules/vitest/dist/config.js";
var kDataMark = "__PYROMETER_DATA__";
var kDataElement = `<script id="pyrometer-data" type="application/json">${kDataMark}</script>`;
function singleFile() {
  return {
    name: "pyrometer-single-file",
    enforce: "post",
    generateBundle(_options, bundle) {
      const html = bundle["viewer.html"];
      if (!html || html.type !== "asset") throw new Error("viewer.html is missing from the bundle");
      let text = String(html.source);
      for (const [name, item] of Object.entries(bundle)) {
        if (item.type === "chunk") {
          const code = item.code.replace(/<\/script/gi, "<\\/script").replace(/<!--/g, "<\\!--");
          text = text.replace(new RegExp(`\\s*<script[^>]*src="[^"]*${escapeRegExp(name)}"[^>]*></script>`), "");
          text = text.replace("</body>", () => `<script type="module">${code}</script>
</body>`);
          delete bundle[name];
        } else if (name.endsWith(".css")) {
          const css = String(item.source).replace(/<\/style/gi, "<\\/style");
          text = text.replace(new RegExp(`\\s*<link[^>]*href="[^"]*${escapeRegExp(name)}"[^>]*>`), "");
          text = text.replace("</head>", () => `<style>${css}</style>
</head>`);
          delete bundle[name];
        }
      }
      const left = Object.keys(bundle).filter((name) => name !== "viewer.html");
      if (left.length > 0) throw new Error(`the viewer must be one file, but these are left: ${left.join(", ")}`);
      if (text.split(kDataElement).length !== 2 || text.split(kDataMark).length !== 2) {
        throw new Error("the viewer must contain its data element exactly once");
      }
      if (/<(script|link)[^>]+(src|href)=/.test(text.replace(/<script type="module">[\s\S]*<\/script>/, ""))) {
        throw new Error("the viewer still refers to another file");
      }
      html.source = text;
    }
  };
}
function escapeRegExp(text) {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
var vite_config_default = defineConfig(({ mode }) => ({
  base: "./",
  // works behind any path prefix
  publicDir: false,
  esbuild: { jsx: "automatic", legalComments: "none" },
  plugins: mode === "viewer" ? [singleFile()] : [],
  define: { "process.env.NODE_ENV": '"production"' },
  build: {
    target: ["chrome90", "firefox90", "safari15"],
    outDir: mode === "viewer" ? "dist-viewer" : "dist",
    emptyOutDir: true,
    cssCodeSplit: false,
    modulePreload: false,
    reportCompressedSize: false,
    assetsInlineLimit: mode === "viewer" ? 1 << 20 : 0,
    rollupOptions: { input: mode === "viewer" ? "viewer.html" : "index.html" }
  },
  test: { include: ["tests/unit/**/*.test.ts"], environment: "node" }
}));
export {
  vite_config_default as default
};
//# sourceMappingURL=data:application/json;base64,ewogICJ2ZXJzaW9uIjogMywKICAic291cmNlcyI6IFsidml0ZS5jb25maWcudHMiXSwKICAic291cmNlc0NvbnRlbnQiOiBbImNvbnN0IF9fdml0ZV9pbmplY3RlZF9vcmlnaW5hbF9kaXJuYW1lID0gXCIvdG1wL3gvY2wyL3VpLWV4cG9ydC93ZWJcIjtjb25zdCBfX3ZpdGVfaW5qZWN0ZWRfb3JpZ2luYWxfZmlsZW5hbWUgPSBcIi90bXAveC9jbDIvdWktZXhwb3J0L3dlYi92aXRlLmNvbmZpZy50c1wiO2NvbnN0IF9fdml0ZV9pbmplY3RlZF9vcmlnaW5hbF9pbXBvcnRfbWV0YV91cmwgPSBcImZpbGU6Ly8vdG1wL3gvY2wyL3VpLWV4cG9ydC93ZWIvdml0ZS5jb25maWcudHNcIjsvLyBUd28gcHJvZHVjdHMgZnJvbSBvbmUgc291cmNlIHRyZWU6XG4vLyAgIHZpdGUgYnVpbGQgICAgICAgICAgICAgICAgIC0+IGRpc3QvICAgICAgICAgICAgICAgICAgICB0aGUgcGFnZSB0aGF0IGBweXJvbWV0ZXIgdXBgIGFuZCBgcHlyb21ldGVyIHN0b3JlYCBzZXJ2ZVxuLy8gICB2aXRlIGJ1aWxkIC0tbW9kZSB2aWV3ZXIgICAtPiBkaXN0LXZpZXdlci92aWV3ZXIuaHRtbCAgb25lIGZpbGUgd2l0aCBldmVyeXRoaW5nIGluc2lkZSwgZm9yIEhUTUwgZXhwb3J0XG5pbXBvcnQgeyBkZWZpbmVDb25maWcgfSBmcm9tICd2aXRlc3QvY29uZmlnJztcbmltcG9ydCB0eXBlIHsgUGx1Z2luIH0gZnJvbSAndml0ZSc7XG5cbmNvbnN0IGtEYXRhTWFyayA9ICdfX1BZUk9NRVRFUl9EQVRBX18nO1xuY29uc3Qga0RhdGFFbGVtZW50ID0gYDxzY3JpcHQgaWQ9XCJweXJvbWV0ZXItZGF0YVwiIHR5cGU9XCJhcHBsaWNhdGlvbi9qc29uXCI+JHtrRGF0YU1hcmt9PC9zY3JpcHQ+YDtcblxuLy8gTW92ZXMgYWxsIEphdmFTY3JpcHQgYW5kIENTUyBvZiB0aGUgYnVuZGxlIGludG8gdGhlIEhUTUwgZmlsZSBhbmQgY2hlY2tzIHdoYXQgdGhlIGV4cG9ydGVyIHJlbGllcyBvbi5cbmZ1bmN0aW9uIHNpbmdsZUZpbGUoKTogUGx1Z2luIHtcbiAgcmV0dXJuIHtcbiAgICBuYW1lOiAncHlyb21ldGVyLXNpbmdsZS1maWxlJyxcbiAgICBlbmZvcmNlOiAncG9zdCcsXG4gICAgZ2VuZXJhdGVCdW5kbGUoX29wdGlvbnMsIGJ1bmRsZSkge1xuICAgICAgY29uc3QgaHRtbCA9IGJ1bmRsZVsndmlld2VyLmh0bWwnXTtcbiAgICAgIGlmICghaHRtbCB8fCBodG1sLnR5cGUgIT09ICdhc3NldCcpIHRocm93IG5ldyBFcnJvcigndmlld2VyLmh0bWwgaXMgbWlzc2luZyBmcm9tIHRoZSBidW5kbGUnKTtcbiAgICAgIGxldCB0ZXh0ID0gU3RyaW5nKGh0bWwuc291cmNlKTtcbiAgICAgIGZvciAoY29uc3QgW25hbWUsIGl0ZW1dIG9mIE9iamVjdC5lbnRyaWVzKGJ1bmRsZSkpIHtcbiAgICAgICAgaWYgKGl0ZW0udHlwZSA9PT0gJ2NodW5rJykge1xuICAgICAgICAgIC8vIFwiPC9zY3JpcHRcIiBhbmQgXCI8IS0tXCIgaW5zaWRlIGEgc3RyaW5nIGxpdGVyYWwgd291bGQgZW5kIG9yIGNoYW5nZSB0aGUgZWxlbWVudC5cbiAgICAgICAgICBjb25zdCBjb2RlID0gaXRlbS5jb2RlLnJlcGxhY2UoLzxcXC9zY3JpcHQvZ2ksICc8XFxcXC9zY3JpcHQnKS5yZXBsYWNlKC88IS0tL2csICc8XFxcXCEtLScpO1xuICAgICAgICAgIHRleHQgPSB0ZXh0LnJlcGxhY2UobmV3IFJlZ0V4cChgXFxcXHMqPHNjcmlwdFtePl0qc3JjPVwiW15cIl0qJHtlc2NhcGVSZWdFeHAobmFtZSl9XCJbXj5dKj48L3NjcmlwdD5gKSwgJycpO1xuICAgICAgICAgIHRleHQgPSB0ZXh0LnJlcGxhY2UoJzwvYm9keT4nLCAoKSA9PiBgPHNjcmlwdCB0eXBlPVwibW9kdWxlXCI+JHtjb2RlfTwvc2NyaXB0PlxcbjwvYm9keT5gKTtcbiAgICAgICAgICBkZWxldGUgYnVuZGxlW25hbWVdO1xuICAgICAgICB9IGVsc2UgaWYgKG5hbWUuZW5kc1dpdGgoJy5jc3MnKSkge1xuICAgICAgICAgIGNvbnN0IGNzcyA9IFN0cmluZyhpdGVtLnNvdXJjZSkucmVwbGFjZSgvPFxcL3N0eWxlL2dpLCAnPFxcXFwvc3R5bGUnKTtcbiAgICAgICAgICB0ZXh0ID0gdGV4dC5yZXBsYWNlKG5ldyBSZWdFeHAoYFxcXFxzKjxsaW5rW14+XSpocmVmPVwiW15cIl0qJHtlc2NhcGVSZWdFeHAobmFtZSl9XCJbXj5dKj5gKSwgJycpO1xuICAgICAgICAgIHRleHQgPSB0ZXh0LnJlcGxhY2UoJzwvaGVhZD4nLCAoKSA9PiBgPHN0eWxlPiR7Y3NzfTwvc3R5bGU+XFxuPC9oZWFkPmApO1xuICAgICAgICAgIGRlbGV0ZSBidW5kbGVbbmFtZV07XG4gICAgICAgIH1cbiAgICAgIH1cbiAgICAgIGNvbnN0IGxlZnQgPSBPYmplY3Qua2V5cyhidW5kbGUpLmZpbHRlcigobmFtZSkgPT4gbmFtZSAhPT0gJ3ZpZXdlci5odG1sJyk7XG4gICAgICBpZiAobGVmdC5sZW5ndGggPiAwKSB0aHJvdyBuZXcgRXJyb3IoYHRoZSB2aWV3ZXIgbXVzdCBiZSBvbmUgZmlsZSwgYnV0IHRoZXNlIGFyZSBsZWZ0OiAke2xlZnQuam9pbignLCAnKX1gKTtcbiAgICAgIGlmICh0ZXh0LnNwbGl0KGtEYXRhRWxlbWVudCkubGVuZ3RoICE9PSAyIHx8IHRleHQuc3BsaXQoa0RhdGFNYXJrKS5sZW5ndGggIT09IDIpIHtcbiAgICAgICAgdGhyb3cgbmV3IEVycm9yKCd0aGUgdmlld2VyIG11c3QgY29udGFpbiBpdHMgZGF0YSBlbGVtZW50IGV4YWN0bHkgb25jZScpO1xuICAgICAgfVxuICAgICAgaWYgKC88KHNjcmlwdHxsaW5rKVtePl0rKHNyY3xocmVmKT0vLnRlc3QodGV4dC5yZXBsYWNlKC88c2NyaXB0IHR5cGU9XCJtb2R1bGVcIj5bXFxzXFxTXSo8XFwvc2NyaXB0Pi8sICcnKSkpIHtcbiAgICAgICAgdGhyb3cgbmV3IEVycm9yKCd0aGUgdmlld2VyIHN0aWxsIHJlZmVycyB0byBhbm90aGVyIGZpbGUnKTtcbiAgICAgIH1cbiAgICAgIGh0bWwuc291cmNlID0gdGV4dDtcbiAgICB9LFxuICB9O1xufVxuXG5mdW5jdGlvbiBlc2NhcGVSZWdFeHAodGV4dDogc3RyaW5nKTogc3RyaW5nIHtcbiAgcmV0dXJuIHRleHQucmVwbGFjZSgvWy4qKz9eJHt9KCl8W1xcXVxcXFxdL2csICdcXFxcJCYnKTtcbn1cblxuZXhwb3J0IGRlZmF1bHQgZGVmaW5lQ29uZmlnKCh7IG1vZGUgfSkgPT4gKHtcbiAgYmFzZTogJy4vJywgLy8gd29ya3MgYmVoaW5kIGFueSBwYXRoIHByZWZpeFxuICBwdWJsaWNEaXI6IGZhbHNlLFxuICBlc2J1aWxkOiB7IGpzeDogJ2F1dG9tYXRpYycsIGxlZ2FsQ29tbWVudHM6ICdub25lJyB9LFxuICBwbHVnaW5zOiBtb2RlID09PSAndmlld2VyJyA/IFtzaW5nbGVGaWxlKCldIDogW10sXG4gIGRlZmluZTogeyAncHJvY2Vzcy5lbnYuTk9ERV9FTlYnOiAnXCJwcm9kdWN0aW9uXCInIH0sXG4gIGJ1aWxkOiB7XG4gICAgdGFyZ2V0OiBbJ2Nocm9tZTkwJywgJ2ZpcmVmb3g5MCcsICdzYWZhcmkxNSddLFxuICAgIG91dERpcjogbW9kZSA9PT0gJ3ZpZXdlcicgPyAnZGlzdC12aWV3ZXInIDogJ2Rpc3QnLFxuICAgIGVtcHR5T3V0RGlyOiB0cnVlLFxuICAgIGNzc0NvZGVTcGxpdDogZmFsc2UsXG4gICAgbW9kdWxlUHJlbG9hZDogZmFsc2UsXG4gICAgcmVwb3J0Q29tcHJlc3NlZFNpemU6IGZhbHNlLFxuICAgIGFzc2V0c0lubGluZUxpbWl0OiBtb2RlID09PSAndmlld2VyJyA/IDEgPDwgMjAgOiAwLFxuICAgIHJvbGx1cE9wdGlvbnM6IHsgaW5wdXQ6IG1vZGUgPT09ICd2aWV3ZXInID8gJ3ZpZXdlci5odG1sJyA6ICdpbmRleC5odG1sJyB9LFxuICB9LFxuICB0ZXN0OiB7IGluY2x1ZGU6IFsndGVzdHMvdW5pdC8qKi8qLnRlc3QudHMnXSwgZW52aXJvbm1lbnQ6ICdub2RlJyB9LFxufSkpO1xuIl0sCiAgIm1hcHBpbmdzIjogIjtBQUdBLFNBQVMsb0JBQW9CO0FBRzdCLElBQU0sWUFBWTtBQUNsQixJQUFNLGVBQWUsdURBQXVELFNBQVM7QUFHckYsU0FBUyxhQUFxQjtBQUM1QixTQUFPO0FBQUEsSUFDTCxNQUFNO0FBQUEsSUFDTixTQUFTO0FBQUEsSUFDVCxlQUFlLFVBQVUsUUFBUTtBQUMvQixZQUFNLE9BQU8sT0FBTyxhQUFhO0FBQ2pDLFVBQUksQ0FBQyxRQUFRLEtBQUssU0FBUyxRQUFTLE9BQU0sSUFBSSxNQUFNLHdDQUF3QztBQUM1RixVQUFJLE9BQU8sT0FBTyxLQUFLLE1BQU07QUFDN0IsaUJBQVcsQ0FBQyxNQUFNLElBQUksS0FBSyxPQUFPLFFBQVEsTUFBTSxHQUFHO0FBQ2pELFlBQUksS0FBSyxTQUFTLFNBQVM7QUFFekIsZ0JBQU0sT0FBTyxLQUFLLEtBQUssUUFBUSxlQUFlLFlBQVksRUFBRSxRQUFRLFNBQVMsUUFBUTtBQUNyRixpQkFBTyxLQUFLLFFBQVEsSUFBSSxPQUFPLDZCQUE2QixhQUFhLElBQUksQ0FBQyxrQkFBa0IsR0FBRyxFQUFFO0FBQ3JHLGlCQUFPLEtBQUssUUFBUSxXQUFXLE1BQU0seUJBQXlCLElBQUk7QUFBQSxRQUFvQjtBQUN0RixpQkFBTyxPQUFPLElBQUk7QUFBQSxRQUNwQixXQUFXLEtBQUssU0FBUyxNQUFNLEdBQUc7QUFDaEMsZ0JBQU0sTUFBTSxPQUFPLEtBQUssTUFBTSxFQUFFLFFBQVEsY0FBYyxXQUFXO0FBQ2pFLGlCQUFPLEtBQUssUUFBUSxJQUFJLE9BQU8sNEJBQTRCLGFBQWEsSUFBSSxDQUFDLFNBQVMsR0FBRyxFQUFFO0FBQzNGLGlCQUFPLEtBQUssUUFBUSxXQUFXLE1BQU0sVUFBVSxHQUFHO0FBQUEsUUFBbUI7QUFDckUsaUJBQU8sT0FBTyxJQUFJO0FBQUEsUUFDcEI7QUFBQSxNQUNGO0FBQ0EsWUFBTSxPQUFPLE9BQU8sS0FBSyxNQUFNLEVBQUUsT0FBTyxDQUFDLFNBQVMsU0FBUyxhQUFhO0FBQ3hFLFVBQUksS0FBSyxTQUFTLEVBQUcsT0FBTSxJQUFJLE1BQU0sb0RBQW9ELEtBQUssS0FBSyxJQUFJLENBQUMsRUFBRTtBQUMxRyxVQUFJLEtBQUssTUFBTSxZQUFZLEVBQUUsV0FBVyxLQUFLLEtBQUssTUFBTSxTQUFTLEVBQUUsV0FBVyxHQUFHO0FBQy9FLGNBQU0sSUFBSSxNQUFNLHVEQUF1RDtBQUFBLE1BQ3pFO0FBQ0EsVUFBSSxpQ0FBaUMsS0FBSyxLQUFLLFFBQVEsMkNBQTJDLEVBQUUsQ0FBQyxHQUFHO0FBQ3RHLGNBQU0sSUFBSSxNQUFNLHlDQUF5QztBQUFBLE1BQzNEO0FBQ0EsV0FBSyxTQUFTO0FBQUEsSUFDaEI7QUFBQSxFQUNGO0FBQ0Y7QUFFQSxTQUFTLGFBQWEsTUFBc0I7QUFDMUMsU0FBTyxLQUFLLFFBQVEsdUJBQXVCLE1BQU07QUFDbkQ7QUFFQSxJQUFPLHNCQUFRLGFBQWEsQ0FBQyxFQUFFLEtBQUssT0FBTztBQUFBLEVBQ3pDLE1BQU07QUFBQTtBQUFBLEVBQ04sV0FBVztBQUFBLEVBQ1gsU0FBUyxFQUFFLEtBQUssYUFBYSxlQUFlLE9BQU87QUFBQSxFQUNuRCxTQUFTLFNBQVMsV0FBVyxDQUFDLFdBQVcsQ0FBQyxJQUFJLENBQUM7QUFBQSxFQUMvQyxRQUFRLEVBQUUsd0JBQXdCLGVBQWU7QUFBQSxFQUNqRCxPQUFPO0FBQUEsSUFDTCxRQUFRLENBQUMsWUFBWSxhQUFhLFVBQVU7QUFBQSxJQUM1QyxRQUFRLFNBQVMsV0FBVyxnQkFBZ0I7QUFBQSxJQUM1QyxhQUFhO0FBQUEsSUFDYixjQUFjO0FBQUEsSUFDZCxlQUFlO0FBQUEsSUFDZixzQkFBc0I7QUFBQSxJQUN0QixtQkFBbUIsU0FBUyxXQUFXLEtBQUssS0FBSztBQUFBLElBQ2pELGVBQWUsRUFBRSxPQUFPLFNBQVMsV0FBVyxnQkFBZ0IsYUFBYTtBQUFBLEVBQzNFO0FBQUEsRUFDQSxNQUFNLEVBQUUsU0FBUyxDQUFDLHlCQUF5QixHQUFHLGFBQWEsT0FBTztBQUNwRSxFQUFFOyIsCiAgIm5hbWVzIjogW10KfQo=
