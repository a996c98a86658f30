// `lab boot`: a guest for people and for programs of any kind. Each line of standard input is a shell command that runs in
// the guest, or `.reboot`, `.poweroff`, or `.console` for what the kernel printed; the guest ends with the input.
// With --json each line is a string of JSON that says the same (and may have line ends), and is answered by a line: first {"qemu": version}, then {"status": N, "output": text} for a command, {}
// for a restart, {"code": N} for the end, {"console": text}, and {"error": text} for what could not be done.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { SILENT } from '../../protocol/log.ts';
import { onEndingSignal } from '../../protocol/unix/ending-signals.ts';
import { type CommandResult, GuestVm } from './guest.ts';
import { guestArguments } from './guest-arguments.ts';
import { guestProgram } from './guest-program.ts';
import { writeInitramfs } from './initramfs.ts';
import { lab } from './lab.ts';
import { runProgram } from './run-program.ts';

/** What `lab boot` is told. */
export interface BootOptions {
  readonly modules: readonly string[];
  readonly hasPciFunction: boolean;
  readonly append: readonly string[];
  readonly machineProperties: readonly string[];
  readonly qemu: readonly string[];
  readonly json: boolean;
  readonly starter: readonly string[];
}

/** An answer to a line; printed as text or as JSON. */
type Answer =
  | { readonly qemu: string }
  | CommandResult
  | { readonly code: number | null }
  | { readonly console: string }
  | { readonly error: string }
  | Record<string, never>;

/** Throws TypeError (code ERR_PARSE_ARGS_…) for wrong usage. */
export function parseBootArguments(args: readonly string[]): BootOptions {
  const several = { type: 'string', multiple: true, default: [] as string[] } as const;
  const flag = { type: 'boolean', default: false } as const;
  const end = args.indexOf('--');
  const { values } = parseArgs({
    args: end < 0 ? [...args] : args.slice(0, end),
    options: {
      module: several,
      'pci-function': flag,
      append: several,
      machine: several,
      qemu: several,
      json: flag,
    },
  });
  return {
    modules: values.module,
    hasPciFunction: values['pci-function'],
    append: values.append,
    machineProperties: values.machine,
    qemu: values.qemu,
    json: values.json,
    starter: end < 0 ? [] : args.slice(end + 1),
  };
}

/** Boots, and answers standard input until it or the guest ends. Resolves with an exit status. Throws LabError. */
export async function bootAndServe(options: BootOptions): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), 'lab-boot-'));
  let vm: GuestVm | undefined;
  const letSignalsEnd = onEndingSignal(SILENT, (signal) => {
    void (async () => {
      await vm?.kill();
      await rm(folder, { recursive: true, force: true });
      letSignalsEnd();
      process.kill(process.pid, signal);
    })();
  });
  // A reader that has gone wants nothing more: the end of the input follows.
  process.stdout.on('error', () => {});
  try {
    const say = (answer: Answer): void => {
      process.stdout.write(options.json ? `${JSON.stringify(answer)}\n` : textOf(answer));
    };
    const { qemu } = await lab();
    vm = await start(options, folder, qemu);
    await vm.waitForBoot();
    say({ qemu: await versionOf(qemu) });
    for await (const line of createInterface({ input: process.stdin })) {
      if (line.trim() !== '') {
        say(await answerTo(options.json ? String(JSON.parse(line)) : line, vm));
      }
      if (vm.hasExited) {
        break;
      }
    }
    return 0;
  } catch (error) {
    process.stderr.write(`lab: ${(error as Error).message}\n`);
    return 1;
  } finally {
    await vm?.kill();
    await rm(folder, { recursive: true, force: true });
    process.stdin.destroy();
    letSignalsEnd();
  }
}

async function start(options: BootOptions, folder: string, qemu: string): Promise<GuestVm> {
  const { kernel, modules: modulesFolder, busybox } = await lab();
  const initrd = await writeInitramfs({
    file: join(folder, 'initrd'),
    busybox,
    modulesFolder,
    modules: options.modules,
    files: options.hasPciFunction
      ? [{ path: '/bin/pci-function', source: await guestProgram() }]
      : [],
  });
  const guest = guestArguments({
    kernel,
    initrd,
    machineProperties: options.machineProperties,
    append: options.append,
  });
  const [command, ...args] = [...options.starter, qemu, ...guest, ...options.qemu];
  return await GuestVm.start({ command: command!, args });
}

async function answerTo(line: string, vm: GuestVm): Promise<Answer> {
  try {
    switch (line.trim()) {
      case '.reboot':
        await vm.reboot();
        return {};
      case '.poweroff':
        return { code: (await vm.powerOff()).code };
      case '.console':
        return { console: vm.consoleLog };
      default:
        return await vm.run(line);
    }
  } catch (error) {
    return { error: (error as Error).message };
  }
}

function textOf(answer: Answer): string {
  if ('qemu' in answer) {
    return `The guest is up (QEMU ${answer.qemu}). Type commands; .reboot, .console, .poweroff.\n`;
  }
  if ('output' in answer) {
    return answer.status === 0 ? answer.output : `${answer.output}(exit status ${answer.status})\n`;
  }
  const [text = ''] = Object.values(answer);
  return text === '' ? '' : `${text}\n`;
}

async function versionOf(qemu: string): Promise<string> {
  const { stdout } = await runProgram(qemu, ['--version']);
  return /version ([\d.]+)/.exec(stdout.toString('utf8'))?.[1] ?? 'unknown';
}
