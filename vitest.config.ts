import { defineConfig } from 'vitest/config';

/** Unit, property and protocol tests: no root, no hardware, no VM. */
export default defineConfig({
  test: {
    include: ['tests/{unit,property,protocol}/**/*.test.ts'],
    exclude: ['dist/**', 'node_modules/**'],
    testTimeout: 20_000,
    // Test files share processes, one a CPU: starting one for each costs more than most files take.
    isolate: false,
    maxWorkers: '100%',
  },
});
