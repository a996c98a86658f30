// The backend's ready line, read back.
import { describe, expect, it } from 'vitest';
import { parseBars, parseReadyLine } from '../../../vmm-glue/qemu/ready-line.ts';

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
