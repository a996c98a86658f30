// Slots that lie where VFs were, and another function that the guest moves there by setpci: its data stay right, at rest, while
// slots are placed elsewhere or back, and where they come by half-way.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { guestToolFiles } from '../lab/guest-tools.ts';
import { BY_A_GUEST } from '../patience.ts';
import { mappedVfs } from './cli-process.ts';
import { ALL_ONES, Bar, MAGIC, SriovGuest } from './sriov-guest.ts';

/** As many as are not placed ahead in one pause. */
const VFS = 15;
const VF_BAR_BYTES = 0x10_0000;
/** Beside the PF; its BAR 2 is memory, as large as a VF's BAR. */
const OTHER = '0000:00:05.0';
const OTHER_DEVICE = [
  ...['-object', `memory-backend-memfd,id=other,size=${VF_BAR_BYTES},share=on`],
  ...['-device', 'ivshmem-plain,memdev=other,bus=pcie.0,addr=5'],
];
/**
 * A QEMU whose one qtest object is taken: the glue has the configuration ports alone, so that each half of a BAR is a command of its
 * own, between which an emulated processor sees the slot half-way if it runs.
 */
const PORTS_ALONE = ['-chardev', 'null,id=nobody', '-object', 'qtest,id=taken,chardev=nobody'];
/** Bus addresses at which nothing else is. */
const ELSEWHERE = 0x40_8000_0000;
const FURTHER_OFF = 0x48_9000_0000;
/** In a VF's BAR, where a slot that covers the other function would show itself. */
const PLACES = [Bar.magic, Bar.memory, VF_BAR_BYTES - 4];
const ROUNDS = 4;
/** What has slots move, and how often the glue then tells that it has placed some ahead, at least. */
const MOVES = [
  { what: 'an enable has them moved', meanwhile: ':', placed: 0 },
  { what: 'they are placed ahead', meanwhile: 'sleep 2', placed: 1 },
] as const;
/** VF Enable, with VF Memory Space Enable and without. */
const MEMORY_ON = '9';
const MEMORY_OFF = '1';

const folder = mkdtempSync(join(tmpdir(), 'vacated-'));
const socketPath = join(folder, 'pf.sock');
let guest: SriovGuest;
/** Where the guest's kernel has put VF 0, and the other function. */
let room: number;
let home: number;

beforeAll(async () => {
  guest = await SriovGuest.boot({
    launcher: [
      '--topology=pcie.0',
      `--total-vfs=${VFS}`,
      `--vf-bar-size=${VF_BAR_BYTES}`,
      `--socket-path=${socketPath}`,
    ],
    pf: '0000:00:10.0',
    files: await guestToolFiles(['setpci']),
    cpus: 2,
    qemu: [...OTHER_DEVICE, ...PORTS_ALONE],
  });
  await guest.bindDriver('pci-pf-stub');
  await guest.vm.check(`echo 1 > /sys/bus/pci/devices/${OTHER}/enable`);
  room = await guest.barAddress(guest.pf, 7);
  home = await guest.barAddress(OTHER, 2);
});

afterAll(async () => {
  await guest?.end();
  rmSync(folder, { recursive: true, force: true });
});

function halves(address: number): [string, string] {
  return [(address % 2 ** 32).toString(16), Math.floor(address / 2 ** 32).toString(16)];
}

/** Commands that have the VFs begin there, or the other function's BAR. */
function moveVfs(address: number): string {
  const [low, high] = halves(address);
  return `setpci -s ${guest.pf} ECAP_SRIOV+24.l=${low} ECAP_SRIOV+28.l=${high}`;
}

function setControl(value: string): string {
  return `setpci -s ${guest.pf} ECAP_SRIOV+8.w=${value}`;
}

function moveOther(address: number): string {
  const [low, high] = halves(address);
  return `setpci -s ${OTHER} BASE_ADDRESS_2=${low} BASE_ADDRESS_3=${high}`;
}

/** Where a BAR is that is being moved, with its lower half written. */
function halfWay(from: number, to: number): number {
  return Math.floor(from / 2 ** 32) * 2 ** 32 + (to % 2 ** 32);
}

function vfAddress(start: number, vfIndex: number): number {
  return start + vfIndex * VF_BAR_BYTES;
}

/** Commands that print what is there. */
function look(address: number): string {
  return PLACES.map((offset) => `pci-function memory ${address + offset}`).join('; ');
}

/** The same, if nobody but the other function answers. */
function dataOf(value: number): string[] {
  return PLACES.map((offset) => hex(value + offset));
}

function write(address: number, value: number): string {
  const one = (offset: number): string =>
    `pci-function memory ${address + offset} ${value + offset}`;
  return PLACES.map(one).join('; ');
}

function hex(value: number): string {
  return `0x${value.toString(16).padStart(8, '0')}`;
}

async function run(...commands: readonly string[]): Promise<string[]> {
  return (await guest.vm.check(commands.join('\n'))).split('\n').filter(Boolean);
}

/** How often the glue has told of slots that it placed before an enable. */
function timesPlaced(): number {
  return guest.vm.processOutput.split('"slots are placed ahead of an enable"').length - 1;
}

