// The one line that `serve` prints when clients can connect, for people and for launchers.

import type { PhysicalDevice } from '../device/physical-device.ts';
import type { BarShape } from '../pci/bars.ts';
import type { ServeOptions } from './serve-options.ts';

/** `ready`, then key=value pairs: what a launcher has to know to start its VMM. */
export function readyLine(options: ServeOptions, { description }: PhysicalDevice): string {
  const pairs = [
    options.socketPath === undefined ? `fd=${options.fd}` : `socket=${options.socketPath}`,
    ...(options.vfSockets === undefined ? [] : [`vf-sockets=${options.vfSockets}`]),
    `total-vfs=${description.totalVfs}`,
    `pf-bars=${memoryBars(description.pf.bars)}`,
    `vf-bars=${memoryBars(description.vfBars)}`,
  ];
  return `ready ${pairs.join(' ')}`;
}

function memoryBars(bars: readonly BarShape[]): string {
  return bars
    .filter(({ kind }) => kind !== 'io')
    .map(barText)
    .join(',');
}

/** `0:16384:64p`: index, size in bytes, width, and p where prefetchable. */
function barText({ index, size, kind, prefetchable }: BarShape): string {
  return `${index}:${size}:${kind === 'memory64' ? 64 : 32}${prefetchable ? 'p' : ''}`;
}
