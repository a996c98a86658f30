// `lab guest`: a guest for a person, with a PF and a shell on this terminal. `vfio-user-sriov qemu` starts it, as it would start
// anybody's guest; what is needed to look at a card is in it.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { SILENT } from '../../protocol/log.ts';
import { onEndingSignal } from '../../protocol/unix/ending-signals.ts';
import { pathOfCaller } from './caller-path.ts';
import { guestArguments } from './guest-arguments.ts';
import { MODPROBE_SCRIPT } from './guest-scripts.ts';
import { guestToolFiles, pciNamesFile } from './guest-tools.ts';
import { writeInitramfs } from './initramfs.ts';
import { type Lab, lab } from './lab.ts';
import { LabError } from './lab-error.ts';
import { ModuleTree } from './modules.ts';
import { mountScript, projectFolder, SHARE_MODULES, type Share, shareArguments } from './rootfs.ts';

/** What `lab guest` is told. */
export interface ShellOptions {
  readonly device: string;
  readonly vfs: number;
  readonly modules: readonly string[];
  readonly share: string | undefined;
  readonly memoryMegabytes: number;
  /** More options for `vfio-user-sriov qemu`. */
  readonly launcher: readonly string[];
}

/** The drivers of the kinds of device, which bind the PF by themselves. */
const DRIVERS: Readonly<Record<string, string>> = { loopback: 'pci-pf-stub', nvme: 'nvme' };
const PF = '0000:01:00.0';
const MOST_VFS = 255;
const SHARED_AT = '/share';
/** Read by the shell: busybox would take its own modprobe. */
const PROFILE = '/lab/profile';

/** Throws TypeError (code ERR_PARSE_ARGS_…) for wrong usage, LabError for what is not there. */
export function parseShellArguments(args: readonly string[]): ShellOptions {
  const end = args.indexOf('--');
  const { values } = parseArgs({
    args: end < 0 ? [...args] : args.slice(0, end),
    options: {
      device: { type: 'string', default: 'loopback' },
      vfs: { type: 'string', default: '0' },
      module: { type: 'string', multiple: true, default: [] as string[] },
      share: { type: 'string' },
      memory: { type: 'string', default: '512' },
    },
  });
  return {
    device: values.device.includes('/') ? pathOfCaller(values.device) : values.device,
    vfs: wholeNumber('--vfs', values.vfs, 0, MOST_VFS),
    modules: values.module.map((each) => (each.endsWith('.ko') ? pathOfCaller(each) : each)),
    share: values.share === undefined ? undefined : pathOfCaller(values.share),
    memoryMegabytes: wholeNumber('--memory', values.memory, 128, 65_536),
    launcher: end < 0 ? [] : args.slice(end + 1),
  };
}

/** Boots, and gives the terminal to the guest until it ends. Resolves with the exit status. Throws LabError. */
export async function runShell(options: ShellOptions): Promise<number> {
  const paths = await lab();
  const folder = await mkdtemp(join(tmpdir(), 'lab-guest-'));
  let child: ChildProcess | undefined;
  const over = new AbortController();
  const letSignalsEnd = onEndingSignal(SILENT, (signal) => {
    // Keys go to the guest: the terminal's Ctrl-C is one of them.
    if (signal !== 'SIGINT') {
      over.abort();
      child?.kill(signal);
    }
  });
  try {
    process.stderr.write(
      'The guest boots. Ctrl-A x ends it at any time, Ctrl-A h says what else there is.\n',
    );
    const shares = sharesOf(paths, options);
    const initrd = await makeInitrd(options, paths, shares, join(folder, 'initrd'));
    const guest = guestArguments({
      kernel: paths.kernel,
      initrd,
      memoryMegabytes: options.memoryMegabytes,
    });
    const launcher = [
      'qemu',
      `--device=${options.device}`,
      '--log-level=warn',
      ...options.launcher,
    ];
    const more = ['-serial', 'mon:stdio', ...shareArguments(shares)];
    const cli = join(await projectFolder(), 'dist/cli.js');
    if (over.signal.aborted) {
      return 1;
    }
    child = spawn(process.execPath, [cli, ...launcher, '--', paths.qemu, ...guest, ...more], {
      stdio: 'inherit',
    });
    const [code, signal] = await once(child, 'exit');
    return signal === null ? (code as number) : 1;
  } finally {
    letSignalsEnd();
    await rm(folder, { recursive: true, force: true });
  }
}

