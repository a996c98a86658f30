// The options of `serve`: which device they name, and what is refused because it is about another kind.
import { describe, expect, it } from 'vitest';
import {
  deviceKindOf,
  type ServeOptions,
  serveOptions,
} from '../../../backend/commands/serve-options.ts';
import { KINDS } from '../../../backend/devices/registry.ts';

const TIMEOUTS = { plugTimeout: 1, unplugTimeout: 1, logLevel: 'info', logFormat: 'json' } as const;

const kindOf = (given: Partial<ServeOptions>): string =>
  deviceKindOf({ ...TIMEOUTS, ...given } as ServeOptions);

describe('which kind of device', () => {
  it('takes each way of saying it', () => {
    expect(kindOf({ loopback: true })).toBe('loopback');
    expect(kindOf({ device: 'loopback' })).toBe('loopback');
    expect(kindOf({ pf: '0000:01:00.0' })).toBe('vfio');
  });

  it('refuses none, and two', () => {
    expect(() => kindOf({})).toThrow('one of --loopback, --device and --pf is needed');
    expect(() => kindOf({ loopback: true, pf: '0000:01:00.0' })).toThrow(
      '--loopback and --pf exclude',
    );
    expect(() => kindOf({ loopback: true, device: 'loopback' })).toThrow(
      '--loopback and --device exclude',
    );
  });

  it('refuses a name that no kind has, and the one that --pf stands for', () => {
    expect(() => kindOf({ device: 'toaster' })).toThrow('--device=toaster: there is no such kind');
    expect(() => kindOf({ device: 'vfio' })).toThrow('--device=vfio: there is no such kind');
  });

  it("refuses another kind's options, and says whose they are", () => {
    expect(() => kindOf({ pf: '0000:01:00.0', vfBarSize: 16384 })).toThrow(
      '--vf-bar-size goes with --loopback, but --pf was given',
    );
    expect(() => kindOf({ loopback: true, container: 'shared' })).toThrow(
      '--container goes with --pf, but --loopback was given',
    );
  });
});

it('lists every option of every kind once', () => {
  const flags = serveOptions().map((option) => option.flags);
  for (const { options } of Object.values(KINDS)) {
    for (const option of options) {
      expect(flags).toContain(option.flags);
    }
  }
  expect(new Set(flags).size).toBe(flags.length);
});
