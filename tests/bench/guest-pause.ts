// How long a guest stands still when it enables VFs in stock QEMU, against the same monitor commands from a bare
// client in the same machine; and how many commands that takes. VF BARs below 4 GiB, then above.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { EnableTiming } from '../../vmm-glue/choreography/enable.ts';
import { VfioUserClient } from '../../vmm-glue/client/client.ts';
import { type Lab, lab } from '../lab/lab.ts';
import { LabError } from '../lab/lab-error.ts';
import type { BarePause } from './bare-monitor.ts';
import { type Figure, median, rounded } from './figure.ts';
import { PauseGuest, type PlacedAhead } from './pause-guest.ts';
import { startBackend } from './server-process.ts';

const COUNTS = [1, 4, 7] as const;
/** Where the guest's Linux puts 16 KiB VF BARs, and 512 MiB ones, for which there is no room below 4 GiB; checked in the guest. */
const MACHINES = [
  { place: 'low', options: [], commandsPerSlot: 2 },
  { place: 'high', options: ['--vf-bar-size=512M'], commandsPerSlot: 2 },
] as const;
/** The guest does not wait for what is placed ahead. Of its CPUs, by QEMU's own account: the monitor hears of it later. */
const MOST_AHEAD_MILLISECONDS = 5;
type Place = (typeof MACHINES)[number]['place'];

const CONFIG_REGION = 7;
const SRIOV = 0x110;
const CONTROL = SRIOV + 0x08;
const NUM_VFS = SRIOV + 0x10;
const VF_ENABLE_AND_MEMORY = 0x09;
const COMMAND = 0x04;
const BAR_LOW = 0x10;
const BAR_HIGH = 0x14;

/** One enable beside the baseline of the same commands. */
interface Sample {
  readonly place: Place;
  readonly count: number;
  readonly isFirst: boolean;
  readonly timing: EnableTiming;
  readonly bare: BarePause;
  /** What was placed before a first one, and how long a bare pause takes in which nothing is done. */
  readonly ahead: PlacedAhead | undefined;
  readonly emptyPauseMilliseconds: number;
}

/** Figures of pause and commands; none, with a line that says why, where no guest can be booted. */
export async function measureGuestPause(folder: string, rounds: number): Promise<Figure[]> {
  const paths = await labOrReason();
  if (typeof paths === 'string') {
    process.stderr.write(`guest pause: skipped, there is no lab to boot a guest in: ${paths}\n`);
    return [];
  }
  const ownTimes = await enableTimes(folder, rounds);
  const samples: Sample[] = [];
  for (const machine of MACHINES) {
    const own = join(folder, machine.place);
    mkdirSync(own);
    samples.push(...(await measureMachine(paths, own, machine, rounds)));
  }
  return figures(samples, ownTimes);
}

async function labOrReason(): Promise<Lab | string> {
  try {
    return await lab();
  } catch (error) {
    if (error instanceof LabError) {
      return error.message;
    }
    throw error;
  }
}

/** One guest for each number of VFs: the glue's account of each enable is a line of its log, which leaves out a flood. */
async function measureMachine(
  paths: Lab,
  folder: string,
  machine: (typeof MACHINES)[number],
  rounds: number,
): Promise<Sample[]> {
  const samples: Sample[] = [];
  for (const count of COUNTS) {
    samples.push(...(await measureCount(paths, folder, machine, count, rounds)));
  }
  return samples;
}

async function measureCount(
  paths: Lab,
  folder: string,
  { place, options }: (typeof MACHINES)[number],
  count: number,
  rounds: number,
): Promise<Sample[]> {
  const samples: Sample[] = [];
  const guest = await PauseGuest.boot(paths, folder, ['--vf-memory=trapped', ...options]);
  try {
    if ((await guest.hasHighVfBars()) !== (place === 'high')) {
      throw new Error(`the guest has not put its VF BARs ${place}, so this is not what was meant`);
    }
    // Enable and baseline in turn, so that what else the machine does meets both.
    for (let round = 0; round < rounds; round++) {
      const placed = await guest.resetBus();
      for (const isFirst of [true, false]) {
        const timing = await guest.enable(count);
        if (timing === undefined) {
          break;
        }
        const bare = await barePause(guest, count, isFirst ? place : undefined);
        const ahead = isFirst ? placed : undefined;
        const { milliseconds: emptyPauseMilliseconds } = await guest.monitor.pause([]);
        samples.push({ place, count, isFirst, timing, bare, ahead, emptyPauseMilliseconds });
      }
    }
  } finally {
    await guest.end();
  }
  return samples;
}

