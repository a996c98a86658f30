// The option of `serve` that has metrics shown.

import { InvalidArgumentError } from 'commander';
import { parseWholeNumber } from '../../protocol/launch/option-values.ts';
import { isSocketPath, MAX_SOCKET_PATH_BYTES } from '../../protocol/launch/socket-names.ts';
import type { MetricsTarget } from '../metrics/metrics-server.ts';
import type { ServeOption } from './serve-options.ts';

export interface MetricsOptions {
  readonly metrics?: MetricsTarget;
}

const UNIX = 'unix:';
const MOST_PORT = 65_535;

export const METRICS_OPTIONS: readonly ServeOption[] = [
  {
    flags: '--metrics <where>',
    description:
      'show metrics for Prometheus: unix:PATH for a unix socket, or a port number, which this host alone reaches',
    parse: metricsTarget,
  },
];

/** Reads the option's value. */
export function metricsTarget(text: string): MetricsTarget {
  if (text.startsWith(UNIX)) {
    const path = text.slice(UNIX.length);
    if (path !== '' && isSocketPath(path)) {
      return { path };
    }
    throw new InvalidArgumentError(
      `After unix: comes the path of a socket, ${MAX_SOCKET_PATH_BYTES} bytes at most.`,
    );
  }
  const port = parseWholeNumber(text, 1, MOST_PORT);
  if (port === undefined) {
    throw new InvalidArgumentError(
      `It must be unix:PATH, or a port from 1 to ${MOST_PORT}; other hosts are never served.`,
    );
  }
  return { port };
}
