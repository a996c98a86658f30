// A guest inside the virtual host: stock QEMU started through `vfio-user-sriov qemu`, or with devices of the caller's.
// Its kernel and initramfs are the lab's.
import { readdirSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { GuestVm } from '../../lab/guest.ts';
import { guestArguments } from '../../lab/guest-arguments.ts';
import { shell } from './host.ts';
import type { Program } from './program.ts';
import { EmulatorFault, tell } from './story.ts';
import { showsUndueInterrupt } from './undue-interrupt.ts';

export const CLI = '/project/dist/cli.js';
/** How the guests of this story reach VFs. */
export const VF_MEMORY = process.env.VF_MEMORY === 'mapped' ? 'mapped' : 'trapped';
/**
 * Emulated twice over: everything takes long. Where there is an expander bus, which carriers take, SeaBIOS looks for functions on
 * each of 256 buses.
 */
const BOOT_MILLISECONDS = { trapped: 180_000, mapped: 480_000 }[VF_MEMORY];

/** A monitor of the story's own: QMP is the glue's alone. */
const MONITOR = '/tmp/monitor';
const PROMPT = '(qemu) ';
const MONITOR_PATIENCE_MILLISECONDS = 3_000;

/** Kernel parameter: an NMI that nobody expects ends the guest, with the trace of what its CPU was at. */
const PANIC_ON_NMI = 'unknown_nmi_panic';
/**
 * Kernel parameter: after ACPI's buses have been looked at, the kernel does not look for further ones. 8,192 functions that are
 * not there take it long, emulated twice over.
 */
const NO_FURTHER_BUSES = 'pci=lastbus=0';

/** One enable as the glue reports it; see EnableTiming in vmm-glue. */
export interface PauseReport {
  readonly placedVfs: number;
  readonly pauseMilliseconds: number;
  /** Of that, by QEMU's own account. */
  readonly standstillMilliseconds: number;
  readonly stopMilliseconds: number;
  readonly backendMilliseconds: number;
  readonly placementMilliseconds: number;
  readonly placementCommands: number;
  readonly contMilliseconds: number;
  readonly monitorCommands: number;
}

/** Starts a guest with one PF of the host, and waits until it takes commands. Debug lines cost time: not to be measured. */
export async function startGuest(
  serveOptions: readonly string[],
  logLevel: 'debug' | 'info' = 'debug',
): Promise<GuestVm> {
  const vm = await GuestVm.start({
    command: process.execPath,
    args: [
      ...[CLI, 'qemu', ...serveOptions, `--vf-memory=${VF_MEMORY}`],
      ...[`--log-level=${logLevel}`, '--log-format=json', '--'],
      ...['qemu-system-x86_64', ...qemuArguments()],
    ],
  });
  await waitForGuest(vm);
  return vm;
}

/** Waits until a guest that was started takes commands; ends it where it does not come to that. */
export async function waitForGuest(vm: GuestVm): Promise<void> {
  try {
    await vm.waitForBoot({ timeoutMs: BOOT_MILLISECONDS });
  } catch (error) {
    const cause = await diagnosed(vm, error);
    await vm.kill();
    throw cause;
  }
}

/** QEMU's arguments for the nested guest. */
export function qemuArguments(): string[] {
  const kernel = readdirSync('/boot').find((name) => name.startsWith('vmlinuz'));
  const args = guestArguments({
    kernel: `/boot/${kernel}`,
    initrd: '/nested/initrd',
    memoryMegabytes: 256,
    accelerator: 'kvm',
    append: [PANIC_ON_NMI, NO_FURTHER_BUSES],
  });
  return [...args, '-monitor', `unix:${MONITOR},server=on,wait=off`];
}

/** What the glue has reported of the enables so far. */
export function pauseReports(vm: GuestVm): PauseReport[] {
  const lines = logLines(vm).filter((line) => 'pauseMilliseconds' in line);
  return lines as unknown as PauseReport[];
}

/** How long the host took for the VFs of one enable; see VfSet in backend/devices/vfio. */
export interface MakingReport {
  readonly count: number;
  readonly numVfsMilliseconds: number;
  readonly openMilliseconds: number;
}

/** What the backend has reported of making VFs so far; the first is its look at one at its start. */
export function makingReports(vm: GuestVm): MakingReport[] {
  const lines = logLines(vm).filter((line) => 'numVfsMilliseconds' in line);
  return lines as unknown as MakingReport[];
}

/** How long it took to lay the memory of VFs over their slots, once they were enabled. */
export interface MappingReport {
  readonly vfs: number;
  readonly milliseconds: number;
}

/** What the glue has reported of VFs that it has mapped so far. */
export function mappingReports(vm: GuestVm): MappingReport[] {
  const lines = logLines(vm).filter(({ msg }) => msg === 'VFs are mapped');
  return lines as unknown as MappingReport[];
}

/**
 * Tells what guest, QEMU, glue and backend have said, for whoever looks into a failure; gives the failure, or the
 * emulator's fault where that is what the guest suffers from.
 */
export async function diagnosed(
  vm: GuestVm,
  failure: unknown,
  beside: readonly Program[] = [],
): Promise<unknown> {
  tell(`QEMU's monitor says:\n${await askMonitor('info status', 'info registers', 'info pci')}`);
  tell(`programs of the host:\n${shell('top -b -n 1 -H | head -n 20')}`);
  tell(`the guest's kernel log ends with:\n${await guestLog(vm)}`);
  for (const said of [vm.processOutput, ...beside.map(({ output }) => output)]) {
    tell(`QEMU, glue or backend said:\n${said.slice(-20_000)}`);
  }
  return showsUndueInterrupt(vm.consoleLog) ? new EmulatorFault(failure) : failure;
}

/** The end of the guest's kernel log; of a guest that stands still, its console with the trace of where it does. */
async function guestLog(vm: GuestVm): Promise<string> {
  try {
    return (await vm.run('dmesg | tail -n 60')).output;
  } catch {
    await askMonitor('nmi');
    return `it does not answer; its console after an NMI:\n${vm.consoleLog}`;
  }
}

/** What QEMU's human monitor answers; an excuse where there is no QEMU any more. */
function askMonitor(...commands: readonly string[]): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    const socket = createConnection(MONITOR);
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    socket.on('error', ({ message }) => resolve(message));
    for (const command of commands) {
      socket.write(`${command}\n`);
    }
    setTimeout(() => {
      socket.destroy();
      resolve(text.replaceAll('\r', ''));
    }, MONITOR_PATIENCE_MILLISECONDS);
  });
}

