// A card that is shipped as a profile, as a guest's lspci sees it beside what the card's own text says.
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { guestToolFiles } from '../lab/guest-tools.ts';
import { SriovGuest } from './sriov-guest.ts';

const TEXT = readFileSync('tests/fixtures/lspci/intel-82576.txt', 'utf8');
/** Lines of a PF's text that say what the card is: neither where it was put, nor what a driver or the link made of it. */
const WHAT_IT_IS = /^\t(Capabilities:|Region)|DevCap:|DevCap2:|MSI-X|Table size|Vector table|PBA/;

let guest: SriovGuest;

beforeAll(async () => {
  guest = await SriovGuest.boot({
    device: ['--loopback', '--profile=examples/profiles/intel-82576.json', '--total-vfs=4'],
    files: await guestToolFiles(['lspci']),
  });
});

afterAll(async () => {
  await guest?.end();
});

/** What lspci says of the first function in the text. */
function essence(text: string): string[] {
  return text
    .split(/^01:10\.0/m)[0]!
    .split('\n')
    .filter((line) => WHAT_IT_IS.test(line))
    .map((line) => line.replace(/ at [0-9a-f]+/, '').replace(/Enable[+-]|Masked[+-]/g, ''))
    .map((line) => line.replace(/\[(virtual|disabled)\] /g, '').trim());
}

it('the PF shows what the card shows', async () => {
  const found = essence(await guest.vm.check('lspci -n -vvv -s 01:00.0'));
  expect(found).toEqual(essence(TEXT));
});

it('and its VFs come up with their IDs', async () => {
  await guest.bindDriver('pci-pf-stub');
  await guest.setNumVfs(2);
  const list = await guest.vm.check('lspci -n -s 01:');
  expect(list.match(/8086:10ca/g)).toHaveLength(2);
  await guest.setNumVfs(0);
});

it('neither the kernel nor QEMU had anything to complain of', () => {
  guest.expectNoComplaints();
});
