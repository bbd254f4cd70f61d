// Two products from one source tree:
//   vite build                 -> dist/                    the page that `pyrometer up` and `pyrometer store` serve
//   vite build --mode viewer   -> dist-viewer/viewer.html  one file with everything inside, for HTML export
import { defineConfig } from 'vitest/config';
import type { Plugin } from 'vite';

const kDataMark = '__PYROMETER_DATA__';
const kDataElement = `<script id="pyrometer-data" type="application/json">${kDataMark}</script>`;

// Moves all JavaScript and CSS of the bundle into the HTML file and checks what the exporter relies on.
function singleFile(): Plugin {
  return {
    name: 'pyrometer-single-file',
    enforce: 'post',
    generateBundle(_options, bundle) {
      const html = bundle['viewer.html'];
      if (!html || html.type !== 'asset') throw new Error('viewer.html is missing from the bundle');
      let text = String(html.source);
      for (const [name, item] of Object.entries(bundle)) {
        if (item.type === 'chunk') {
          // "</script" and "<!--" inside a string literal would end or change the element.
          const code = item.code.replace(/<\/script/gi, '<\\/script').replace(/<!--/g, '<\\!--');
          text = text.replace(new RegExp(`\\s*<script[^>]*src="[^"]*${escapeRegExp(name)}"[^>]*></script>`), '');
          text = text.replace('</body>', () => `<script type="module">${code}</script>\n</body>`);
          delete bundle[name];
        } else if (name.endsWith('.css')) {
          const css = String(item.source).replace(/<\/style/gi, '<\\/style');
          text = text.replace(new RegExp(`\\s*<link[^>]*href="[^"]*${escapeRegExp(name)}"[^>]*>`), '');
          text = text.replace('</head>', () => `<style>${css}</style>\n</head>`);
          delete bundle[name];
        }
      }
      const left = Object.keys(bundle).filter((name) => name !== 'viewer.html');
      if (left.length > 0) throw new Error(`the viewer must be one file, but these are left: ${left.join(', ')}`);
      if (text.split(kDataElement).length !== 2 || text.split(kDataMark).length !== 2) {
        throw new Error('the viewer must contain its data element exactly once');
      }
      if (/<(script|link)[^>]+(src|href)=/.test(text.replace(/<script type="module">[\s\S]*<\/script>/, ''))) {
        throw new Error('the viewer still refers to another file');
      }
      html.source = text;
    },
  };
}

function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

export default defineConfig(({ mode }) => ({
  base: './', // works behind any path prefix
  publicDir: false,
  esbuild: { jsx: 'automatic', legalComments: 'none' },
  plugins: mode === 'viewer' ? [singleFile()] : [],
  define: { 'process.env.NODE_ENV': '"production"' },
  build: {
    target: ['chrome90', 'firefox90', 'safari15'],
    outDir: mode === 'viewer' ? 'dist-viewer' : 'dist',
    emptyOutDir: true,
    cssCodeSplit: false,
    modulePreload: false,
    reportCompressedSize: false,
    assetsInlineLimit: mode === 'viewer' ? 1 << 20 : 0,
    rollupOptions: { input: mode === 'viewer' ? 'viewer.html' : 'index.html' },
  },
  test: { include: ['tests/unit/**/*.test.ts'], environment: 'node' },
}));
