// What recording costs: the round trip of a config read with a trace on, over that of an equal backend without one, in
// alternating rounds; and how fast a recording is read.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { VfioUserClient } from '../../vmm-glue/client/client.ts';
import type { CPrograms } from './c-programs.ts';
import { type Figure, median, rounded } from './figure.ts';
import { canPin, measure, pin } from './round-trip.ts';
import { repositoryRoot, type ServerProcess, startBackend } from './server-process.ts';

const CONFIG = 7;
const EVENTS = 1_000_000;
const RECORDED_BYTES = '256M';

/** Figure trace-ratio: medians with the trace on over medians with it off; `off-ratio` is that of two backends without. */
export async function measureTraceCost(
  programs: CPrograms,
  folder: string,
  options: { rounds: number; count: number },
): Promise<Figure[]> {
  const isPinned = canPin();
  const paths = {
    on: join(folder, 'on.sock'),
    off: join(folder, 'off.sock'),
    offAgain: join(folder, 'off-again.sock'),
  };
  const started: ServerProcess[] = [];
  try {
    started.push(await startBackend(paths.on, [`--trace=${join(folder, 'on.trace')}`]));
    started.push(await startBackend(paths.off));
    started.push(await startBackend(paths.offAgain));
    if (isPinned) {
      for (const server of started) {
        pin(server.pid);
      }
    }
    const names = ['on', 'off', 'offAgain'] as const;
    const medians = { on: [] as number[], off: [] as number[], offAgain: [] as number[] };
    for (let round = 0; round < options.rounds; round++) {
      for (const name of round % 2 === 0 ? names : names.toReversed()) {
        const { median: middle } = await measure(
          programs.rttClient,
          paths[name],
          options.count,
          isPinned,
        );
        medians[name].push(middle);
      }
    }
    return [
      {
        figure: 'trace-ratio',
        value: rounded(median(medians.on) / median(medians.off)),
        unit: 'x',
        limit: 1.1,
        details: {
          equalRunsRatio: rounded(median(medians.offAgain) / median(medians.off)),
          on: medians.on.map((value) => rounded(value / 1000)),
          off: medians.off.map((value) => rounded(value / 1000)),
        },
      },
    ];
  } finally {
    for (const server of started) {
      await server.stop();
    }
  }
}

/** Figure trace-reading: microseconds an event, from the file to lines on a pipe; 5 are 200,000 a second. */
export async function measureTraceReading(folder: string): Promise<Figure[]> {
  const path = join(folder, 'long.trace');
  const socket = join(folder, 'long.sock');
  const backend = await startBackend(socket, [`--trace=${path}`, `--trace-size=${RECORDED_BYTES}`]);
  const client = await VfioUserClient.connect(socket);
  for (let i = 0; i < EVENTS; i++) {
    client.postRegionWrite(CONFIG, 4, Uint8Array.of(i & 6, 0));
    if (i % 500 === 0) {
      await client.readRegion(CONFIG, 4, 2);
    }
  }
  await client.readRegion(CONFIG, 4, 2);
  client.close();
  await backend.stop();
  const cli = join(repositoryRoot(), 'dist/cli.js');
  const began = performance.now();
  const reader = spawn(process.execPath, [cli, 'trace', path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let lines = 0;
  reader.stdout.on('data', (chunk: Buffer) => {
    for (let at = chunk.indexOf('\n'); at >= 0; at = chunk.indexOf('\n', at + 1)) {
      lines++;
    }
  });
  await once(reader, 'close');
  const milliseconds = performance.now() - began;
  if (lines < EVENTS) {
    throw new Error(`${lines} lines of ${EVENTS} events were read`);
  }
  return [
    {
      figure: 'trace-reading',
      value: rounded((milliseconds * 1000) / lines),
      unit: 'us/event',
      limit: 5,
      details: { lines, perSecond: Math.round(lines / (milliseconds / 1000)) },
    },
  ];
}
