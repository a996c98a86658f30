// What must be true of VFs' memory in a guest with a usual day, whether it is trapped or mapped, and where the mapping is lost.
import { expect } from 'vitest';
import { BY_A_GUEST } from '../patience.ts';
import { mappedVfs } from './cli-process.ts';
import { Bar, type SriovGuest } from './sriov-guest.ts';
import { isReadUnasked } from './unasked-reads.ts';
import { enableAll, expectToWork, VFS } from './usual-day.ts';

/** How a guest reaches VFs' memory, and how many of them are mapped once they have been enabled for a while. */
export const EITHER_MEMORY = [
  { vfMemory: 'trapped', mapped: 0 },
  { vfMemory: 'mapped', mapped: VFS },
] as const;

/** The port has no function behind it that the guest knows; without Memory Space Enable it shows none of the carriers' memory. */
const CLOSE_CARRIERS_PORT = `cd /sys/bus/pci/devices
for port in *; do
  if [ $(cat $port/class) = 0x060400 ] && ! ls $port | grep -q '^0000:..:..[.].$' ; then
    pci-function config $port 4 2 0 && echo $port
  fi
done`;

/** Each VF keeps a value of its own, before so many are mapped, and then. */
export async function expectMemory(
  guest: SriovGuest,
  socketPath: string,
  mapped: number,
): Promise<void> {
  await writeOwnValues(guest);
  await expectOwnValues(guest);
  await expect.poll(() => mappedVfs(socketPath), BY_A_GUEST).toBe(mapped);
  await expect.poll(() => isReadUnasked(guest, socketPath, VFS - 1), BY_A_GUEST).toBe(mapped > 0);
  await expectOwnValues(guest);
  await guest.expectVfContents(VFS);
}

/**
 * Memory that was mapped and is shown no more makes VFs slower, and not wrong; it is mapped again when they have come up anew. For
 * a guest whose VFs are all mapped.
 */
export async function expectNoHarmByLoss(guest: SriovGuest, socketPath: string): Promise<void> {
  await writeOwnValues(guest);
  const closed = await guest.vm.check(CLOSE_CARRIERS_PORT);
  expect(closed).toMatch(/^[0-9a-f:.]+$/);
  expect(await isReadUnasked(guest, socketPath, 0)).toBe(false);
  await expectOwnValues(guest);
  await expectToWork(guest, VFS - 1);
  await guest.setNumVfs(0);
  await enableAll(guest);
  await expectMemory(guest, socketPath, VFS);
}

async function writeOwnValues(guest: SriovGuest): Promise<void> {
  const writes = ownValues(guest).map(({ register, value }) => `${register} ${value}`);
  await guest.vm.check(writes.join('\n'));
}

async function expectOwnValues(guest: SriovGuest): Promise<void> {
  const own = ownValues(guest);
  const read = await guest.vm.check(own.map(({ register }) => register).join('\n'));
  expect(read.split('\n').map(Number)).toEqual(own.map(({ value }) => value));
}

function ownValues(guest: SriovGuest): { readonly register: string; readonly value: number }[] {
  return Array.from({ length: VFS }, (_, vf) => ({
    register: `pci-function bar ${guest.vf(vf)} ${Bar.memory}`,
    value: 0x60 + vf,
  }));
}