/** Runs commands after which slots are placed ahead, and waits for that. */
async function untilPlaced(...commands: readonly string[]): Promise<void> {
  const before = timesPlaced();
  await run(...commands);
  await expect.poll(timesPlaced, BY_A_GUEST).toBeGreaterThan(before);
}

it('what the guest puts where VFs were stays right, before and after slots have moved away and back', async () => {
  await expect.poll(timesPlaced, BY_A_GUEST).toBeGreaterThan(0);
  for (const vfIndex of [0, 7, VFS - 1]) {
    const place = vfAddress(room, vfIndex);
    const value = 0xda7a_0000 - vfIndex * 0x10_0000;
    // Over a slot that is there still.
    expect(await run(moveOther(place), write(place, value), look(place))).toEqual(dataOf(value));
    await untilPlaced(moveVfs(ELSEWHERE));
    expect(await run(look(place), look(vfAddress(ELSEWHERE, vfIndex)))).toEqual([
      ...dataOf(value),
      ...PLACES.map(() => ALL_ONES),
    ]);
    // Back, over what is there now.
    await untilPlaced(moveVfs(room));
    expect(await run(look(place))).toEqual(dataOf(value));
    expect(await run(moveOther(home), look(home))).toEqual(dataOf(value));
  }
  await guest.setNumVfs(VFS);
  await guest.expectVfContents(VFS);
  await guest.setNumVfs(0);
});

it('so it does where slots are about to be placed ahead, whether it was there before them or comes after', async () => {
  const value = 0x5107_0000;
  const read = (address: number): string => `pci-function memory ${address}`;
  await run(write(home, value));
  let to = ELSEWHERE;
  for (let round = 0; round < ROUNDS; round++) {
    // Of the last slots: by then a while has passed since the glue began.
    const place = vfAddress(to, VFS - 1 - round);
    const before = timesPlaced();
    const seen = await run(
      moveVfs(to),
      // From before the first pause to after the last.
      `for i in $(seq 20); do ${moveOther(place)}; ${read(place)}; usleep 5000; ${read(place)}; ${moveOther(home)}; ${read(home)}; done`,
    );
    expect(new Set(seen)).toEqual(new Set([hex(value)]));
    expect(timesPlaced()).toBeGreaterThan(before);
    to = to === ELSEWHERE ? room : ELSEWHERE;
  }
});

it.each(MOVES)(
  'so it does where slots come by half-way, while $what: nobody sees them there',
  async ({ meanwhile, placed }) => {
    const value = 0x0fa5_0000;
    await untilPlaced(moveVfs(ELSEWHERE));
    await run(write(home, value));
    let from = ELSEWHERE;
    for (let round = 0; round < ROUNDS; round++) {
      const to = from === ELSEWHERE ? FURTHER_OFF : ELSEWHERE;
      const place = vfAddress(halfWay(from, to), round);
      const last = vfAddress(to, VFS - 1);
      const before = timesPlaced();
      const seen = await run(
        `touch /tmp/moving; ${moveOther(place)}`,
        `pci-function watch ${place + Bar.memory} /tmp/moving > /tmp/seen & watcher=$!`,
        `${moveVfs(to)}; ${meanwhile}; echo ${VFS} > ${guest.sysfs}/sriov_numvfs`,
        `pci-function memory ${last + Bar.magic}; pci-function memory ${last + Bar.functionNumber}`,
        `rm /tmp/moving; wait $watcher; cat /tmp/seen; ${look(place)}`,
        `echo 0 > ${guest.sysfs}/sriov_numvfs; ${moveOther(home)}`,
      );
      expect(seen).toEqual([MAGIC, hex(VFS), hex(value + Bar.memory), ...dataOf(value)]);
      expect(timesPlaced()).toBeGreaterThanOrEqual(before + placed);
      from = to;
    }
    await untilPlaced(moveVfs(room));
    await guest.setNumVfs(VFS);
    await guest.expectVfContents(VFS);
    await guest.setNumVfs(0);
  },
);

it('VFs that move while their memory is off are mapped where they are then, and what is in their old place stays right', async () => {
  const vfsAreMapped = () => expect.poll(() => mappedVfs(socketPath), BY_A_GUEST).toBe(VFS);
  const value = 0x0ff5_0000;
  const place = vfAddress(room, VFS - 1);
  const moved = vfAddress(ELSEWHERE, VFS - 1);
  await guest.setNumVfs(VFS);
  await vfsAreMapped();
  await run(setControl(MEMORY_OFF), moveVfs(ELSEWHERE), moveOther(place), write(place, value));
  await run(setControl(MEMORY_ON));
  await vfsAreMapped();
  expect(
    await run(
      look(place),
      `pci-function memory ${moved + Bar.magic}; pci-function memory ${moved + Bar.functionNumber}`,
    ),
  ).toEqual([...dataOf(value), MAGIC, hex(VFS)]);
  await run(setControl(MEMORY_OFF), moveVfs(room), moveOther(home), setControl(MEMORY_ON));
  await vfsAreMapped();
  await guest.expectVfContents(VFS);
  expect(await run(look(home))).toEqual(dataOf(value));
});

it('neither the kernel nor QEMU had anything to complain of', async () => {
  await guest.expectNoComplaints();
});
