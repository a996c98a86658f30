// How long a client waits for its answer while another one sends as much as it can (flood.ts), and while nobody does.
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { connectUnix, SocketBuffer } from '../../protocol/unix/fd-socket.ts';
import { closeFd, ErrnoNumber } from '../../protocol/unix/libc.ts';
import { PollSet } from '../../protocol/unix/poll-set.ts';
import { Command, RegionIndex } from '../../protocol/vfio-user/commands.ts';
import { encodeFrame } from '../../protocol/vfio-user/framing.ts';
import { RegionAccess } from '../../protocol/vfio-user/messages.ts';
import { encodeVersion } from '../../protocol/vfio-user/negotiation.ts';
import { type Figure, rounded } from './figure.ts';
import { startBackend, startServer } from './server-process.ts';

const READS = 10_000;
const FLOOD = fileURLToPath(new URL('./flood.js', import.meta.url));

/** Figure bystander-wait: the 99.9th percentile under the flood, in milliseconds; beside it, without. */
export async function measureBystander(folder: string): Promise<Figure[]> {
  const path = join(folder, 'flooded.sock');
  const slots = join(folder, 'bystanders');
  const backend = await startBackend(path, ['--total-vfs=1', `--vf-sockets=${slots}`]);
  const bystander = join(slots, 'vf0.sock');
  try {
    const alone = waits(bystander);
    const flood = await startServer(process.execPath, [FLOOD, path]);
    const flooded = waits(bystander);
    await flood.stop();
    return [figure('bystander-wait', flooded, 5), figure('bystander-wait-baseline', alone)];
  } finally {
    await backend.stop();
  }
}

function figure(name: string, sorted: readonly number[], limit?: number): Figure {
  const at = (part: number): number => rounded(sorted[Math.floor(part * (sorted.length - 1))]!);
  return {
    figure: name,
    value: at(0.999),
    unit: 'ms',
    ...(limit === undefined ? {} : { limit }),
    details: { median: at(0.5), p99: at(0.99), worst: at(1), reads: sorted.length },
  };
}

/** Milliseconds of each of a number of reads of four config bytes, sorted. No event loop: that would be measured, too. */
function waits(path: string): number[] {
  const fd = connectUnix(path);
  const readable = new PollSet();
  readable.set(fd, { readable: true });
  const buffer = new SocketBuffer(4096);
  const ask = (message: Uint8Array): number => {
    const began = performance.now();
    buffer.data.set(message);
    buffer.send(fd, 0, message.length);
    for (let received = -ErrnoNumber.EAGAIN; received < 0; ) {
      readable.wait(-1);
      received = buffer.receive(fd);
    }
    return performance.now() - began;
  };
  ask(encodeFrame({ id: 1, command: Command.version, flags: 0 }, encodeVersion(0, 1, {})));
  const access = RegionAccess.encode({ offset: 0n, region: RegionIndex.config, count: 4 });
  const read = encodeFrame({ id: 2, command: Command.regionRead, flags: 0 }, access);
  const times = Array.from({ length: READS }, () => ask(read));
  closeFd(fd);
  return times.sort((a, b) => a - b);
}
