// The two ways to a backend that the protocol tests run over, where a test needs nothing that only one of them has.

import { Backend } from './backend.ts';
import { InProcessBackend } from './in-process-backend.ts';
import type { BackendOptions, TestBackend } from './test-backend.ts';

/** For `describe.each`. */
export const TRANSPORTS = [
  {
    way: 'a unix socket',
    start: ({ totalVfs = 7 }: BackendOptions = {}): Promise<TestBackend> =>
      Backend.start(`--total-vfs=${totalVfs}`, '--plug-timeout=300', '--unplug-timeout=300'),
  },
  {
    way: 'an in-process pair',
    start: async (options: BackendOptions = {}): Promise<TestBackend> =>
      new InProcessBackend(options),
  },
] as const;
