// The two ways to a backend that the protocol tests run over, where a test needs nothing that only one of them has.

import { Backend } from './backend.ts';
import { InProcessBackend } from './in-process-backend.ts';
import { type BackendOptions, PATIENCE_MILLISECONDS, type TestBackend } from './test-backend.ts';

/** For `describe.each`. */
export const TRANSPORTS = [
  {
    way: 'a unix socket',
    start: ({ totalVfs = 7, patienceMilliseconds }: BackendOptions = {}): Promise<TestBackend> => {
      const patience = patienceMilliseconds ?? PATIENCE_MILLISECONDS;
      return Backend.start(
        `--total-vfs=${totalVfs}`,
        `--plug-timeout=${patience}`,
        `--unplug-timeout=${patience}`,
      );
    },
  },
  {
    way: 'an in-process pair',
    start: async (options: BackendOptions = {}): Promise<TestBackend> =>
      new InProcessBackend(options),
  },
] as const;
