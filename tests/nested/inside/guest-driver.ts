// What a person types in the nested guest to work with an igb PF and its VFs.
import { strict as assert } from 'node:assert';
import type { GuestVm } from '../../lab/guest.ts';
import { GUEST_FUNCTIONS } from '../guest-functions.ts';

/** A function by its VF index, or the PF. */
export type Which = number | 'pf';

/** The host's end of the card's network, as QEMU's user network has it; and its echo service, see stories.ts. */
const OUTER_ADDRESS = '10.0.2.2';
const ECHO = '10.0.2.100 7';

/** Runs commands that may use the functions of guest-functions.ts. Throws unless the last one succeeds. */
export function inGuest(vm: GuestVm, script: string, timeoutMs = 60_000): Promise<string> {
  return vm.check(`. ${GUEST_FUNCTIONS.path}\n${script}`, { timeoutMs });
}

/** The PF's driver is loaded, its interface is up and has its link. */
export async function bringUpPf(vm: GuestVm): Promise<void> {
  await inGuest(
    vm,
    `load igb && wait_for 10 pf_if && ip link set $(pf_if) up && wait_for 20 has_link $(pf_if)`,
  );
}

/** The guest's PF driver enables VFs; gives the milliseconds of guest time that the write took. */
export function enableVfs(vm: GuestVm, count: number): Promise<number> {
  return writeNumVfs(vm, count);
}

export function disableVfs(vm: GuestVm): Promise<number> {
  return writeNumVfs(vm, 0);
}

async function writeNumVfs(vm: GuestVm, count: number): Promise<number> {
  const output = await inGuest(
    vm,
    `a=$(now); echo ${count} > $PF/sriov_numvfs || exit 1; echo "took $(($(now) - a)) ms"`,
  );
  return tookMilliseconds(output);
}

function tookMilliseconds(output: string): number {
  const took = /took (\d+) ms/.exec(output)?.[1];
  assert.ok(took, output);
  return Number(took);
}

/** The VF's driver has it, its interface is up, and it has its link. */
export async function bringUpVf(vm: GuestVm, vfIndex: number): Promise<void> {
  await inGuest(
    vm,
    `load igbvf; wait_for 20 vf_if ${vfIndex} && ip link set $(vf_if ${vfIndex}) up &&
     wait_for 30 has_link $(vf_if ${vfIndex})`,
  );
}

/** Does something while this function's interface has an address, and no other has. */
export async function withAddress<T>(
  vm: GuestVm,
  which: Which,
  work: (vm: GuestVm) => Promise<T>,
): Promise<T> {
  const address = which === 'pf' ? '10.0.2.15' : `10.0.2.${20 + which}`;
  await inGuest(vm, `ip addr add ${address}/24 dev ${interfaceOf(which)}`);
  try {
    return await work(vm);
  } finally {
    await inGuest(vm, `ip addr flush dev ${interfaceOf(which)}`);
  }
}

/** Pings the outer network: every answer must come. */
export async function pingOutside(vm: GuestVm): Promise<void> {
  const output = await inGuest(vm, `ping -c 3 -W 5 ${OUTER_ADDRESS}`);
  assert.match(output, / 0% packet loss/);
}

/** Sends random bytes to the echo service and compares what comes back by checksum; gives the milliseconds that it took. */
export async function transferOutside(vm: GuestVm, bytes: number): Promise<number> {
  const output = await inGuest(
    vm,
    `cd /tmp; head -c ${bytes} /dev/urandom > sent; mkfifo way; a=$(now); nc ${ECHO} < way > received & n=$!
     { cat sent; sleep 1000; } > way & s=$!
     whole() { [ $(stat -c %s received) = ${bytes} ]; }; wait_for 150 whole; echo "took $(($(now) - a)) ms"
     kill $n $s 2>/dev/null
     sha256sum < received; sha256sum < sent; rm sent received way`,
    180_000,
  );
  const [received, sent] = output.match(/[0-9a-f]{64}/g) ?? [];
  assert.ok(sent, output);
  assert.equal(received, sent, output);
  return tookMilliseconds(output);
}

/** How many small packets the kernel's packet generator gets out of an interface in a second. */
export async function packetsPerSecond(vm: GuestVm, which: Which, count = 2_000): Promise<number> {
  const output = await inGuest(
    vm,
    `load pktgen; i=${interfaceOf(which)}; cd /proc/net/pktgen
     echo rem_device_all > kpktgend_0; echo "add_device $i" > kpktgend_0
     echo "count ${count}" > $i; echo "pkt_size 64" > $i; echo "delay 0" > $i
     echo "dst 10.0.2.2" > $i; echo "dst_mac 52:55:0a:00:02:02" > $i
     echo start > pgctrl; cat $i; echo rem_device_all > kpktgend_0`,
  );
  return Number(/(\d+)pps/.exec(output)?.[1]);
}

/** Nanoseconds that a read of a register takes; the function must not have a driver. */
export async function readRegister(
  vm: GuestVm,
  folder: string,
  { bar, offset }: { bar: number; offset: number },
): Promise<number> {
  const output = await inGuest(
    vm,
    `echo 1 > ${folder}/enable; register-read ${folder}/resource${bar} ${offset} 500`,
  );
  const [, value, nanoseconds] = /value (0x\w+), (\d+) ns/.exec(output) ?? [];
  assert.notEqual(value, '0xffffffff');
  return Number(nanoseconds);
}

function interfaceOf(which: Which): string {
  return which === 'pf' ? '$(pf_if)' : `$(vf_if ${which})`;
}
