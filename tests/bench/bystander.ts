// How long a client waits for its answer while another one sends as much as it can (flood.ts). What the client and the
// device thread waited for a CPU meanwhile, by the kernel's account, is left out: it is other programs' doing, and stands
// beside. The baseline is the wait beside a program that only computes. Both are measured in turns, and what is told is the
// middle one of them: a burst of other work on the machine spoils few.
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { connectUnix } from '../../protocol/unix/fd-socket.ts';
import { closeFd, ErrnoNumber } from '../../protocol/unix/libc.ts';
import { PollSet } from '../../protocol/unix/poll-set.ts';
import { SocketBuffer } from '../../protocol/unix/socket-buffer.ts';
import { Command, RegionIndex } from '../../protocol/vfio-user/commands.ts';
import { encodeFrame } from '../../protocol/vfio-user/framing.ts';
import { RegionAccess } from '../../protocol/vfio-user/messages.ts';
import { encodeVersion } from '../../protocol/vfio-user/version.ts';
import { type Figure, median, rounded } from './figure.ts';
import { RunDelays } from './run-delays.ts';
import { type ServerProcess, startBackend, startServer } from './server-process.ts';

const TURNS = 10;
const READS = 2_000;
const FLOOD = fileURLToPath(new URL('./flood.js', import.meta.url));

/** Milliseconds that an answer took, and those of them that a thread could have run in and had no CPU. */
interface Wait {
  readonly all: number;
  readonly forCpu: number;
}

const COMPUTE = "process.stdout.write('computing\\n'); for (;;);";

/** Figure bystander-wait: the 99.9th percentile under the flood, in milliseconds; beside it, the baseline. */
export async function measureBystander(folder: string): Promise<Figure[]> {
  const path = join(folder, 'flooded.sock');
  const slots = join(folder, 'bystanders');
  const backend = await startBackend(path, ['--total-vfs=1', `--vf-sockets=${slots}`]);
  const bystander = join(slots, 'vf0.sock');
  try {
    const others = [
      await startServer(process.execPath, [FLOOD, path]),
      await startServer(process.execPath, ['-e', COMPUTE]),
    ] as const;
    others.forEach(pause);
    const delays = new RunDelays(backend.pid);
    const turns: { flooded: Wait[]; beside: Wait[] }[] = [];
    while (turns.length < TURNS) {
      const [flooded, beside] = others.map((other) => {
        resume(other);
        const waited = waits(bystander, delays);
        pause(other);
        return waited;
      });
      turns.push({ flooded: flooded!, beside: beside! });
    }
    delays.close();
    others.forEach(resume);
    await Promise.all(others.map((other) => other.stop()));
    return [
      figure(
        'bystander-wait',
        turns.map(({ flooded }) => flooded),
        5,
      ),
      figure(
        'bystander-wait-baseline',
        turns.map(({ beside }) => beside),
      ),
    ];
  } finally {
    await backend.stop();
  }
}

function pause({ pid }: ServerProcess): void {
  process.kill(pid, 'SIGSTOP');
}

function resume({ pid }: ServerProcess): void {
  process.kill(pid, 'SIGCONT');
}

/** The middle one over all turns. */
function figure(name: string, turns: readonly (readonly Wait[])[], limit?: number): Figure {
  const net = turns.map((waits) => sorted(waits.map(({ all, forCpu }) => all - forCpu)));
  const all = turns.map((waits) => sorted(waits.map((wait) => wait.all)));
  const middle = (of: number[][], part: number): number =>
    rounded(median(of.map((each) => percentile(each, part))));
  return {
    figure: name,
    value: middle(net, 0.999),
    unit: 'ms',
    ...(limit === undefined ? {} : { limit }),
    details: {
      median: middle(net, 0.5),
      p99: middle(net, 0.99),
      worst: rounded(Math.max(...net.map((each) => percentile(each, 1)))),
      p999WithCpuWaits: middle(all, 0.999),
      readsPerTurn: READS,
    },
  };
}

function sorted(values: readonly number[]): number[] {
  return [...values].sort((a, b) => a - b);
}

function percentile(values: readonly number[], part: number): number {
  return values[Math.floor(part * (values.length - 1))]!;
}

/** What each of a number of reads of four config bytes takes. No event loop: that would be measured, too. */
function waits(path: string, delays: RunDelays): Wait[] {
  const fd = connectUnix(path);
  const readable = new PollSet();
  readable.set(fd, { readable: true });
  const buffer = new SocketBuffer(4096);
  const ask = (message: Uint8Array): Wait => {
    const delayed = delays.milliseconds();
    const began = performance.now();
    buffer.data.set(message);
    buffer.send(fd, 0, message.length);
    for (let received = -ErrnoNumber.EAGAIN; received < 0; ) {
      readable.wait(-1);
      received = buffer.receive(fd);
    }
    const all = performance.now() - began;
    return { all, forCpu: Math.min(all, delays.milliseconds() - delayed) };
  };
  ask(encodeFrame({ id: 1, command: Command.version, flags: 0 }, encodeVersion(0, 1, {})));
  const access = RegionAccess.encode({ offset: 0n, region: RegionIndex.config, count: 4 });
  const read = encodeFrame({ id: 2, command: Command.regionRead, flags: 0 }, access);
  const times = Array.from({ length: READS }, () => ask(read));
  closeFd(fd);
  return times;
}
