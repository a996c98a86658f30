// A guest with an aarch64 processor, in QEMU's virt machine: it has no configuration ports, so that the glue writes to config
// space as memory, and carriers' ports are on the root bus. Other ways than the usual under --full.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { amountOf } from '../full.ts';
import { efiArguments } from '../lab/firmware.ts';
import { statusOf } from './cli-process.ts';
import { SriovGuest } from './sriov-guest.ts';
import { tellUsualDay, USUAL_DAY, VFS } from './usual-day.ts';
import { expectMemory, expectNoHarmByLoss } from './vf-memory.ts';

/** EFI tells a guest of its machine by ACPI; QEMU itself, which starts the kernel otherwise, by a device tree. */
const BY_EFI = {
  firmware: 'EFI',
  tells: 'acpi',
  firmwareArguments: (folder: string) => efiArguments(join(folder, 'variables.fd'), 'aarch64'),
};
const BY_QEMU = { firmware: 'none', tells: 'devicetree', firmwareArguments: async () => [] };
const USUAL = {
  topology: 'root-port',
  pf: '0000:01:00.0',
  hotPlug: "the ports'",
  hotPlugArguments: [],
  memory: /^mapped/,
};
const ON_ROOT_BUS = { ...USUAL, topology: 'pcie.0', pf: '0000:00:10.0' };
/** At a user's wish: then it takes the carriers' ports over as well. */
const BY_ACPI = {
  ...USUAL,
  hotPlug: "ACPI's",
  hotPlugArguments: ['-global', 'acpi-ged.acpi-pci-hotplug-with-bridge-support=on'],
  memory: /^trapped: QEMU plugs by ACPI/,
};
const FORMS = [
  { vfMemory: 'mapped', mapped: VFS, ...BY_QEMU, ...USUAL },
  { vfMemory: 'trapped', mapped: 0, ...BY_QEMU, ...USUAL, memory: /^trapped/ },
  { vfMemory: 'mapped', mapped: VFS, ...BY_QEMU, ...ON_ROOT_BUS },
  { vfMemory: 'mapped', mapped: VFS, ...BY_EFI, ...USUAL },
  { vfMemory: 'mapped', mapped: 0, ...BY_EFI, ...BY_ACPI },
];
const TITLE =
  'aarch64, firmware $firmware, topology $topology, hot-plug $hotPlug, --vf-memory=$vfMemory';

describe.each(FORMS.slice(0, amountOf({ usual: 1, full: FORMS.length })))(TITLE, (form) => {
  const { vfMemory, mapped, memory, topology, pf, tells } = form;
  let folder: string;
  let socketPath: string;
  let guest: SriovGuest;
  /** Before the first enable. */
  let devices: string[];

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'aarch64-'));
    socketPath = join(folder, 'pf.sock');
    const began = performance.now();
    guest = await SriovGuest.boot({
      ...USUAL_DAY,
      launcher: [
        ...USUAL_DAY.launcher,
        `--topology=${topology}`,
        `--vf-memory=${vfMemory}`,
        `--socket-path=${socketPath}`,
      ],
      pf,
      processor: 'aarch64',
      qemu: [...(await form.firmwareArguments(folder)), ...form.hotPlugArguments],
    });
    devices = await listDevices();
    console.log(`aarch64: up after ${((performance.now() - began) / 1000).toFixed(1)} s`);
  });

  async function listDevices(): Promise<string[]> {
    return (await guest.vm.check('ls /sys/bus/pci/devices')).split('\n');
  }

  afterAll(async () => {
    await guest?.end();
    rmSync(folder, { recursive: true, force: true });
  });

  it("is the guest's processor, which learned of its machine as that firmware tells it", async () => {
    expect(await guest.vm.check('uname -m')).toBe('aarch64');
    expect(await guest.vm.check('ls /sys/firmware')).toMatch(new RegExp(`^${tells}$`, 'm'));
  });

  it('has no suspend to RAM: QEMU has none for its processor', async () => {
    expect(await guest.vm.check('cat /sys/power/mem_sleep')).toBe('[s2idle]');
  });

  tellUsualDay(
    () => guest,
    () => expectMemory(guest, socketPath, mapped),
  );

  it('status says of each VF whether it is mapped, or why not', async () => {
    const { vfs } = await statusOf(socketPath);
    expect(vfs.map((vf) => vf.memory)).toEqual(vfs.map(() => expect.stringMatching(memory)));
  });

  it.runIf(mapped > 0)('VFs whose mapped memory is lost are right all the same', async () => {
    await expectNoHarmByLoss(guest, socketPath);
  });

  it('no device was seen but PF, VFs and what was there at the start, also after a rescan', async () => {
    await guest.vm.check('echo 1 > /sys/bus/pci/rescan');
    const vfs = Array.from({ length: VFS }, (_, vf) => guest.vf(vf));
    expect((await listDevices()).filter((each) => !vfs.includes(each))).toEqual(devices);
    expect(await guest.vm.check('dmesg | grep -c "pciehp.*Slot(.*):" || true')).toBe('0');
  });
});
