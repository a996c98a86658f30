// The metrics, as data: name, meaning, and how the values come out of a measurement. README.md beside this file is the
// table for people; a test keeps the two equal. Names by the conventions of Prometheus: base units, `_total` for what only
// ever grows.

import type { FunctionStatus, SriovPhase } from '../../protocol/hotplug/status.ts';
import { ACCESS_KINDS, type FunctionActivity } from './activity.ts';
import type { Measurement } from './measurement.ts';

export type Labels = Readonly<Record<string, string>>;
export type Sample = readonly [labels: Labels, value: number];

export interface Family {
  /** Without the prefix. */
  readonly name: string;
  readonly help: string;
  readonly type: 'counter' | 'gauge';
  readonly labels: readonly string[];
  samples(measurement: Measurement): readonly Sample[];
}

export const PREFIX = 'vfio_user_sriov_';

/** The one metric that is no plain number. */
export const LATENCY = {
  name: 'request_duration_seconds',
  help: 'Time from a message’s turn to its answer, by access kind or command',
  labels: ['kind'],
} as const;

const PHASES = {
  disabled: true,
  creating: true,
  plugging: true,
  enabled: true,
  unplugging: true,
  releasing: true,
  quarantined: true,
  destroying: true,
} satisfies Record<SriovPhase, true>;

const VF_STATES = ['absent', 'coming-up', 'up'] as const;

/** A sample for each function that something has happened to. */
function eachActivity(
  { activity }: Measurement,
  samples: (of: FunctionActivity, name: string) => readonly Sample[],
): readonly Sample[] {
  return [...activity.functions].flatMap(([name, of]) => samples(of, name));
}

/** A sample for the PF, and for each VF. */
function eachFunction(
  { status }: Measurement,
  value: (of: FunctionStatus) => number,
): readonly Sample[] {
  return [
    [{ function: 'pf' }, value(status.pf)],
    ...status.vfs.map((vf): Sample => [{ function: `vf${vf.index}` }, value(vf)]),
  ];
}

function alone(value: number | boolean): readonly Sample[] {
  return [[{}, Number(value)]];
}

