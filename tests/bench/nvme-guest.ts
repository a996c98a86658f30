// How fast a guest reads from the NVMe controllers of a PF and of a VF, beside QEMU's own emulated controller in the same guest,
// with a file of the same size behind each: with the doorbells in guest memory that Linux asks for (Doorbell Buffer Config), and
// without. Then the longest turn of the device thread while the guest reads as fast as it can, by its CPU time, less what the CPU did
// not run of it (cpu-gaps.ts), where that can be seen.
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { truncateSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { GuestVm } from '../lab/guest.ts';
import { guestArguments } from '../lab/guest-arguments.ts';
import { guestToolFiles } from '../lab/guest-tools.ts';
import { writeInitramfs } from '../lab/initramfs.ts';
import { lab } from '../lab/lab.ts';
import { buildPrograms } from './c-programs.ts';
import { CpuGaps } from './cpu-gaps.ts';
import { type Figure, median, rounded } from './figure.ts';
import { repositoryRoot } from './server-process.ts';

const MIB = 2 ** 20;
const NAMESPACE_BYTES = 64 * MIB;
const PF = '0000:01:00.0';
const VF = '0000:01:00.1';
/** QEMU's own, on the root bus. */
const QEMU_SLOTS = { doorbells: '1d', noDoorbells: '1e' } as const;
const SECONDS = 2;
const ROUNDS = 3;
/** Of both jobs on both disks, for the longest turn. */
const TURN_ROUNDS = 4;
/** fio's terse format, version 3: fields of a read. */
const Terse = { bytesPerSecond: 6, iops: 7 } as const;
const JOBS = {
  '4k': { args: '--rw=randread --bs=4k --iodepth=32', field: Terse.iops, unit: 'IOPS', slowest: 2 },
  '128k': {
    args: '--rw=read --bs=128k --iodepth=8',
    field: Terse.bytesPerSecond,
    unit: 'KiB/s',
    slowest: 1.25,
  },
} as const;
/** Without this Linux rings each doorbell's register. */
const REFUSAL = 'nvme:status=invalid-opcode@opcode=doorbell-buffer-config';
const LONGEST_TURN_MILLISECONDS = 1;

/** Figures nvme-guest-…: how many times slower PF and VF are than QEMU's; and nvme-guest-longest-turn. */
export async function measureNvmeGuest(folder: string): Promise<Figure[]> {
  const guest = await NvmeGuest.boot(folder);
  try {
    return [
      ...(await guest.compare('doorbells')),
      ...(await guest.longestTurn(folder)),
      ...(await guest.withoutDoorbells(() => guest.compare('noDoorbells'))),
    ];
  } finally {
    await guest.end();
  }
}

class NvmeGuest {
  readonly #vm: GuestVm;
  readonly #cli = join(repositoryRoot(), 'dist/cli.js');
  readonly #metrics: string;
  readonly #socket: string;

  static async boot(folder: string): Promise<NvmeGuest> {
    const paths = await lab();
    const initrd = await writeInitramfs({
      file: join(folder, 'nvme-initrd'),
      busybox: paths.busybox,
      modulesFolder: paths.modules,
      modules: ['nvme'],
      files: await guestToolFiles(['fio']),
    });
    const [own, ...qemus] = ['own', ...Object.keys(QEMU_SLOTS)].map((name) => join(folder, name));
    fill(own!, 2);
    for (const each of qemus) {
      fill(each, 1);
    }
    const guest = new NvmeGuest(folder, await start(paths, initrd, folder, own!, qemus));
    try {
      await guest.#vm.waitForBoot();
      await guest.#vm.check(`echo 1 > /sys/bus/pci/devices/${PF}/sriov_numvfs`);
      return guest;
    } catch (error) {
      await guest.end();
      throw error;
    }
  }

  private constructor(folder: string, vm: GuestVm) {
    this.#vm = vm;
    this.#metrics = join(folder, 'metrics.sock');
    this.#socket = join(folder, 'nvme-pf.sock');
  }

  async end(): Promise<void> {
    await this.#vm.kill();
  }

  /** Each job in turns on QEMU's controller, on the PF and on the VF. */
  async compare(kind: keyof typeof QEMU_SLOTS): Promise<Figure[]> {
    const disks = {
      qemu: await this.#diskOf(`0000:00:${QEMU_SLOTS[kind]}.0`),
      pf: await this.#diskOf(PF),
      vf: await this.#diskOf(VF),
    };
    const figures: Figure[] = [];
    for (const [name, { args, field, unit, slowest }] of Object.entries(JOBS)) {
      const found = { qemu: [] as number[], pf: [] as number[], vf: [] as number[] };
      for (let round = 0; round < ROUNDS; round++) {
        found.qemu.push(await this.#fio(disks.qemu, args, field));
        for (const who of ['pf', 'vf'] as const) {
          found[who].push(await this.#fio(disks[who], args, field));
        }
      }
      const qemu = median(found.qemu);
      for (const who of ['pf', 'vf'] as const) {
        const value = median(found[who]);
        figures.push({
          figure: `nvme-guest-${name}-${who}${kind === 'doorbells' ? '' : '-no-dbbuf'}-slower`,
          value: rounded(qemu / value),
          unit: 'x',
          limit: slowest,
          details: { own: value, qemu, unit },
        });
      }
    }
    return figures;
  }

  /** What `measure` gives while the backend refuses Doorbell Buffer Config. */
  async withoutDoorbells<T>(measure: () => Promise<T>): Promise<T> {
    execFileSync(process.execPath, [
      this.#cli,
      'fault',
      'add',
      REFUSAL,
      `--socket-path=${this.#socket}`,
    ]);
    for (const address of [VF, PF]) {
      const driver = '/sys/bus/pci/drivers/nvme';
      const again = address === PF ? `echo 0 > /sys/bus/pci/devices/${PF}/sriov_numvfs; ` : '';
      await this.#vm.check(`${again}echo ${address} > ${driver}/unbind`);
    }
    await this.#vm.check(
      `echo ${PF} > /sys/bus/pci/drivers/nvme/bind && echo 1 > /sys/bus/pci/devices/${PF}/sriov_numvfs`,
    );
    return await measure();
  }

  /** Of all runs on PF and VF. */
  async longestTurn(folder: string): Promise<Figure[]> {
    const turns: number[] = [];
    const missed: number[] = [];
    const disks = [await this.#diskOf(PF), await this.#diskOf(VF)];
    const gaps = await cpuGaps(folder);
    try {
      for (let round = 0; round < TURN_ROUNDS; round++) {
        for (const { args, field } of Object.values(JOBS)) {
          for (const disk of disks) {
            // Asking begins a new measurement.
            await longestTurnIn(this.#metrics);
            await this.#fio(disk, args, field);
            const { seconds, start, end } = await longestTurnIn(this.#metrics);
            turns.push(seconds * 1000);
            missed.push((await gaps?.within(start, end)) ?? 0);
          }
        }
      }
    } finally {
      await gaps?.end();
    }
    return [
      {
        figure: 'nvme-guest-longest-turn',
        value: rounded(Math.max(...turns.map((each, run) => each - missed[run]!))),
        unit: 'ms',
        limit: LONGEST_TURN_MILLISECONDS,
        details: { ofRuns: turns.map(rounded), cpuMissed: missed.map(rounded) },
      },
    ];
  }

  async #fio(disk: string, args: string, field: number): Promise<number> {
    const output = await this.#vm.check(
      `fio --name=read --filename=/dev/${disk} --direct=1 --ioengine=libaio --time_based --runtime=${SECONDS} ` +
        `--allow_file_create=0 --minimal ${args}`,
      { timeoutMs: 60_000 },
    );
    const line = output.split('\n').find((each) => each.startsWith('3;'));
    return Number(line?.split(';')[field]);
  }

  async #diskOf(address: string): Promise<string> {
    return await this.#vm.check(
      `cd /sys/bus/pci/devices/${address}/ && for try in $(seq 100); do ` +
        'ls -d nvme/nvme*/nvme*n* >/dev/null 2>&1 && break; sleep 0.1; done; basename $(ls -d nvme/nvme*/nvme*n* | head -n1)',
    );
  }
}

/** Every block of it is there. */
function fill(path: string, namespaces: number): void {
  writeFileSync(path, Buffer.alloc(namespaces * NAMESPACE_BYTES, 0x5a));
  truncateSync(path, namespaces * NAMESPACE_BYTES);
}

async function start(
  paths: { readonly kernel: string; readonly qemu: string },
  initrd: string,
  folder: string,
  own: string,
  qemus: readonly string[],
): Promise<GuestVm> {
  const launcher = [
    ...['qemu', '--device=nvme', '--total-vfs=1', `--namespace=${own},split`],
    ...[`--metrics=unix:${join(folder, 'metrics.sock')}`],
    ...[`--socket-path=${join(folder, 'nvme-pf.sock')}`, '--', paths.qemu],
  ];
  const devices = Object.values(QEMU_SLOTS).flatMap((slot, index) => [
    ...['-drive', `if=none,id=d${index},format=raw,file=${qemus[index]}`],
    ...[
      '-device',
      `nvme,drive=d${index},serial=Q${index},addr=${slot},dbcs=${index === 0 ? 'on' : 'off'}`,
    ],
  ]);
  return await GuestVm.start({
    command: process.execPath,
    args: [
      join(repositoryRoot(), 'dist/cli.js'),
      ...launcher,
      ...guestArguments({ kernel: paths.kernel, initrd, memoryMegabytes: 512 }),
      ...devices,
    ],
  });
}

/** Undefined, and said why, where they cannot be seen: all CPU time is a turn's then. */
async function cpuGaps(folder: string): Promise<CpuGaps | undefined> {
  try {
    const programs = buildPrograms(folder);
    if (programs === undefined) {
      throw new Error('there is no C compiler; install one or set CC');
    }
    return await CpuGaps.watch(programs.cpuGaps);
  } catch (error) {
    process.stderr.write(`gaps of the CPUs are not seen: ${(error as Error).message}\n`);
    return undefined;
  }
}

interface Turn {
  readonly seconds: number;
  readonly start: number;
  readonly end: number;
}

/** Asking begins a new measurement. */
async function longestTurnIn(socketPath: string): Promise<Turn> {
  const [response] = await once(request({ socketPath, path: '/metrics' }).end(), 'response');
  const metrics = await text(response);
  const of = (name: string): number =>
    Number(new RegExp(`^vfio_user_sriov_longest_turn_${name} (\\S+)$`, 'm').exec(metrics)?.[1]);
  return { seconds: of('seconds'), start: of('start_seconds'), end: of('end_seconds') };
}
