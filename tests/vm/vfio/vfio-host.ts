// A virtual host whose card is bound to vfio-pci, and the scenario programs that run in it. The VM ends by sysrq, because
// a kernel that waits for a VF cannot be switched off.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { QmpClient } from '../../../vmm-glue/qemu/qmp.ts';
import { GuestVm } from '../../lab/guest.ts';
import { type HostVmOptions, hostVm } from '../../lab/host-vm.ts';
import { lab } from '../../lab/lab.ts';

export const PF_FOLDER = '/sys/bus/pci/devices/0000:01:00.0';
/** Where the scenario programs are inside the host. */
export const SCENARIOS = '/project/dist/tests/vm/vfio/scenarios';
/** More threads than Node's four: each VF that is opened or closed waits in one for its reset. */
const NODE = 'UV_THREADPOOL_SIZE=16 node';

export class VfioHost {
  readonly vm: GuestVm;
  readonly #folder: string;

  private constructor(vm: GuestVm, folder: string) {
    this.vm = vm;
    this.#folder = folder;
  }

  /** Boots the host; its PF is with vfio-pci unless `bind` is false. */
  static async start(
    options: { bind?: boolean } & Partial<Omit<HostVmOptions, 'lab' | 'folder'>> = {},
  ): Promise<VfioHost> {
    const { bind = true, ...vmOptions } = options;
    const folder = await mkdtemp(join(tmpdir(), 'vfio-host-'));
    const modules = ['vfio-pci enable_sriov=1', 'vfio_iommu_type1'];
    const description = await hostVm({
      lab: await lab(),
      folder,
      memoryMegabytes: 640,
      modules,
      ...vmOptions,
    });
    const monitor = ['-qmp', `unix:${monitorIn(folder)},server=on,wait=off`];
    const args = [...description.args, ...monitor, '-no-reboot'];
    const vm = await GuestVm.start({ ...description, args });
    const host = new VfioHost(vm, folder);
    await vm.waitForBoot();
    if (bind) {
      await host.bind();
    }
    return host;
  }

  /** Gives the PF to vfio-pci. */
  async bind(): Promise<void> {
    await this.vm.check(`echo vfio-pci > ${PF_FOLDER}/driver_override`);
    await this.vm.check('echo 0000:01:00.0 > /sys/bus/pci/drivers_probe');
  }

  /** Runs a scenario program to its good end and gives what it printed. */
  async scenario(name: string, args = '', timeoutMs = 150_000): Promise<string> {
    return await this.vm.check(`${NODE} ${SCENARIOS}/${name}.js ${args}`, { timeoutMs });
  }

  /** Starts a scenario program in the background; its output goes to `/tmp/<name>.out`, its pid is given back. */
  async startScenario(name: string, args = ''): Promise<number> {
    const output = `/tmp/${name}.out`;
    const command = `${NODE} ${SCENARIOS}/${name}.js ${args}`;
    const pid = await this.vm.check(`sh -c '${command} > ${output} 2>&1 & echo $!'`);
    return Number(pid);
  }

  /** Waits until the output of a scenario in the background contains `text`. */
  async waitForOutput(name: string, text: string, seconds = 90): Promise<void> {
    const output = `/tmp/${name}.out`;
    const loop = `for i in $(seq ${seconds * 5}); do grep -q '${text}' ${output} && exit 0; sleep 0.2; done`;
    await this.vm.check(`${loop}; cat ${output}; exit 1`, { timeoutMs: (seconds + 10) * 1000 });
  }

  /**
   * Has the root port above the PF detect a completion timeout and report it by its interrupt, as hardware does. The
   * kernel tells the drivers of all functions below; as the error is not fatal, it resets nothing.
   */
  async raisePcieError(): Promise<void> {
    const qmp = await QmpClient.connect(monitorIn(this.#folder), { timeoutMilliseconds: 30_000 });
    // Not at the PF itself: QEMU's igb (11.1) has AER, but the error reporting bits of its Device Control are wired to 0,
    // so that QEMU notes an error in its registers and sends no message.
    const line = 'pcie_aer_inject_error rp1 COMP_TIME';
    const answer = await qmp.execute('human-monitor-command', { 'command-line': line });
    qmp.close();
    expect(answer).toMatch(/^OK/);
  }

  /** Reads the number of VFs, without getting stuck where the kernel does. */
  async numVfs(): Promise<string> {
    return await this.vm.check(`timeout 5 cat ${PF_FOLDER}/sriov_numvfs`);
  }

  /** Asserts that the kernel complained about nothing. */
  async expectCleanKernelLog(): Promise<void> {
    const log = await this.vm.check('dmesg');
    const complaints = log
      .split('\n')
      .filter((line) => /WARNING|BUG:|Oops|hung_task|blocked for more|DMAR:.*fault/.test(line));
    expect(complaints).toEqual([]);
  }

  /** Ends the VM the hard way, which always works. */
  async end(): Promise<void> {
    void this.vm.run('echo b > /proc/sysrq-trigger', { timeoutMs: 1_000 }).catch(() => {});
    await this.vm.waitForExit({ timeoutMs: 10_000 }).catch(() => this.vm.kill());
    await rm(this.#folder, { recursive: true, force: true });
  }
}

/** The socket of QEMU's monitor. */
function monitorIn(folder: string): string {
  return join(folder, 'qmp');
}