function sharesOf({ modules }: Lab, { share }: ShellOptions): Share[] {
  return [
    { path: `/lib/modules/${basename(modules)}`, source: modules },
    ...(share === undefined ? [] : [{ path: SHARED_AT, source: share }]),
  ];
}

async function makeInitrd(
  options: ShellOptions,
  paths: Lab,
  shares: readonly Share[],
  file: string,
): Promise<string> {
  const tree = await ModuleTree.open(paths.modules, paths.busybox);
  const driver = DRIVERS[options.device];
  return await writeInitramfs({
    file,
    busybox: paths.busybox,
    modulesFolder: paths.modules,
    modules: [...SHARE_MODULES, ...(driver === undefined ? [] : [driver]), ...options.modules],
    files: [
      ...(await guestToolFiles(['lspci', 'setpci', 'nvme', 'ethtool'])),
      await pciNamesFile(),
      { path: '/sbin/modprobe', content: MODPROBE_SCRIPT, mode: 0o755 },
      { path: PROFILE, content: 'modprobe() { /sbin/modprobe "$@"; }\n' },
      { path: '/lab/module-index', content: lines([...tree.files].map((each) => each.join(' '))) },
      { path: '/lab/built-in', content: lines([...tree.builtIn].map((name) => `${name} `)) },
    ],
    script: script(options, shares),
    agent: false,
  });
}

function script({ device, vfs, modules, share }: ShellOptions, shares: readonly Share[]): string {
  const pf = `/sys/bus/pci/devices/${PF}`;
  return `export TERM=${process.env.TERM ?? 'dumb'} PF=${pf} PS1='guest # ' ENV=${PROFILE}
stty ${sizeOfTerminal()}
${mountScript(shares)}
${modules.some((each) => each.endsWith('.ko')) ? '' : bindStub()}${vfs === 0 ? '' : enable(vfs, device)}echo
echo "Linux $(uname -r), $(cut -d. -f1 /proc/uptime) s after its start. The PF, ${basename(device)}, is ${PF}; its driver: $(basename "$(readlink $PF/driver || echo 'none, dmesg says why')")."
echo "  echo ${vfs === 0 ? 4 : 0} >\\$PF/sriov_numvfs; lspci, setpci, nvme, ethtool, ip; modprobe MODULE${share === undefined ? '' : `; ${SHARED_AT} is ${share}`}"
echo "  exit, or Ctrl-A x, ends the guest; Ctrl-A c is QEMU's monitor, Ctrl-A h says more."
cd /
setsid cttyhack sh
`;
}

/** What no driver has; a driver of one's own that refuses the PF is to be seen as that. */
function bindStub(): string {
  return `# It does nothing but enable VFs.
if ! [ -e $PF/driver ] && [ -e $PF ]; then
  /sbin/modprobe pci-pf-stub
  echo pci-pf-stub >$PF/driver_override
  echo ${PF} >/sys/bus/pci/drivers_probe
fi
`;
}

/** The kernel's own word is "Numerical result out of range", or dmesg's. */
function enable(vfs: number, device: string): string {
  const more = device.includes('/') ? `totalVfs of ${basename(device)}` : `-- --total-vfs=${vfs}`;
  return `if ! echo ${vfs} >$PF/sriov_numvfs; then
  echo "--vfs=${vfs}: they were not enabled; this PF offers $(cat $PF/sriov_totalvfs), more with ${more}; see dmesg"
fi
`;
}

/** A serial port does not tell. */
function sizeOfTerminal(): string {
  // One that nobody looks at, as a program's, may say 0.
  const { rows, columns } = process.stdout;
  return `rows ${rows || 24} cols ${columns || 80}`;
}

function lines(each: readonly string[]): string {
  return each.map((line) => `${line}\n`).join('');
}

function wholeNumber(name: string, text: string, least: number, most: number): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < least || value > most) {
    throw new LabError(`${name}=${text}`, `it is no number from ${least} to ${most}`, 'give one');
  }
  return value;
}
