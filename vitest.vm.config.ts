import { defineConfig } from 'vitest/config';

/** Tests that boot virtual machines: root and QEMU; one file at a time, because a VM wants a core. */
export default defineConfig({
  test: {
    include: ['tests/{vm,browser,foreign}/**/*.test.ts'],
    exclude: ['dist/**', 'node_modules/**'],
    fileParallelism: false,
    testTimeout: 240_000,
    hookTimeout: 240_000,
  },
});
