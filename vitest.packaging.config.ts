import { defineConfig } from 'vitest/config';

/** What a host gets of this program, looked at by the host's own tools, which are installed where they are missing. */
export default defineConfig({
  test: {
    include: ['tests/packaging/**/*.test.ts'],
    exclude: ['dist/**', 'node_modules/**'],
    testTimeout: 60_000,
    hookTimeout: 240_000,
  },
});
