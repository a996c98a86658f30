// What the guest-pause benchmark stands on: the glue's account of an enable, read from a log, and the bare monitor.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { BareMonitor } from '../../bench/bare-monitor.ts';
import { timingsIn } from '../../bench/pause-guest.ts';
import { FakeQemu } from '../../fakes/qemu-monitor.ts';

let folder: string;
let qemu: FakeQemu;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'guest-pause-'));
  qemu = new FakeQemu(join(folder, 'qmp'));
  await qemu.listen();
});

afterEach(async () => {
  await qemu.vanish();
  rmSync(folder, { recursive: true });
});

it('finds the enables in a log, a torn last line left out', () => {
  const log = [
    'qemu-system-x86_64: warning: something else',
    '{"level":30,"msg":"ready"}',
    '{"level":30,"placedVfs":4,"placementCommands":8,"msg":"4 VFs placed"}',
    '{"level":30,"placedVfs":7,"placementComm',
  ].join('\n');
  expect(timingsIn(log).map(({ placedVfs }) => placedVfs)).toEqual([4]);
});

it('pauses the guest for what it is told to do, counts every command, and gives the port back', async () => {
  const monitor = await BareMonitor.connect(qemu.path);
  qemu.commands.length = 0;
  const { commands } = await monitor.pause(['o /w 0xcf8 0x80010104', 'o /h 0xcfc 0x2']);
  expect(qemu.commands).toEqual([
    'stop',
    'i /w 0xcf8',
    'o /w 0xcf8 0x80010104',
    'o /h 0xcfc 0x2',
    'o /w 0xcf8 0x80010004',
    'cont',
  ]);
  expect(commands).toBe(qemu.commands.length);
  expect(qemu.isRunning).toBe(true);
  monitor.close();
});

it('passes on what QEMU says of a command that it refuses', async () => {
  const monitor = await BareMonitor.connect(qemu.path);
  qemu.react('stop', 'refuse');
  await expect(monitor.execute('stop')).rejects.toThrow('no stop today');
  monitor.close();
});
