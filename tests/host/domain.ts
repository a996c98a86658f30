// A libvirt domain of the virtual host, and the way to run commands in its guest: a kernel and an initramfs of the lab's, with
// a shell on the first serial port, which libvirt makes a terminal of the host's.
import { type InitramfsOptions, writeInitramfs } from '../lab/initramfs.ts';
import { lab } from '../lab/lab.ts';

/** The domain without its <qemu:commandline> and its end. */
export const DOMAIN = `<domain type="kvm" xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">
  <name>sriov</name>
  <memory unit="MiB">256</memory>
  <memoryBacking><source type="memfd"/><access mode="shared"/></memoryBacking>
  <vcpu>1</vcpu>
  <os>
    <type arch="x86_64" machine="q35">hvm</type>
    <kernel>/var/lib/libvirt/images/vmlinuz</kernel>
    <initrd>/var/lib/libvirt/images/initrd</initrd>
    <cmdline>console=ttyS0 quiet no_timer_check mitigations=off</cmdline>
  </os>
  <features><acpi/><apic/></features>
  <cpu mode="host-passthrough"/>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <serial type="pty"/>
    <memballoon model="none"/>
  </devices>
`;

const INIT = `#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
load pci-pf-stub
stty -F /dev/ttyS0 raw -echo
exec 3<>/dev/ttyS0
echo INNER-READY >&3
while read -r line <&3; do
  sh -c "$line" >&3 2>&1 </dev/null
  echo "INNER-DONE $?" >&3
done
`;

/** `console`: waits for the domain's guest, and keeps what it prints. */
export const CONSOLE = `#!/bin/sh
terminal=$(virsh ttyconsole sriov)
echo "$terminal" >/run/inner.terminal
stty -F "$terminal" raw -echo
: >/run/inner.out
setsid cat "$terminal" >>/run/inner.out 2>/dev/null </dev/null &
exec inner-ready
`;

/** `inner-ready`: waits for the domain's guest, after a start or a reset. */
export const INNER_READY = `#!/bin/sh
for _ in $(seq 3000); do
  grep -aq INNER-READY /run/inner.out && exit 0
  sleep 0.1
done
tail -5 /run/inner.out
exit 1
`;

/** `inner COMMAND`: runs it in the domain's guest, and ends as it did. */
export const INNER = `#!/bin/sh
: >/run/inner.out
echo "$1" >"$(cat /run/inner.terminal)"
for _ in $(seq 900); do
  if grep -aq INNER-DONE /run/inner.out; then
    grep -av INNER-DONE /run/inner.out
    exit "$(grep -a INNER-DONE /run/inner.out | tr -d '\\r' | cut -d' ' -f2)"
  fi
  sleep 0.1
done
tail -5 /run/inner.out
exit 1
`;

/** Writes the guest's initramfs. */
export async function writeDomainInitrd(file: string): Promise<void> {
  const { busybox, modules } = await lab();
  const options: InitramfsOptions = {
    file,
    busybox,
    modulesFolder: modules,
    loadableModules: ['pci-pf-stub'],
    init: INIT,
  };
  await writeInitramfs(options);
}
