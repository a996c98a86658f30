// Carriers over the slots of VFs: when they are laid and taken out, in pauses of how many writes, or in none, and what is said where they are not.
import { beforeEach, expect, it } from 'vitest';
import type { VfPlug } from '../../../protocol/hotplug/messages.ts';
import { logInto } from '../../../protocol/log.ts';
import { GuestPause } from '../../../vmm-glue/choreography/guest-pause.ts';
import { CarrierPlugger } from '../../../vmm-glue/qemu/carrier-plugger.ts';
import { CONFIG_ADDRESS, CONFIG_DATA, ConfigPorts } from '../../../vmm-glue/qemu/config-ports.ts';
import { BusNumbers } from '../../../vmm-glue/qemu/devices.ts';
import type { Monitor, PortWrite } from '../../../vmm-glue/qemu/monitor.ts';
import type { PauseRecord } from '../../../vmm-glue/qemu/pause-record.ts';
import { type ConfigWrite, PlacementMemory } from '../../../vmm-glue/qemu/placement.ts';
import { QemuGuest } from '../../../vmm-glue/qemu/qemu-guest.ts';
import type { SlotPlacer } from '../../../vmm-glue/qemu/slot-placer.ts';
import { VFS_OF_CARRIER_PORT } from '../../../vmm-glue/qemu/topology.ts';
import { ManualClock } from '../../fakes/manual-clock.ts';
import { allIsDone } from './glue-rig.ts';

const PORTS = 5;
const FIRST_BUS = 0x80;
const SLOT_CONTROL = 0x6c;
const POWER_OFF = 0x07c0;
const ADDRESS_LIMIT = 1n << 46n;
/** Asked for each pause beside its writes: how the guest is, its port as it was, where things are. */
const OTHER_COMMANDS = ['stop', 'cont', 'query-status', 'query-pci', 'qom-get', 'read'];

/** QEMU's monitor, with the ports of carriers at 80:N.0, each with a bus behind it. */
class FakeMonitor {
  readonly identity = 'one';
  readonly isConnected = true;
  isRunning = true;
  commandCount = 0;
  readonly stoppedAt = Number.NaN;
  readonly resumedAt = Number.NaN;
  hasPorts = true;
  areBusesNumbered = true;
  /** Of the ports' buses. */
  hotPlugHandler = '/machine/peripheral/sriov-carriers0-port0';
  failsToAdd = false;
  keepsCarriers = false;
  /** Carriers that are there. */
  readonly carriers = new Set<string>();
  /** Everything that was asked; writes of registers as `BUS:DEVICE.FUNCTION+REGISTER=VALUE`. */
  readonly asked: string[] = [];
  onAsk: (what: string) => void = () => {};
  #selected = 0;

  checkConnected(): void {}

  async ask(command: string, reader: (answer: unknown) => unknown): Promise<unknown> {
    this.commandCount++;
    this.#note(command);
    return reader(this.#answer(command));
  }

  async execute(command: string, args?: { id: string }): Promise<void> {
    this.commandCount++;
    this.#note(args === undefined ? command : `${command} ${args.id}`);
    if (command === 'device_add') {
      if (this.failsToAdd) {
        throw new Error('no such thing');
      }
      this.carriers.add(args!.id);
    }
    if (command === 'device_del' && !this.#functionZeroIsOn(args!.id)) {
      this.carriers.delete(args!.id);
    }
    this.isRunning = command === 'cont' || (command !== 'stop' && this.isRunning);
  }

  async writePort({ port, value }: PortWrite): Promise<void> {
    this.commandCount++;
    expect(this.isRunning).toBe(false);
    if (port === CONFIG_ADDRESS) {
      this.#selected = value;
      return;
    }
    this.writeConfig({
      routingId: (this.#selected >>> 8) & 0xffff,
      register: this.#selected & 0xff,
      value,
    });
  }

  writeConfig({ routingId, register, value }: Omit<ConfigWrite, 'width'>): void {
    const [bus, devfn] = [routingId >> 8, routingId & 0xff];
    const hex = (number: number): string => number.toString(16);
    this.#note(`${hex(bus)}:${hex(devfn >> 3)}.${devfn & 7}+${hex(register)}=${hex(value)}`);
    const slot = devfn >> 3;
    if (this.keepsCarriers) {
      return;
    }
    // Where function 0 is not, the port counts as empty.
    if (register === SLOT_CONTROL && value === POWER_OFF && this.carriers.has(idOf(8 * slot))) {
      for (const id of this.carriers) {
        if (portOf(id) === slot) {
          this.carriers.delete(id);
        }
      }
    }
  }

  async readPort(port: number): Promise<number> {
    this.commandCount++;
    this.#note('read');
    return port === CONFIG_DATA ? this.readConfig(this.#selected & 0xff) : 0x8000_0004;
  }

  /** The PCI Express capability is first and last of the port's. */
  readConfig(register: number): number {
    return register === 0x34 ? 0x54 : 0x10;
  }

  #functionZeroIsOn(id: string): boolean {
    return this.carriers.has(idOf(8 * portOf(id)));
  }

  #answer(command: string): unknown {
    if (command === 'query-status') {
      return { status: 'running', running: this.isRunning };
    }
    if (command === 'qom-get') {
      return this.hotPlugHandler;
    }
    const ports = Array.from({ length: this.hasPorts ? PORTS : 0 }, (_, port) => port);
    if (command === 'query-pci') {
      const devices = ports.map((port) => ({
        ...{ bus: FIRST_BUS, slot: port, function: 0, qdev_id: `sriov-carriers0-port${port}` },
        pci_bridge: { bus: { secondary: this.areBusesNumbered ? FIRST_BUS + 1 + port : 0 } },
      }));
      return [{ devices }];
    }
    const names = [...ports.map((port) => `sriov-carriers0-port${port}`), ...this.carriers];
    return names.map((name) => ({ name, type: 'child<x>' }));
  }

  #note(what: string): void {
    this.asked.push(what);
    this.onAsk(what);
  }
}

