import { Command } from 'commander';
import { expect, it } from 'vitest';
import { pfOption } from '../../../backend/commands/pf-option.ts';
import { accountOf } from '../../../backend/commands/preparation-tools.ts';

function pfOf(text: string): string {
  const command = new Command().exitOverride().configureOutput({ writeErr: () => {} });
  return command.addOption(pfOption()).parse(['node', 'program', text]).opts().pf;
}

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
