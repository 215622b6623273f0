// Builds the page that .ci/pictures.py opens in Chromium; nothing of it is shipped.
export default {
  base: './',
  esbuild: { jsx: 'automatic' },
  define: { 'process.env': {} },
  build: { chunkSizeWarningLimit: 20000, minify: false },
};
