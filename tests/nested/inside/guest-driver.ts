// What a person types in the nested guest to work with an igb PF and its VFs.
import type { GuestVm } from '../../lab/guest.ts';

export const PF = '/sys/bus/pci/devices/0000:01:00.0';
/** The host's end of the card's network, as QEMU's user network has it. */
export const OUTER_ADDRESS = '10.0.2.2';

/** Defines `vf_if INDEX` and others; put before the commands that use them. */
const FUNCTIONS = `
PF=${PF}
pf_if() { ls $PF/net; }
vf_if() { ls $PF/virtfn$1/net; }
# wait_for SECONDS COMMAND...
wait_for() { n=$(($1 * 5)); shift; while ! "$@" >/dev/null 2>&1; do n=$((n - 1)); [ $n -gt 0 ] || { echo "not in time: $*"; return 1; }; sleep 0.2; done; }
carrier() { [ "$(cat /sys/class/net/$1/carrier 2>/dev/null)" = 1 ]; }
has_if() { [ -n "$(vf_if $1 2>/dev/null)" ]; }
`;

/** Runs commands of the guest that may use the functions above. Throws unless the last one succeeds. */
export function inGuest(vm: GuestVm, script: string, timeoutMs = 60_000): Promise<string> {
  return vm.check(FUNCTIONS + script, { timeoutMs });
}

/** The PF's driver is loaded, the PF has its link and the address 10.0.2.15. */
export async function bringUpPf(vm: GuestVm): Promise<void> {
  await inGuest(
    vm,
    `load igb && wait_for 10 pf_if && ip link set $(pf_if) up && wait_for 20 carrier $(pf_if) &&
     ip addr add 10.0.2.15/24 dev $(pf_if)`,
  );
}

/** Lets the guest's igb enable VFs; gives the milliseconds that the write took in the guest. */
export async function enableVfs(vm: GuestVm, count: number): Promise<number> {
  const output = await inGuest(
    vm,
    `a=$(cut -d' ' -f1 /proc/uptime); echo ${count} > $PF/sriov_numvfs || exit 1
     b=$(cut -d' ' -f1 /proc/uptime); echo "took $a $b"`,
  );
  const match = /took ([\d.]+) ([\d.]+)/.exec(output);
  return Math.round(1000 * (Number(match?.[2]) - Number(match?.[1])));
}

/** The VF's driver has it, it is up and has its link and an address of its own. */
export async function bringUpVf(vm: GuestVm, vfIndex: number): Promise<void> {
  await inGuest(
    vm,
    `load igbvf; wait_for 20 has_if ${vfIndex} && ip link set $(vf_if ${vfIndex}) up &&
     wait_for 30 carrier $(vf_if ${vfIndex})`,
  );
}

/** Pings the outer network through one interface, which alone has an address meanwhile. */
export async function pingThroughVf(vm: GuestVm, vfIndex: number, count = 3): Promise<string> {
  return await inGuest(
    vm,
    `ip addr flush dev $(pf_if); i=$(vf_if ${vfIndex}); ip addr add 10.0.2.${20 + vfIndex}/24 dev $i
     ping -c ${count} -W 3 ${OUTER_ADDRESS}; s=$?; ip addr flush dev $i; exit $s`,
  );
}
