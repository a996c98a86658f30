// A libvirt domain of the virtual host, and the way to run commands in its guest: a kernel and an initramfs of the lab's, with
// a shell on the first serial port, which libvirt makes a terminal of the host's.
import { type InitramfsOptions, writeInitramfs } from '../lab/initramfs.ts';
import { lab } from '../lab/lab.ts';

/**
 * Without what takes seconds where it is emulated and is nobody's here: fences against speculation, zeroed memory, another place for
 * the kernel each time, a search of all 256 buses for bridges that ACPI does not know, security modules, IPv6, audit, a watchdog,
 * three more serial ports.
 */
const CMDLINE = [
  'console=ttyS0 quiet no_timer_check mitigations=off init_on_alloc=0',
  'nokaslr pci=lastbus=0 lsm=capability ipv6.disable=1 audit=0 nowatchdog 8250.nr_uarts=1',
].join(' ');

/** The domain without its <qemu:commandline> and its end. */
export const DOMAIN = `<domain type="kvm" xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">
  <name>sriov</name>
  <memory unit="MiB">256</memory>
  <memoryBacking><source type="memfd"/><access mode="shared"/></memoryBacking>
  <vcpu>1</vcpu>
  <os>
    <type arch="x86_64" machine="q35">hvm</type>
    <kernel>/lab/share/kernel</kernel>
    <initrd>/lab/share/initrd</initrd>
    <cmdline>${CMDLINE}</cmdline>
  </os>
  <features><acpi/><apic/></features>
  <cpu mode="host-passthrough"/>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <serial type="pty"/>
    <memballoon model="none"/>
    <controller type="usb" model="none"/>
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

/** `console`: waits for the domain's guest, and has what it prints stay in its terminal until it is read. */
export const CONSOLE = `#!/bin/sh
terminal=$(virsh ttyconsole sriov)
echo "$terminal" >/run/inner.terminal
stty -F "$terminal" raw -echo
setsid sleep 3600 <"$terminal" >/dev/null 2>&1 &
exec inner-ready
`;

/** `inner-ready`: waits for the domain's guest, after a start or a reset. It does not look again and again: there is one CPU. */
export const INNER_READY = `#!/bin/sh
exec timeout 300 sh -c '
while read -r line; do
  echo "$line"
  case $line in *INNER-READY*) exit ;; esac
done' <"$(cat /run/inner.terminal)"
`;

/** `inner COMMAND`: runs it in the domain's guest, and ends as it did. */
export const INNER = `#!/bin/sh
exec 3<>"$(cat /run/inner.terminal)"
echo "$1" >&3
exec timeout 90 sh -c '
while read -r line; do
  case $line in INNER-DONE*) exit "\${line#* }" ;; esac
  echo "$line"
done' <&3
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
