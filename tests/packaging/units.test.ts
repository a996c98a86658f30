// The units of systemd, as systemd's own tools see them.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, it } from 'vitest';
import { ensureMachinePackages } from '../lab/machine.ts';

const UNITS = fileURLToPath(new URL('../../packaging/systemd/', import.meta.url));
/** Of 100, which systemd shows as 3.0 of 10. */
const MOST_EXPOSURE = 30;

beforeAll(() => ensureMachinePackages(['systemd']));

function analyze(...args: string[]): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync('systemd-analyze', args, { encoding: 'utf8' });
  return { status, output: stdout + stderr };
}

it.each([
  'vfio-user-sriov@.service',
  'vfio-user-sriov-opener@.service',
  'vfio-user-sriov-writer@.service',
  'vfio-user-sriov-glue@.service',
  'vfio-user-sriov-prepare@.service',
])('%s is not exposed', (unit) => {
  const args = ['security', '--offline=yes', '--no-pager', `--threshold=${MOST_EXPOSURE}`];
  const { status, output } = analyze(...args, join(UNITS, unit));
  expect(output).toContain('Overall exposure level');
  expect({ status, output }).toMatchObject({ status: 0 });
});

it.each(readdirSync(UNITS))('%s is one that systemd understands', (unit) => {
  const { output } = analyze('verify', '--man=no', join(UNITS, unit));
  const told = output
    .split('\n')
    // The program is where the package puts it, and not here.
    .filter((line) => !line.includes('Command /usr/bin/vfio-user-sriov is not executable'));
  expect(told.join('\n').trim()).toBe('');
});

it.each(readdirSync(UNITS))('%s has a driver loaded before it is allowed its devices', (unit) => {
  const lines = readFileSync(join(UNITS, unit), 'utf8').split('\n');
  const drivers = lines.flatMap((line) => /^DeviceAllow=char-(\w+)/.exec(line)?.[1] ?? []);
  const loads = drivers.flatMap((driver) =>
    ['Wants', 'After'].map((how) => `${how}=modprobe@${driver}.service`),
  );
  expect(lines).toEqual(expect.arrayContaining(loads));
});
