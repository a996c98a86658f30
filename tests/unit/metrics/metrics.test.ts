// What is counted, what a scrape gets, and that the documented names are those.

import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { Activity } from '../../../backend/metrics/activity.ts';
import { Exposition } from '../../../backend/metrics/exposition.ts';
import { FAMILIES, LATENCY, PREFIX } from '../../../backend/metrics/families.ts';
import type { Measurement } from '../../../backend/metrics/measurement.ts';
import { type LongestTurn, TurnTime } from '../../../backend/metrics/turn-time.ts';
import { Errno } from '../../../protocol/errno.ts';
import type { DeviceStatus } from '../../../protocol/hotplug/status.ts';
import { Command, RegionIndex } from '../../../protocol/vfio-user/commands.ts';

const COUNTS = { attached: true, messages: 20, interrupts: 1, dmaWindows: 2, failedMaps: ['one'] };
const STATUS: DeviceStatus = {
  version: 1,
  device: '0000:01:00.0',
  phase: 'quarantined',
  failure: null,
  numVfs: 1,
  totalVfs: 2,
  vfEnable: true,
  generation: 3,
  hotplug: 'vmm',
  pf: COUNTS,
  clients: [{ function: 'pf', role: 'device', messages: 20 }],
  vfs: [{ ...COUNTS, index: 0, generation: 3, state: 'up', holder: 'vmm' }],
  quarantine: [{ vfIndex: 0, holder: 'process 1' }],
  trace: { on: true, records: 12, bytes: 3456, isWrapped: true, failure: null },
};

/** At a time that a double has to the microsecond. */
const LONGEST_TURN = { cpuMilliseconds: 0.5, start: 49_317_485_962_000n, end: 49_317_487_000_000n };

function measured(activity: Activity): Measurement {
  return { status: STATUS, activity: activity.counts, longestTurn: LONGEST_TURN };
}

async function scrape(activity: Activity): Promise<string[]> {
  const text = await new Exposition().text(measured(activity));
  return text.split('\n').filter((line) => line.startsWith(PREFIX));
}

/** An access that was answered after so many milliseconds. */
function access(activity: Activity, isWrite: boolean, region: number, milliseconds: number): void {
  activity.access('pf', isWrite, region);
  const command = isWrite ? Command.regionWrite : Command.regionRead;
  activity.answered('pf', command, milliseconds, 0, false);
}

it('accesses are counted by function and kind, and by how long they took', async () => {
  const activity = new Activity();
  access(activity, false, RegionIndex.config, 0.004);
  access(activity, true, RegionIndex.config, 0.003);
  access(activity, true, RegionIndex.bar0, 0.003);
  activity.access('vf1', false, RegionIndex.bar2);
  // A write that waited, while another function was read.
  activity.answered('pf', Command.regionWrite, 90, 0, true);
  const lines = await scrape(activity);
  expect(lines).toContain(`${PREFIX}accesses_total{function="pf",kind="config_read"} 1`);
  expect(lines).toContain(`${PREFIX}accesses_total{function="pf",kind="bar_write"} 1`);
  expect(lines).toContain(`${PREFIX}accesses_total{function="vf1",kind="bar_read"} 1`);
  const writes = lines.filter((line) => /duration_seconds.*kind="config_write"/.test(line));
  expect(writes.filter((line) => line.endsWith(' 1')).length).toBeGreaterThan(0);
  const config = `${PREFIX}request_duration_seconds_bucket{le=`;
  expect(writes).toContain(`${config}"0.000002",kind="config_write"} 0`);
  expect(writes).toContain(`${config}"0.000005",kind="config_write"} 1`);
  expect(writes).toContain(`${config}"0.025",kind="config_write"} 1`);
  expect(writes).toContain(`${config}"0.1",kind="config_write"} 2`);
  expect(writes).toContain(`${config}"+Inf",kind="config_write"} 2`);
  expect(writes).toContain(`${PREFIX}request_duration_seconds_count{kind="config_write"} 2`);
  expect(writes).toContain(`${PREFIX}request_duration_seconds_sum{kind="config_write"} 0.090003`);
});

