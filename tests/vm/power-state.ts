// A guest that changes the power state of a VF while it uses the VF's memory.
import { Bar, type SriovGuest } from './sriov-guest.ts';

const POWER_MANAGEMENT = 0x1;
/** In the capability. */
const POWER_CONTROL = 0x4;
const D3_HOT = 3;
const TIMES = 10;

/** Puts a VF to D3hot and back, time and again, while another CPU of the guest reads its memory. */
export async function sleepWhileRead(guest: SriovGuest, vf: string): Promise<void> {
  const power = (await guest.capability(vf, POWER_MANAGEMENT)) + POWER_CONTROL;
  const set = (state: number): string => `pci-function config ${vf} ${power} 2 ${state}`;
  await guest.vm.check(
    `touch /tmp/reading; (while [ -e /tmp/reading ]; do pci-function time ${vf} ${Bar.memory} 1000; done > /dev/null) & r=$!
     for i in $(seq ${TIMES}); do ${set(D3_HOT)}; sleep 0.1; ${set(0)}; sleep 0.1; done
     rm /tmp/reading; wait $r`,
  );
}