/** How long a pause of the guest takes in which nothing is done: from asking for the stop until it runs on, in milliseconds. */
export async function barePauses(count: number): Promise<number[]> {
  const socket = createConnection(MONITOR).setEncoding('utf8');
  try {
    const prompt = promptsOf(socket);
    await prompt();
    const taken: number[] = [];
    for (let pause = 0; pause < count; pause++) {
      const began = performance.now();
      for (const command of ['stop', 'cont']) {
        socket.write(`${command}\n`);
        await prompt();
      }
      taken.push(performance.now() - began);
    }
    return taken;
  } finally {
    socket.destroy();
  }
}

/** Resolves at the next prompt of the monitor, with which it says that it has done what it was told. */
function promptsOf(socket: Socket): () => Promise<void> {
  let text = '';
  let look = (): void => {};
  let fail = (_error: Error): void => {};
  socket.on('data', (chunk: string) => {
    text += chunk;
    look();
  });
  socket.on('error', (error) => fail(error));
  return () =>
    new Promise((resolve, reject) => {
      fail = reject;
      look = () => {
        const end = text.indexOf(PROMPT);
        if (end >= 0) {
          text = text.slice(end + PROMPT.length);
          resolve();
        }
      };
      look();
    });
}

/** The log of launcher, glue and backend, as far as it is JSON. */
export function logLines(vm: GuestVm): Record<string, unknown>[] {
  return vm.processOutput.split('\n').flatMap((line) => {
    try {
      return line.startsWith('{') ? [JSON.parse(line) as Record<string, unknown>] : [];
    } catch {
      return [];
    }
  });
}
