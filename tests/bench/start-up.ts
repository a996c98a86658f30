// From exec to the ready line, beside a Node that does nothing but print a line.
import { join } from 'node:path';
import { type Figure, median, rounded } from './figure.ts';
import { startBackend, startServer } from './server-process.ts';

const bareNode = ['-e', 'process.stdout.write("ready\\n"); setInterval(() => {}, 1000)'];

/** Figures exec-to-ready and exec-to-ready-baseline, milliseconds, medians; one start of each is not counted. */
export async function measureStartUp(
  folder: string,
  options: { rounds: number },
): Promise<Figure[]> {
  const backend: number[] = [];
  const baseline: number[] = [];
  for (let round = 0; round <= options.rounds; round++) {
    const server = await startBackend(join(folder, 'start.sock'));
    await server.stop();
    const bare = await startServer(process.execPath, bareNode);
    await bare.stop();
    if (round === 0) {
      continue;
    }
    backend.push(server.readyAfter);
    baseline.push(bare.readyAfter);
  }
  return [
    { ...milliseconds('exec-to-ready', backend), limit: 250 },
    milliseconds('exec-to-ready-baseline', baseline),
  ];
}

function milliseconds(figure: string, values: number[]): Figure {
  const all = values.map(rounded);
  return { figure, value: rounded(median(values)), unit: 'ms', details: { all } };
}
