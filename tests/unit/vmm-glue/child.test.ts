import { once } from 'node:events';
import { expect, it } from 'vitest';
import { Child } from '../../../vmm-glue/qemu/child.ts';
import { ManualClock } from '../../fakes/manual-clock.ts';

const DEAF =
  "process.on('SIGTERM', () => console.log('told')); setInterval(() => {}, 1000); console.log('up');";

it('a child that does not end when it is told to is made to, when its time is over', async () => {
  const clock = new ManualClock();
  const stdio = ['ignore', 'pipe', 'inherit'] as const;
  const child = new Child([process.execPath, '-e', DEAF], { stdio: [...stdio] }, clock);
  await once(child.process.stdout!, 'data');
  const ended = child.end(5_000);
  await once(child.process.stdout!, 'data');
  clock.elapse(4_999);
  expect(child.hasEnded).toBe(false);
  clock.elapse(1);
  expect(await ended).toEqual({ code: null, signal: 'SIGKILL' });
  expect(clock.pending).toBe(0);
});

it('a program that is not there ends as a shell says it', async () => {
  const child = new Child(['/no/such/program'], {}, new ManualClock());
  expect(await child.ended).toEqual({ code: 127, signal: null });
});