/** The commands of an enable, on slots whose VFs are down. What QEMU maps in a first one is unmapped before, off the clock. */
async function barePause(
  guest: PauseGuest,
  count: number,
  firstAt: Place | undefined,
): Promise<BarePause> {
  const registers = { low: [BAR_LOW], high: [BAR_LOW, BAR_HIGH] };
  const place: string[] = [];
  const unmap: string[] = [];
  const select = (vf: number, register: number) =>
    `o /w 0xcf8 0x${guest.slotAddress(vf, register).toString(16)}`;
  for (let vf = 0; vf < count; vf++) {
    for (const register of firstAt === undefined ? [] : registers[firstAt]) {
      // The value it has: a write like any other, and the BAR stays where the glue has put it.
      await guest.monitor.execute('stop');
      const saved = await guest.monitor.readPort(0xcf8);
      await guest.monitor.human(select(vf, register));
      const value = await guest.monitor.readPort(0xcfc);
      await guest.monitor.human(`o /w 0xcf8 0x${saved.toString(16)}`);
      await guest.monitor.execute('cont');
      place.push(select(vf, register), `o /w 0xcfc 0x${value.toString(16)}`);
    }
    place.push(select(vf, COMMAND), 'o /h 0xcfc 0x2');
    unmap.push(select(vf, COMMAND), 'o /h 0xcfc 0x0');
  }
  if (firstAt !== undefined) {
    await guest.monitor.pause(unmap);
  }
  return await guest.monitor.pause(place);
}

/** Milliseconds from VF Enable to EnableEnd with a client that answers at once: the loopback's own part of a pause. */
async function enableTimes(folder: string, rounds: number): Promise<Map<number, number>> {
  const path = join(folder, 'enable.sock');
  const backend = await startBackend(path);
  try {
    const capabilities = { sriov_hotplug: { version: 1, role: 'vmm' as const } };
    const pf = await VfioUserClient.connect(path, { capabilities });
    await pf.reset();
    const times = new Map<number, number>();
    for (const count of COUNTS) {
      const all: number[] = [];
      for (let round = 0; round <= rounds; round++) {
        all.push(await enableOnce(pf, count));
      }
      // The first one is what made the code warm.
      times.set(count, median(all.slice(1)));
    }
    pf.close();
    return times;
  } finally {
    await backend.stop();
  }
}

async function enableOnce(pf: VfioUserClient, count: number): Promise<number> {
  const write16 = (offset: number, value: number) =>
    pf.writeRegion(CONFIG_REGION, offset, Uint8Array.of(value & 0xff, value >> 8));
  await write16(NUM_VFS, count);
  const began = performance.now();
  await write16(CONTROL, VF_ENABLE_AND_MEMORY);
  let milliseconds = 0;
  for await (const event of pf.hotplugEvents()) {
    if (event.kind === 'vfPlug') {
      event.takeFd();
    }
    if (event.kind === 'enableEnd') {
      break;
    }
    event.done();
  }
  milliseconds = performance.now() - began;
  await write16(CONTROL, 0);
  let left = count;
  for await (const event of pf.hotplugEvents()) {
    if (event.kind !== 'vfUnplug') {
      continue;
    }
    event.done();
    left--;
    if (left === 0) {
      break;
    }
  }
  return milliseconds;
}

function figures(samples: readonly Sample[], ownTimes: ReadonlyMap<number, number>): Figure[] {
  const firsts = samples.filter(({ isFirst }) => isFirst);
  const agains = samples.filter(({ isFirst }) => !isFirst);
  return [
    ...MACHINES.flatMap(({ place, commandsPerSlot }) =>
      aheadFigures(
        place,
        commandsPerSlot,
        firsts.filter((sample) => sample.place === place),
      ),
    ),
    {
      figure: 'commands-first',
      value: mostCommands(firsts),
      unit: 'per VF',
      limit: 0,
      details: { vfs: COUNTS },
    },
    {
      figure: 'commands-again',
      value: mostCommands(agains),
      unit: 'per VF',
      limit: 0,
      details: { vfs: COUNTS },
    },
    ratioFigure('pause-ratio-first', firsts, ownTimes),
    {
      figure: 'pause-again',
      value: rounded(median(agains.map(({ timing }) => timing.pauseMilliseconds))),
      unit: 'ms',
      limit: 0,
      details: { paused: agains.filter(({ timing }) => timing.pauseMilliseconds > 0).length },
    },
    ...COUNTS.map((count) => pauseFigure(count, agains, ownTimes.get(count)!)),
    ...COUNTS.map((count) => {
      const first = firsts.filter((sample) => sample.count === count);
      return pauseFigure(count, first, ownTimes.get(count)!, '-first');
    }),
    {
      figure: 'monitor-round-trip',
      value: rounded(median(agains.map(({ bare }) => bare.milliseconds / bare.commands))),
      unit: 'ms',
      details: { baseline: 'stop, port accesses and cont of an enable, from a bare client' },
    },
  ];
}

