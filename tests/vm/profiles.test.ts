// Cards that are shipped as profiles, as a guest's lspci sees them beside what each card's own text says; and a driver that
// finds its controllers behind one.
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { guestToolFiles } from '../lab/guest-tools.ts';
import { SriovGuest } from './sriov-guest.ts';

/** Lines of a function's text that say what the card is: neither where it was put, nor what a driver or the link made of it. */
const WHAT_IT_IS = /^\t(Capabilities:|Region)|DevCap:|DevCap2:|MSI-X|Table size|Vector table|PBA/;

/** What lspci says of one of the functions in the text: by default the first. */
function essence(text: string, index = 0): string[] {
  return text
    .split(/^(?=[0-9a-f]{2}:[0-9a-f]{2}\.[0-7] )/m)
    .filter((each) => /^[0-9a-f]{2}:/.test(each))
    [index]!.split('\n')
    .filter((line) => WHAT_IT_IS.test(line))
    .map((line) => line.replace(/ at [0-9a-f]+/, '').replace(/Enable[+-]|Masked[+-]/g, ''))
    .map((line) => line.replace(/\[(virtual|disabled)\] /g, '').trim());
}

/** PF and VF are the first and the second function of a text. */
const InText = { pf: 0, vf: 1 } as const;

async function expectLikeness(guest: SriovGuest, text: string, index: number): Promise<void> {
  const address = index === InText.pf ? guest.pf : guest.vf(0);
  const found = essence(await guest.vm.check(`lspci -n -vvv -s ${address}`));
  expect(found).toEqual(essence(readFileSync(`tests/fixtures/lspci/${text}`, 'utf8'), index));
}

describe('a network controller that does nothing', () => {
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

  it('the PF shows what the card shows', async () => {
    await expectLikeness(guest, 'intel-82576.txt', InText.pf);
  });

  it('and its VFs come up with their IDs, and show what those of the card show', async () => {
    await guest.bindDriver('pci-pf-stub');
    await guest.setNumVfs(2);
    const list = await guest.vm.check('lspci -n -s 01:');
    expect(list.match(/8086:10ca/g)).toHaveLength(2);
    await expectLikeness(guest, 'intel-82576.txt', InText.vf);
    await guest.setNumVfs(0);
  });

  it('neither the kernel nor QEMU had anything to complain of', async () => {
    await guest.expectNoComplaints();
  });
});

/** Profile, the capabilities in its text that no guest is shown, and where the text has a VF. */
const NVME_CARDS: readonly [string, string[], number[]][] = [
  ['qemu-nvme', [], [InText.vf]],
  [
    'samsung-pm174x',
    [
      'Secondary PCI Express',
      'Physical Layer 16.0 GT/s',
      'Lane Margining at the Receiver',
      'Physical Layer 32.0 GT/s',
      'Data Link Feature',
    ],
    [],
  ],
];

describe.each(NVME_CARDS)('an NVMe controller in the shape of %s', (card, hidden, vfInText) => {
  let guest: SriovGuest;

  beforeAll(async () => {
    guest = await SriovGuest.boot({
      device: ['--device=nvme', `--profile=examples/profiles/${card}.json`, '--total-vfs=2'],
      modules: ['nvme'],
      files: [
        ...(await guestToolFiles(['lspci'])),
        { path: '/card.txt', source: `tests/fixtures/lspci/${card}.txt` },
      ],
    });
  });
  afterAll(async () => {
    await guest?.end();
  });

  it('the PF shows what the card shows, as the same lspci reads its bytes', async () => {
    const sized = (lines: string[]) => lines.map((line) => line.replace(/ \[size=\w+\]/, ''));
    const found = essence(await guest.vm.check('lspci -n -vvv -s 01:00.0'));
    const bytes = essence(await guest.vm.check('lspci -n -vvv -F /card.txt'));
    const shown = bytes.filter((line) => !hidden.some((name) => line.includes(name)));
    expect(sized(found)).toEqual(sized(shown));
  });

  it.each(vfInText)('a VF shows what the card’s does, function %i of the text', async (index) => {
    await guest.setNumVfs(1);
    await expectLikeness(guest, `${card}.txt`, index);
    await guest.setNumVfs(0);
  });

  it('the driver binds PF and VFs, and keeps data on them', async () => {
    await guest.setNumVfs(2);
    await guest.vm.check('dd if=/dev/urandom of=/tmp/data bs=64k count=16 2>/dev/null');
    for (const address of [guest.pf, guest.vf(0), guest.vf(1)]) {
      await guest.vm.check(
        `cd /sys/bus/pci/devices/${address}/nvme/nvme*/ && for try in $(seq 100); do ` +
          'ls -d nvme*n* >/dev/null 2>&1 && break; sleep 0.1; done; disk=/dev/$(ls -d nvme*n* | head -n1); ' +
          'dd if=/tmp/data of=$disk bs=64k oflag=direct 2>/dev/null && ' +
          'dd if=$disk bs=64k count=16 iflag=direct 2>/dev/null | cmp - /tmp/data',
      );
    }
    await guest.setNumVfs(0);
  });

  it('neither the kernel nor QEMU had anything to complain of', async () => {
    await guest.expectNoComplaints();
  });
});
