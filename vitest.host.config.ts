import { defineConfig } from 'vitest/config';

/** One Debian with systemd and libvirt (root, debootstrap and QEMU): its tests are steps, and stand on each other. */
export default defineConfig({
  test: {
    include: ['tests/host/**/*.test.ts'],
    exclude: ['dist/**', 'node_modules/**'],
    testTimeout: 600_000,
    hookTimeout: 900_000,
  },
});