/** Of slots that were placed before an enable: commands, and a pause against one in which nothing is done. */
function aheadFigures(place: Place, limit: number, samples: readonly Sample[]): Figure[] {
  const all = samples.flatMap(({ ahead, emptyPauseMilliseconds: empty }) =>
    ahead === undefined ? [] : [{ ...ahead, empty }],
  );
  return [
    {
      figure: `commands-ahead-${place}`,
      value: Math.max(...all.map(({ commands, slots }) => commands / slots)),
      unit: 'per slot',
      limit,
      details: { pauses: median(all.map(({ pauses }) => pauses)) },
    },
    {
      figure: `pause-ahead-${place}`,
      value: rounded(
        median(
          all.map(({ pausedMilliseconds, pauses, empty }) => pausedMilliseconds / pauses / empty),
        ),
      ),
      unit: 'x',
      details: { emptyMilliseconds: rounded(median(all.map(({ empty }) => empty))) },
    },
    {
      figure: `longest-pause-ahead-${place}`,
      value: rounded(median(all.map((each) => each.longestStandstillMilliseconds))),
      unit: 'ms',
      limit: MOST_AHEAD_MILLISECONDS,
      details: {
        fromStopToCont: rounded(median(all.map((each) => each.longestPauseMilliseconds))),
        ratio: rounded(
          median(
            all.map(({ longestPauseMilliseconds, empty }) => longestPauseMilliseconds / empty),
          ),
        ),
      },
    },
  ];
}

/** The pause against its commands in the baseline plus the loopback's own time: the middle one of all machines and counts. */
function ratioFigure(
  figure: string,
  samples: readonly Sample[],
  ownTimes: ReadonlyMap<number, number>,
): Figure {
  const ratios = MACHINES.flatMap(({ place }) =>
    COUNTS.map((count) => {
      const group = samples.filter((sample) => sample.place === place && sample.count === count);
      const of = (value: (sample: Sample) => number): number => median(group.map(value));
      const roundTrip = of(({ bare }) => bare.milliseconds / bare.commands);
      const expected =
        of(({ timing }) => timing.monitorCommands) * roundTrip + ownTimes.get(count)!;
      return [
        `${count}-${place}`,
        of(({ timing }) => timing.pauseMilliseconds) / expected,
      ] as const;
    }),
  );
  return {
    figure,
    value: rounded(median(ratios.map(([, ratio]) => ratio))),
    unit: 'x',
    limit: 1.3,
    details: Object.fromEntries(ratios.map(([group, ratio]) => [group, rounded(ratio)])),
  };
}

function mostCommands(samples: readonly Sample[]): number {
  return Math.max(...samples.map(({ timing }) => timing.placementCommands / timing.placedVfs));
}

/** Medians over all samples of that many VFs: the pause, its parts, and the baseline. */
function pauseFigure(count: number, all: readonly Sample[], enableTime: number, more = ''): Figure {
  const samples = all.filter((sample) => sample.count === count);
  const of = (value: (sample: Sample) => number): number => rounded(median(samples.map(value)));
  return {
    figure: `pause-${count}${more}`,
    value: of(({ timing }) => timing.pauseMilliseconds),
    unit: 'ms',
    details: {
      standstill: of(({ timing }) => timing.standstillMilliseconds),
      stop: of(({ timing }) => timing.stopMilliseconds),
      backend: of(({ timing }) => timing.backendMilliseconds),
      placement: of(({ timing }) => timing.placementMilliseconds),
      cont: of(({ timing }) => timing.contMilliseconds),
      commands: of(({ timing }) => timing.monitorCommands),
      bare: of(({ bare }) => bare.milliseconds),
      bareCommands: of(({ bare }) => bare.commands),
      loopbackEnable: rounded(enableTime),
      pauses: samples.map(({ timing }) => rounded(timing.pauseMilliseconds)),
    },
  };
}
