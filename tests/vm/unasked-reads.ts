// Whether a guest reads a VF's memory where it lies, which only the backend can tell: it is asked nothing.
import { statusOf } from './cli-process.ts';
import { Bar, type SriovGuest } from './sriov-guest.ts';

export const READS = 2_000;

/** Reads a function's register over and over; gives the nanoseconds of one time. */
export async function nanosecondsOfRead(
  guest: SriovGuest,
  address: string,
  offset: number,
): Promise<number> {
  return Number(await guest.vm.check(`pci-function time ${address} ${offset} ${READS}`));
}

/** Whether the guest reads a VF's memory without the backend. */
export async function isReadUnasked(
  guest: SriovGuest,
  socketPath: string,
  vfIndex: number,
): Promise<boolean> {
  const before = (await statusOf(socketPath)).vfs[vfIndex]!.messages;
  await nanosecondsOfRead(guest, guest.vf(vfIndex), Bar.memory);
  return (await statusOf(socketPath)).vfs[vfIndex]!.messages - before < READS;
}
