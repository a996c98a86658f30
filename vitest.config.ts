import { defineConfig } from 'vitest/config';

/** Unit, property and protocol tests: no root, no hardware, no VM. */
export default defineConfig({
  test: {
    include: ['tests/{unit,property,protocol,loopback}/**/*.test.ts'],
    exclude: ['dist/**', 'node_modules/**'],
    testTimeout: 20_000,
  },
});
