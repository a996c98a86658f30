// The backend's ready line, read back.
import { describe, expect, it } from 'vitest';
import {
  formatReadyLine,
  parseBars,
  parseReadyLine,
} from '../../../../protocol/launch/ready-line.ts';

describe('a ready line', () => {
  it('says where the sockets are and what the VFs look like', () => {
    const line =
      'ready socket=/run/a b/pf.sock vf-sockets=/run/a b/vfs total-vfs=7 vf-bars=0:16384:64p,3:4096:32';
    expect(parseReadyLine(line)).toEqual({
      socketPath: '/run/a b/pf.sock',
      vfSocketsFolder: '/run/a b/vfs',
      totalVfs: 7,
      vfBars: [
        { index: 0, size: 16384, is64Bit: true, prefetchable: true },
        { index: 3, size: 4096, is64Bit: false, prefetchable: false },
      ],
    });
  });

  it('is read back as it was written', () => {
    const pfBars = [{ index: 0, size: 65536, is64Bit: true, prefetchable: true }];
    const vfBars = [...pfBars, { index: 3, size: 4096, is64Bit: false, prefetchable: false }];
    const said = { vfSocketsFolder: '/run/vfs', totalVfs: 7, pfBars, vfBars };
    const line = formatReadyLine({ socket: { path: '/run/pf.sock' }, ...said });
    expect(parseReadyLine(line)).toEqual({ socketPath: '/run/pf.sock', ...said });
  });

  it('of a connected socket names the fd, which no QEMU can be given', () => {
    const line = formatReadyLine({ socket: { fd: 3 }, totalVfs: 1, pfBars: [], vfBars: [] });
    expect(line).toBe('ready fd=3 total-vfs=1 pf-bars= vf-bars=');
    expect(() => parseReadyLine(line)).toThrow('start it with --socket-path and --vf-sockets');
  });

  it('is not mistaken for another line', () => {
    expect(parseReadyLine('already there')).toBeUndefined();
    expect(parseReadyLine('readying')).toBeUndefined();
  });

  it('that lacks something is refused by name', () => {
    expect(() => parseReadyLine('ready socket=/a vf-sockets=/b vf-bars=')).toThrow('total-vfs=');
  });
});

it.each(['0', '6:16:32', '0:100:32', '0:16:16', '0:8:32', '0:16384:64q', 'x:16:32'])(
  'refuses the BAR "%s"',
  (bar) => {
    expect(() => parseBars(bar)).toThrow('describes no BAR');
  },
);

it.each([
  ['5:16384:64', 'BAR 6, which there is not'],
  ['0:16384:64p,1:4096:32', 'BAR 1, which another BAR has'],
  ['1:4096:32,0:16384:64p', 'BAR 1, which another BAR has'],
  ['2:4096:32,2:4096:32', 'BAR 2, which another BAR has'],
])('BARs of which one leaves the other no place are refused: %s', (text, why) => {
  expect(() => parseBars(text)).toThrow(why);
});

it.each(['', '0', '-1', 'four', '70000'])(
  'a line without a number of VFs is refused: "%s"',
  (count) => {
    const line = `ready socket=/run/pf vf-sockets=/run/vfs total-vfs=${count} vf-bars=`;
    expect(() => parseReadyLine(line)).toThrow('number of VFs');
  },
);