export const FAMILIES: readonly Family[] = [
  {
    name: 'accesses_total',
    help: 'Accesses to config space and to trapped BARs, by function and kind',
    type: 'counter',
    labels: ['function', 'kind'],
    samples: (measurement) =>
      eachActivity(measurement, ({ accesses }, name) =>
        ACCESS_KINDS.map((kind): Sample => [{ function: name, kind }, accesses[kind]]),
      ),
  },
  {
    name: 'errors_total',
    help: 'Messages that were refused, by command and error',
    type: 'counter',
    labels: ['command', 'error'],
    samples: ({ activity }) =>
      [...activity.errors].map(([key, count]) => {
        const [command = '', error = ''] = key.split(' ');
        return [{ command, error }, count];
      }),
  },
  {
    name: 'host_failures_total',
    help: 'Work of the host that failed, by what was asked for',
    type: 'counter',
    labels: ['request'],
    samples: ({ activity }) =>
      [...activity.hostFailures].map(([request, count]) => [{ request }, count]),
  },
  {
    name: 'resets_total',
    help: 'Resets, by function; kind device is the VMM’s, kind function the guest’s FLR',
    type: 'counter',
    labels: ['function', 'kind'],
    samples: (measurement) =>
      eachActivity(measurement, ({ deviceResets, functionResets }, name) => [
        [{ function: name, kind: 'device' }, deviceResets],
        [{ function: name, kind: 'function' }, functionResets],
      ]),
  },
  {
    name: 'interrupt_setups_total',
    help: 'Times that a VMM has set up, masked or triggered interrupts, by function',
    type: 'counter',
    labels: ['function'],
    samples: (measurement) =>
      eachActivity(measurement, ({ interruptSetups }, name) => [
        [{ function: name }, interruptSetups],
      ]),
  },
  {
    name: 'interrupts_total',
    help: 'Interrupts raised by the backend itself; those of real hardware do not pass through it',
    type: 'counter',
    labels: ['function'],
    samples: (measurement) => eachFunction(measurement, ({ interrupts }) => interrupts),
  },
  {
    name: 'dma_maps_total',
    help: 'Pieces of guest memory that were mapped, by function',
    type: 'counter',
    labels: ['function'],
    samples: (measurement) =>
      eachActivity(measurement, ({ dmaMaps }, name) => [[{ function: name }, dmaMaps]]),
  },
  {
    name: 'dma_unmaps_total',
    help: 'Pieces of guest memory that were unmapped, by function',
    type: 'counter',
    labels: ['function'],
    samples: (measurement) =>
      eachActivity(measurement, ({ dmaUnmaps }, name) => [[{ function: name }, dmaUnmaps]]),
  },
  {
    name: 'dma_windows',
    help: 'Pieces of guest memory that are mapped, by function',
    type: 'gauge',
    labels: ['function'],
    samples: (measurement) => eachFunction(measurement, ({ dmaWindows }) => dmaWindows),
  },
  {
    name: 'dma_unreachable_windows',
    help: 'Pieces of guest memory that the device cannot reach, by function',
    type: 'gauge',
    labels: ['function'],
    samples: (measurement) => eachFunction(measurement, ({ failedMaps }) => failedMaps.length),
  },
  {
    name: 'attached',
    help: '1 where a VMM is connected to the function',
    type: 'gauge',
    labels: ['function'],
    samples: (measurement) => eachFunction(measurement, ({ attached }) => Number(attached)),
  },
  {
    name: 'phase',
    help: '1 for the phase that the VFs are in, 0 for the others',
    type: 'gauge',
    labels: ['phase'],
    samples: ({ status }) =>
      Object.keys(PHASES).map((phase) => [{ phase }, Number(phase === status.phase)]),
  },
  {
    name: 'vfs',
    help: 'VFs by state',
    type: 'gauge',
    labels: ['state'],
    samples: ({ status }) =>
      VF_STATES.map((state) => [{ state }, status.vfs.filter((vf) => vf.state === state).length]),
  },
  {
    name: 'vfs_wanted',
    help: 'NumVFs where the guest has set VF Enable, else 0',
    type: 'gauge',
    labels: [],
    samples: ({ status }) => alone(status.vfEnable ? status.numVfs : 0),
  },
  {
    name: 'vfs_quarantined',
    help: 'VFs that somebody does not let go of',
    type: 'gauge',
    labels: [],
    samples: ({ status }) => alone(status.quarantine.length),
  },
  {
    name: 'enables_total',
    help: 'Enables of VFs by the guest that came to an end, by outcome',
    type: 'counter',
    labels: ['outcome'],
    samples: ({ activity }) =>
      Object.entries(activity.enables).map(([outcome, count]) => [{ outcome }, count]),
  },
  {
    name: 'clients',
    help: 'Connections, by role',
    type: 'gauge',
    labels: ['role'],
    samples: ({ status }) =>
      ['new', 'device', 'glue', 'observer'].map((role) => [
        { role },
        status.clients.filter((client) => client.role === role).length,
      ]),
  },
  {
    name: 'longest_turn_seconds',
    help: 'CPU time of the longest turn of the device thread since the last scrape, which is left out',
    type: 'gauge',
    labels: [],
    samples: ({ longestTurn }) => alone(longestTurn.cpuMilliseconds / 1000),
  },
  {
    name: 'longest_turn_start_seconds',
    help: 'When that turn began, by CLOCK_MONOTONIC, as a trace has it',
    type: 'gauge',
    labels: [],
    samples: ({ longestTurn }) => alone(Number(longestTurn.start) / 1e9),
  },
  {
    name: 'longest_turn_end_seconds',
    help: 'When that turn ended',
    type: 'gauge',
    labels: [],
    samples: ({ longestTurn }) => alone(Number(longestTurn.end) / 1e9),
  },
  {
    name: 'trace_recording',
    help: '1 while a trace is recorded',
    type: 'gauge',
    labels: [],
    samples: ({ status }) => alone(status.trace?.on === true),
  },
  {
    name: 'trace_records',
    help: 'Records of the trace so far, or of the last one',
    type: 'gauge',
    labels: [],
    samples: ({ status }) => alone(status.trace?.records ?? 0),
  },
  {
    name: 'trace_bytes',
    help: 'Bytes of those records, also of those that the ring holds no more',
    type: 'gauge',
    labels: [],
    samples: ({ status }) => alone(status.trace?.bytes ?? 0),
  },
  {
    name: 'trace_wrapped',
    help: '1 where the trace’s ring went around, so that its beginning is gone',
    type: 'gauge',
    labels: [],
    samples: ({ status }) => alone(status.trace?.isWrapped === true),
  },
];