/** Config space that is memory as well, with a command for each write. */
class ConfigMemory extends ConfigPorts {
  override async whileRunning() {
    return {
      read: async (_routingId: number, register: number) => qemu.readConfig(register),
      write: async (writes: readonly ConfigWrite[]) => {
        for (const write of writes) {
          qemu.writeConfig(write);
        }
        return writes.length;
      },
    };
  }
}

function idOf(vfIndex: number): string {
  return `sriov-pf0-carrier${vfIndex}`;
}

function portOf(id: string): number {
  return Math.floor(Number(/\d+$/.exec(id)?.[0]) / 8);
}

let qemu: FakeMonitor;
let log: string[];
/** Commands of each pause. */
let commands: number[];
let trapped: string[];
let buses: BusNumbers;
let clock: ManualClock;
let guest: QemuGuest;
let plugger: CarrierPlugger;

beforeEach(() => {
  qemu = new FakeMonitor();
  log = [];
  commands = [];
  trapped = [];
  buses = new BusNumbers();
  clock = new ManualClock();
  plugger = makePlugger();
});

function makePlugger(whyTrapped?: string): CarrierPlugger {
  const monitor = qemu as unknown as Monitor;
  guest = new QemuGuest(monitor, { write: () => {} } as unknown as PauseRecord);
  const quiet = logInto((level, text, fields) => {
    if (level === 'debug') {
      commands.push(Number(fields.commands));
    } else {
      log.push(`${level}: ${text}`);
    }
  });
  const slots = { prepare: () => {}, plug: async () => 2, unplug: async () => {} };
  return new CarrierPlugger({
    qemu: {
      ...{ monitor, guest, log: quiet, buses, clock },
      memory: new PlacementMemory(true),
      functions: () => [...qemu.carriers].map((id) => ({ id }) as never),
    },
    pause: new GuestPause({ guest, clock, log: quiet }),
    slots: slots as unknown as SlotPlacer,
    index: 0,
    whyTrapped,
    addressLimit: ADDRESS_LIMIT,
    trapped: (firstVf, text) => trapped.push(`${firstVf}: ${text}`),
  });
}

function vf(vfIndex: number, start = 0x38_0000_0000n): VfPlug {
  const address = start + 0x1_0000n * BigInt(vfIndex);
  return {
    ...{ vfIndex, generation: 1, routingIdOffset: vfIndex + 1, vendorId: 1, deviceId: 2 },
    msixVectors: 1,
    bars: [{ index: 0, size: 0x1_0000n, is64Bit: true, prefetchable: true, address }],
    carrier: {
      socketPath: `/run/carrier${vfIndex}`,
      bars: [{ index: 0, vfBar: 0, offset: 0x8000n, size: 0x8000n }],
    },
  };
}

async function plug(count: number): Promise<void> {
  for (let vfIndex = 0; vfIndex < count; vfIndex++) {
    await plugger.plug(vf(vfIndex), () => {});
  }
}

