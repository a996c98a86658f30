// What it costs to look on: the round trip of a config read with a trace on, or with metrics on, over that of an equal
// backend without, in alternating rounds; and how fast a recording is read.

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

/**
 * Figures trace-ratio and metrics-ratio: medians with the one or the other on over medians with neither;
 * `equalRunsRatio` is that of two backends without.
 */
export async function measureOnlookers(
  programs: CPrograms,
  folder: string,
  options: { rounds: number; count: number },
): Promise<Figure[]> {
  const isPinned = canPin();
  const extra = {
    trace: [`--trace=${join(folder, 'on.trace')}`],
    metrics: [`--metrics=unix:${join(folder, 'scrape.sock')}`],
    off: [],
    offAgain: [],
  } as const;
  const names = ['trace', 'metrics', 'off', 'offAgain'] as const;
  const socket = (name: string) => join(folder, `${name}.sock`);
  const started: ServerProcess[] = [];
  try {
    for (const name of names) {
      const server = await startBackend(socket(name), [...extra[name]]);
      started.push(server);
      if (isPinned) {
        pin(server.pid);
      }
    }
    const times: Record<(typeof names)[number], number[]> = {
      trace: [],
      metrics: [],
      off: [],
      offAgain: [],
    };
    for (let round = 0; round < options.rounds; round++) {
      for (const name of round % 2 === 0 ? names : names.toReversed()) {
        const { median: middle } = await measure(
          programs.rttClient,
          socket(name),
          options.count,
          isPinned,
        );
        times[name].push(middle);
      }
    }
    const ratio = (of: (typeof names)[number]) => rounded(median(times[of]) / median(times.off));
    const microseconds = (of: (typeof names)[number]) =>
      times[of].map((value) => rounded(value / 1000));
    return (['trace', 'metrics'] as const).map((name) => ({
      figure: `${name}-ratio`,
      value: ratio(name),
      unit: 'x',
      limit: 1.1,
      details: {
        equalRunsRatio: ratio('offAgain'),
        on: microseconds(name),
        off: microseconds('off'),
      },
    }));
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
