import { Command } from 'commander';
import { expect, it } from 'vitest';
import { explained } from '../../../backend/commands/host-failure.ts';
import { pfOption } from '../../../backend/commands/pf-option.ts';
import { accountOf } from '../../../backend/commands/preparation-tools.ts';
import { HostError } from '../../../backend/device/physical-device.ts';

function pfOf(text: string): string {
  const command = new Command().exitOverride().configureOutput({ writeErr: () => {} });
  return command.addOption(pfOption()).parse(['node', 'program', text]).opts().pf;
}

it('a failure of the host becomes one line with cause and fix', async () => {
  const failing = async () => {
    throw new HostError('open', 16, '/dev/vfio/7', 'in use by pid 4 (node)', 'end it');
  };
  await expect(explained(failing)).rejects.toMatchObject({
    name: 'UserError',
    message: 'open /dev/vfio/7: in use by pid 4 (node); end it',
    fix: 'end it',
    exitCode: 1,
  });
});

it('a fault of ours stays what it is', async () => {
  const fault = new TypeError('ours');
  await expect(explained(() => Promise.reject(fault))).rejects.toBe(fault);
});

it('the address of a PF may leave out the domain', () => {
  expect(pfOf('--pf=01:00.0')).toBe('0000:01:00.0');
  expect(pfOf('--pf=0001:AB:1f.7')).toBe('0001:ab:1f.7');
});

it.each(['card', '01:00', '01:00.8', ''])('%j is no address of a PF', (text) => {
  expect(() => pfOf(`--pf=${text}`)).toThrow('is not domain:bus:device.function');
});

it('an account is found by its name', () => {
  expect(accountOf('root')).toEqual({ name: 'root', uid: 0, gid: 0 });
  expect(() => accountOf('nobody-of-this-name')).toThrow('there is no such user');
});