async function enable(count: number): Promise<void> {
  await plug(count);
  plugger.enabled();
  await allIsDone();
}

function isStopOrCont(what: string): boolean {
  return what === 'stop' || what === 'cont';
}

/** What was asked in each pause of the guest, but for what every pause takes. */
function pauses(): string[][] {
  return qemu.asked
    .join('\n')
    .split('stop\n')
    .slice(1)
    .map((pause) => pause.split('cont')[0]!.split('\n'))
    .map((asked) => asked.filter((what) => what !== '' && !OTHER_COMMANDS.includes(what)));
}

it('are laid when the VFs are enabled: function 0 of a port last, each open only once it lies where it should', async () => {
  await enable(2);
  expect(qemu.asked.filter((what) => !OTHER_COMMANDS.includes(what))).toEqual([
    'qom-list',
    'device_add sriov-pf0-carrier1',
    '80:0.0+6c=1c0',
    'device_add sriov-pf0-carrier0',
    '80:0.0+6c=1c0',
    ...['80:0.0+24=10001', '80:0.0+28=38', '80:0.0+2c=38', '80:0.0+4=6'],
    ...['81:0.0+10=8000', '81:0.0+14=38', '81:0.0+4=2'],
    ...['81:0.1+10=18000', '81:0.1+14=38', '81:0.1+4=2'],
  ]);
  expect(qemu.isRunning).toBe(true);
  expect(log).toEqual(['info: VFs are mapped']);
});

it('leave QEMU to the guest for as long as adding one has taken', async () => {
  qemu.onAsk = (what) => {
    if (what.startsWith('device_add')) {
      clock.elapse(30);
    }
  };
  await enable(3);
  const added = [qemu.carriers.size];
  for (const milliseconds of [29, 1, 29, 1, 29, 1]) {
    clock.elapse(milliseconds);
    await allIsDone();
    added.push(qemu.carriers.size);
  }
  expect(added).toEqual([1, 1, 2, 2, 3, 3, 3]);
  expect(log).toEqual(['info: VFs are mapped']);
});

it('are laid in pauses of few writes each, and function 0 is added while the guest runs', async () => {
  qemu.onAsk = (what) => expect(what.startsWith('device_add') && !qemu.isRunning).toBe(false);
  await enable(8);
  // A register takes two writes to ports.
  expect(Math.max(...pauses().map((writes) => writes.length))).toBeLessThanOrEqual(4);
});

it('are laid, follow their slots and are taken out while the guest runs, where config space is memory', async () => {
  guest.useConfigAccess(new ConfigMemory(qemu as unknown as Monitor));
  await enable(9);
  expect(qemu.carriers.size).toBe(9);
  expect(qemu.asked).toContain('82:0.0+4=2');
  await plugger.memorySpace({ enabled: true, silentVfs: [8] });
  await allIsDone();
  expect(qemu.asked.slice(-2)).toEqual(['82:0.0+4=0', '80:1.0+4=6']);
  await plugger.unplug(3);
  expect(qemu.carriers.size).toBe(0);
  expect(qemu.asked.filter(isStopOrCont)).toEqual([]);
  expect(log).toEqual(['info: VFs are mapped']);
});

it('take few commands a pause, and it is logged how many', async () => {
  await enable(9);
  // stop, query-status and cont; CONFIG_ADDRESS read and written back; two commands for each of four registers.
  expect(Math.max(...commands)).toBe(3 + 2 + 2 * 4);
  expect(commands).toHaveLength(pauses().length);
});

it('are all taken out before a VF counts as unplugged, by one write for each port', async () => {
  await enable(9);
  expect(qemu.carriers.size).toBe(9);
  qemu.asked.length = 0;
  await plugger.unplug(3);
  expect(qemu.carriers.size).toBe(0);
  expect(pauses()).toEqual([['80:0.0+6c=7c0'], ['80:1.0+6c=7c0']]);
});

it('are asked for where they are before the guest stands still, which takes long in a QEMU of many functions', async () => {
  await enable(9);
  await plugger.memorySpace({ enabled: true, silentVfs: [1] });
  await allIsDone();
  await plugger.unplug(3);
  const standing = qemu.asked.map((_, at) => qemu.asked.slice(0, at).findLast(isStopOrCont));
  const asked = qemu.asked.flatMap((what, at) => (what === 'query-pci' ? [standing[at]] : []));
  expect(asked).toEqual([undefined, 'cont', 'cont']);
});