it('what goes wrong is counted by kind, and what a client invents is one kind', async () => {
  const activity = new Activity();
  for (let command = 40; command < 90; command++) {
    activity.answered('pf', command, 0.01, Errno.ENOSYS, false);
  }
  activity.answered('pf', Command.dmaMap, 0.01, Errno.EINVAL, true);
  activity.host('createVfs', {}, 10, 'No space left on device');
  activity.host('createVfs', {}, 10);
  activity.effect({ type: 'endEnable', outcome: 'failed' });
  const lines = await scrape(activity);
  expect(lines.filter((line) => line.startsWith(`${PREFIX}errors_total`))).toEqual([
    `${PREFIX}errors_total{command="unknown",error="ENOSYS"} 50`,
    `${PREFIX}errors_total{command="dma_map",error="EINVAL"} 1`,
  ]);
  expect(lines).toContain(`${PREFIX}host_failures_total{request="createVfs"} 1`);
  expect(lines).toContain(`${PREFIX}enables_total{outcome="failed"} 1`);
});

it('what is set up, mapped and reset is counted; how things are is told by the status', async () => {
  const activity = new Activity();
  activity.dma('pf', true);
  activity.dma('pf', true);
  activity.dma('pf', false);
  activity.setIrqs('vf0', { index: 2, start: 0, count: 1, flags: 0 });
  activity.reset('vf0', 'function');
  const lines = await scrape(activity);
  const values = Object.fromEntries(
    lines.map((line) => [line.slice(PREFIX.length, line.lastIndexOf(' ')), line.split(' ').at(-1)]),
  );
  expect(values).toMatchObject({
    'dma_maps_total{function="pf"}': '2',
    'dma_unmaps_total{function="pf"}': '1',
    'dma_windows{function="vf0"}': '2',
    'dma_unreachable_windows{function="pf"}': '1',
    'interrupt_setups_total{function="vf0"}': '1',
    'interrupts_total{function="pf"}': '1',
    'resets_total{function="vf0",kind="function"}': '1',
    'resets_total{function="vf0",kind="device"}': '0',
    'attached{function="vf0"}': '1',
    'phase{phase="quarantined"}': '1',
    'phase{phase="enabled"}': '0',
    'vfs{state="up"}': '1',
    vfs_wanted: '1',
    vfs_quarantined: '1',
    'clients{role="device"}': '1',
    longest_turn_seconds: '0.0005',
    longest_turn_start_seconds: '49317.485962',
    longest_turn_end_seconds: '49317.487',
    trace_recording: '1',
    trace_records: '12',
    trace_bytes: '3456',
    trace_wrapped: '1',
  });
});

it('one scrape after another gives what there is, not the sum of both', async () => {
  const activity = new Activity();
  access(activity, false, RegionIndex.config, 0.004);
  const exposition = new Exposition();
  const measurement = measured(activity);
  await exposition.text(measurement);
  const text = await exposition.text(measurement);
  expect(text).toContain('accesses_total{function="pf",kind="config_read"} 1\n');
  expect(text).toContain('vfs_wanted 1\n');
});

it('the documented names are those that there are', () => {
  const path = new URL('../../../backend/metrics/README.md', import.meta.url);
  const rows = readFileSync(path, 'utf8').match(/^\| `.*$/gm) ?? [];
  const documented = rows.map((row) =>
    row
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim().replaceAll('`', '')),
  );
  const all = [...FAMILIES, { ...LATENCY, type: 'histogram' }].map(
    ({ name, type, labels, help }) => [name, type, labels.join(', '), help],
  );
  expect(documented).toEqual(all);
});

it('of turns the longest counts, by CPU time, but not that in which it is asked for', () => {
  let cpu = 0;
  let now = 1000n;
  const turns = new TurnTime(
    () => cpu,
    () => now,
  );
  const turn = (milliseconds: number): void => {
    turns.began();
    cpu += milliseconds;
    // It was not always on the CPU.
    now += 10n;
    turns.ended();
    // Between turns: the loop looks, and sleeps.
    cpu += 50;
    now += 100n;
  };
  const ask = (): LongestTurn => {
    turns.began();
    const longest = turns.takeLongest();
    // The answer.
    cpu += 100;
    turns.ended();
    return longest;
  };
  [1, 4, 2].forEach(turn);
  expect(ask()).toEqual({ cpuMilliseconds: 4, start: 1110n, end: 1120n });
  [1, 2].forEach(turn);
  expect(ask()).toEqual({ cpuMilliseconds: 2, start: 1440n, end: 1450n });
  expect(ask()).toEqual({ cpuMilliseconds: 0, start: 0n, end: 0n });
});
