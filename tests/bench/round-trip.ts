// How long a REGION_READ of 4 config bytes takes, against a server in C that only echoes, in alternating rounds: the
// client on the first core, the server on the second, as far as there are two.
import { execFile, spawnSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { CPrograms } from './c-programs.ts';
import { type Figure, median, rounded } from './figure.ts';
import { type ServerProcess, startBackend, startServer } from './server-process.ts';

const run = promisify(execFile);
const CLIENT_CPU = 0;
const SERVER_CPU = 1;

/** One round's times in nanoseconds. */
export interface Round {
  readonly median: number;
  readonly p99: number;
}

/** Figures rtt-ratio (of the medians over all rounds), rtt-backend and rtt-baseline (microseconds). */
export async function measureRoundTrip(
  programs: CPrograms,
  folder: string,
  options: { rounds: number; count: number },
): Promise<Figure[]> {
  const isPinned = canPin();
  const servers = {
    baseline: join(folder, 'echo.sock'),
    backend: join(folder, 'backend.sock'),
  };
  const started: ServerProcess[] = [];
  try {
    started.push(await startServer(programs.echoBaseline, [servers.baseline]));
    started.push(await startBackend(servers.backend));
    // Pinned only now: a backend that starts on one core sees one, and leaves its spinning off.
    if (isPinned) {
      for (const server of started) {
        pin(server.pid);
      }
    }
    const measured = { baseline: [] as Round[], backend: [] as Round[] };
    for (let round = 0; round < options.rounds; round++) {
      const order = ['baseline', 'backend'] as const;
      for (const name of round % 2 === 0 ? order : order.toReversed()) {
        measured[name].push(
          await measure(programs.rttClient, servers[name], options.count, isPinned),
        );
      }
    }
    return figures(measured, { ...options, pinned: isPinned });
  } finally {
    for (const server of started) {
      await server.stop();
    }
  }
}

/** There are two cores, and a way to choose one. */
export function canPin(): boolean {
  return availableParallelism() >= 2 && spawnSync('taskset', ['--version']).status === 0;
}

/** Puts a server on the second core. */
export function pin(pid: number): void {
  const result = spawnSync('taskset', ['-a', '-p', '-c', `${SERVER_CPU}`, `${pid}`], {
    encoding: 'utf8',
  });
  if (result.status !== 0) {
    throw new Error(`taskset: ${result.stderr}`);
  }
}

/** One round against one server. */
export async function measure(
  client: string,
  path: string,
  count: number,
  isPinned: boolean,
): Promise<Round> {
  const pinning = isPinned ? ['-c', `${CLIENT_CPU}`] : [];
  const { stdout } = await run(client, ['-n', `${count}`, ...pinning, path]);
  return JSON.parse(stdout) as Round;
}

function figures(
  measured: { baseline: Round[]; backend: Round[] },
  conditions: Record<string, unknown>,
): Figure[] {
  const medians = {
    baseline: measured.baseline.map((round) => round.median),
    backend: measured.backend.map((round) => round.median),
  };
  const ratio = median(medians.backend) / median(medians.baseline);
  const ofRounds = medians.backend.map((value, round) => rounded(value / medians.baseline[round]!));
  return [
    {
      figure: 'rtt-ratio',
      value: rounded(ratio),
      unit: 'x',
      limit: 1,
      details: { ofRounds, ...conditions },
    },
    ...(['backend', 'baseline'] as const).map((name) => ({
      figure: `rtt-${name}`,
      value: rounded(median(medians[name]) / 1000),
      unit: 'us',
      details: {
        p99: rounded(median(measured[name].map((round) => round.p99)) / 1000),
        medians: medians[name].map((value) => rounded(value / 1000)),
      },
    })),
  ];
}