it('are taken out of a machine that is reset when it is about to stand still for that', async () => {
  await enable(1);
  qemu.onAsk = (what) => what === 'stop' && buses.forget();
  await plugger.unplug(0);
  expect(qemu.carriers.size).toBe(0);
});

it.each([
  ['in pauses', () => {}],
  ['while it runs', () => guest.useConfigAccess(new ConfigMemory(qemu as unknown as Monitor))],
])(
  'are not laid any further when the guest takes its VFs away meanwhile: %s',
  async (_when, choose) => {
    choose();
    await plug(8);
    let unplugged: Promise<void> | undefined;
    qemu.onAsk = (what) => {
      if (what === '81:0.0+4=2') {
        unplugged ??= plugger.unplug(0);
      }
    };
    plugger.enabled();
    await allIsDone();
    await unplugged;
    expect(qemu.carriers.size).toBe(0);
    expect(qemu.asked).not.toContain('81:0.7+4=2');
    expect(log).toEqual([]);
  },
);

it('are waited for while QEMU still uses them, and for 3 s at most', async () => {
  await enable(2);
  qemu.keepsCarriers = true;
  const unplugged = plugger.unplug(0);
  const refused = expect(unplugged).rejects.toThrow('QEMU keeps the carriers of VFs');
  for (let waited = 0; waited < 3_000; waited += 100) {
    await allIsDone();
    expect(clock.pending).toBe(1);
    clock.elapse(100);
  }
  await allIsDone();
  clock.elapse(100);
  await refused;
  expect(clock.pending).toBe(0);
});

it('are taken back one by one where function 0 of their port was never added', async () => {
  await plug(3);
  let unplugged: Promise<void> | undefined;
  qemu.onAsk = (what) => {
    if (what === 'device_add sriov-pf0-carrier1') {
      unplugged ??= plugger.unplug(0);
    }
  };
  plugger.enabled();
  await allIsDone();
  await unplugged;
  expect(qemu.asked).toContain('device_del sriov-pf0-carrier1');
  expect(qemu.carriers.size).toBe(0);
  expect(log).toEqual([]);
});

it('go with VF Memory Space Enable, and come back with it', async () => {
  await enable(2);
  await plugger.memorySpace({ enabled: false, silentVfs: [] });
  expect(qemu.carriers.size).toBe(0);
  await plugger.memorySpace({ enabled: true, silentVfs: [] });
  await allIsDone();
  expect(qemu.carriers.size).toBe(2);
});

it('come back on top by one write where they are laid', async () => {
  await enable(2);
  qemu.asked.length = 0;
  await plugger.memorySpace({ enabled: true, silentVfs: [] });
  await allIsDone();
  expect(pauses()).toEqual([['80:0.0+4=6']]);
});

it('answer no longer than their slots do, and again with them', async () => {
  await enable(9);
  qemu.asked.length = 0;
  await plugger.memorySpace({ enabled: true, silentVfs: [1, 8] });
  await allIsDone();
  expect(pauses()).toEqual([
    ['81:0.1+4=0', '80:0.0+4=6'],
    ['82:0.0+4=0', '80:1.0+4=6'],
  ]);
  qemu.asked.length = 0;
  await plugger.memorySpace({ enabled: true, silentVfs: [8] });
  await allIsDone();
  expect(pauses()).toEqual([['81:0.1+4=2', '80:0.0+4=6'], ['80:1.0+4=6']]);
});

it('of many VFs follow their slots in pauses of few writes', async () => {
  await enable(8);
  qemu.asked.length = 0;
  await plugger.memorySpace({ enabled: true, silentVfs: [0, 1, 2, 3, 4, 5, 6, 7] });
  await allIsDone();
  expect(pauses().map((writes) => writes.length)).toEqual([4, 4, 1]);
});

it('follow their slots in more pauses where QEMU takes long to map one, so that each ends in time', async () => {
  await enable(2);
  qemu.asked.length = 0;
  qemu.onAsk = (what) => clock.elapse(what.includes('+4=') ? 11 : 0);
  await plugger.memorySpace({ enabled: true, silentVfs: [0, 1] });
  await allIsDone();
  expect(pauses()).toEqual([['81:0.0+4=0'], ['81:0.1+4=0'], ['80:0.0+4=6']]);
});

it('are laid without answering where their slots do not', async () => {
  await plug(2);
  plugger.enabled();
  await plugger.memorySpace({ enabled: true, silentVfs: [1] });
  await allIsDone();
  expect(qemu.asked.filter((what) => what.startsWith('81:0.1+4='))).toEqual(['81:0.1+4=0']);
});

it('that are being laid while a slot falls silent fall silent as well', async () => {
  await plug(2);
  plugger.enabled();
  while (!qemu.asked.some((what) => what.startsWith('81:0.'))) {
    await Promise.resolve();
  }
  await plugger.memorySpace({ enabled: true, silentVfs: [1] });
  await allIsDone();
  expect(qemu.asked.filter((what) => what.startsWith('81:0.1+4=')).at(-1)).toBe('81:0.1+4=0');
});

it('of a glue that was killed are taken out by the next', async () => {
  await enable(3);
  plugger = makePlugger();
  await allIsDone();
  expect(qemu.carriers.size).toBe(0);
});

it('lie over as many VFs as QEMU has ports for, and it is said why', async () => {
  const most = PORTS * VFS_OF_CARRIER_PORT;
  await enable(most + 2);
  expect(qemu.carriers.size).toBe(most);
  expect(trapped).toEqual([
    `${most}: the first ${most} VFs are mapped, since each takes QEMU longer than the one before (--mapped-vfs)`,
  ]);
});

const OUT_OF_REACH = '2: the guest has VF 2 at an address where no memory can be mapped';

it.each([
  ['is beyond the processor’s addresses', ADDRESS_LIMIT - 0x2_0000n, [0, 1], [OUT_OF_REACH]],
  ['is where KVM has pages of its own', 0xfebe_0000n, [0, 1], [OUT_OF_REACH]],
  ['is just below that', 0xfebd_0000n, [0, 1, 2], []],
])('are none from the first VF on that %s', async (_, start, laid, said) => {
  for (const vfIndex of [0, 1, 2]) {
    await plugger.plug(vf(vfIndex, start), () => {});
  }
  plugger.enabled();
  await allIsDone();
  expect([...qemu.carriers].sort()).toEqual(laid.map(idOf));
  expect(trapped).toEqual(said);
});

it('are none where QEMU has no port for them, or does not take them, and it is said why', async () => {
  qemu.hasPorts = false;
  await enable(1);
  qemu.hasPorts = true;
  qemu.failsToAdd = true;
  plugger.enabled();
  await allIsDone();
  qemu.hasPorts = false;
  plugger = makePlugger('this QEMU knows none');
  await enable(1);
  expect(trapped).toEqual([
    '0: QEMU has no ports for that (--vf-memory=trapped)',
    '0: no such thing',
    '0: this QEMU knows none',
  ]);
  expect(log).toEqual(['warn: VFs stay trapped: no such thing']);
});

it('are none where QEMU plugs by ACPI, of which the guest would hear', async () => {
  qemu.hotPlugHandler = '/machine/unattached/device[5]';
  await enable(1);
  expect(qemu.asked.filter((what) => what.startsWith('device_add'))).toEqual([]);
  expect(trapped).toEqual([expect.stringMatching(/^0: QEMU plugs by ACPI/)]);
});

it('wait for a guest that wakes, and enables its VFs before it has numbered the buses', async () => {
  qemu.areBusesNumbered = false;
  await enable(2);
  await clock.pass(1_000, 50);
  expect(qemu.asked.join()).not.toContain('device_add');
  qemu.areBusesNumbered = true;
  await clock.pass(1_000, 50);
  expect(qemu.carriers.size).toBe(2);
  expect([log, trapped, clock.pending]).toEqual([['info: VFs are mapped'], [], 0]);
});

it('do not wait for ever, and not at all for VFs that are gone', async () => {
  qemu.areBusesNumbered = false;
  await enable(1);
  await clock.pass(20_000, 50);
  const why = 'the guest has not numbered the bus behind sriov-carriers0-port0';
  expect([log, trapped, clock.pending]).toEqual([
    [`warn: VFs stay trapped: ${why}`],
    [`0: ${why}`],
    0,
  ]);
  plugger.enabled();
  await allIsDone();
  await plugger.unplug(0);
  qemu.areBusesNumbered = true;
  await clock.pass(20_000, 50);
  expect(qemu.asked.join()).not.toContain('device_add');
  expect([log.length, clock.pending]).toEqual([1, 0]);
});

it('wait no longer than their backend is there', async () => {
  qemu.areBusesNumbered = false;
  await enable(1);
  expect(clock.pending).toBe(1);
  await plugger.detached();
  expect(clock.pending).toBe(0);
});
