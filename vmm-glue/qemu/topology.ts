// Where a PF and the slots of its VFs go in stock QEMU, and the arguments that put them there. Pure.
// Slots sit where the SR-IOV capability of the backend says that its VFs are (protocol/launch).
import type { MemoryBar } from '../../protocol/launch/ready-line.ts';
import { vfRoutingIdOffset } from '../../protocol/launch/routing-id-spacing.ts';
import {
  isSocketPath,
  MAX_SOCKET_PATH_BYTES,
  vfSocketPath,
} from '../../protocol/launch/socket-names.ts';
import { UserError } from '../../protocol/user-error.ts';
import type { MachineKind } from './qemu-arguments.ts';

/** `root-port`: functions 0 to 255 behind a port of their own; `pcie.0`: side by side on the root bus. */
export const TOPOLOGIES = ['root-port', 'pcie.0'] as const;
export type Topology = (typeof TOPOLOGIES)[number];

/** `mapped`: what may be mapped of VFs is laid over their slots; `trapped`: it is not. */
export const VF_MEMORY = ['trapped', 'mapped'] as const;
export type VfMemory = (typeof VF_MEMORY)[number];

/**
 * Each piece of a VF that is mapped is told to every function of QEMU's, dormant ones included: V of T VFs, with a piece each, are
 * V × (T + V) DMA_MAPs (tests/bench/mapped-vfs.ts): with 16, 4,300 at most. Why 16: vmm-glue/README.md.
 */
export const MOST_MAPPED_VFS = 16;

/** One backend's share of a QEMU command line. */
export interface DevicePlan {
  /** Counts the backends of this QEMU from 0. */
  readonly index: number;
  readonly topology: Topology;
  /** As in QEMU's `addr`, hexadecimal `DEVICE[.FUNCTION]`: of the port, or of the PF on `pcie.0`. */
  readonly busAddress?: string;
  readonly socketPath: string;
  readonly vfSocketsFolder: string;
  readonly totalVfs: number;
  readonly vfBars: readonly MemoryBar[];
  /** The PF's own BARs, where known; they share the port's window with the VFs'. */
  readonly pfBars?: readonly MemoryBar[];
  /** Default: trapped. `mapped` for the first MOST_MAPPED_BACKENDS alone. */
  readonly vfMemory?: VfMemory;
  /** How many VFs can be mapped, the first ones, up to the next multiple of VFS_OF_CARRIER_PORT; default: MOST_MAPPED_VFS. */
  readonly mappedVfs?: number;
  /** Guest RAM in bytes, where known. */
  readonly ramBytes?: number;
  /** Default: q35. */
  readonly machine?: MachineKind;
}

const ROOT_BUS = 'pcie.0';
/** q35 has its own devices at 0x1f, and USB controllers, if any, at 0x1d and 0x1a. */
const FIRST_DEVICE = 0x10;
const LAST_DEVICE = 0x1e;
/** Device 0 is the host bridge. */
const LOWEST_DEVICE = 1;
/** Routing IDs of a bus after the PF's: with ARI a guest reaches them all. */
const VFS_BEHIND_PORT = 255;
/** A chassis number that users' own ports are unlikely to have. */
const FIRST_CHASSIS = 0x80;
/** Chassis numbers have 8 bits. */
const LAST_INDEX = 0xff - FIRST_CHASSIS;
/** Of the slot numbers of a chassis, of which QEMU 11.1 compares the low 8 bits: far above those of PFs' ports. */
const FIRST_CARRIER_SLOT = 0xa0;
/** Functions of a root port; a carrier for each. */
export const VFS_OF_CARRIER_PORT = 8;
/** As many as a root bus has device numbers. */
const MOST_CARRIER_PORTS = 32;
/** Far above what firmware numbers behind `pcie.0`; a root bus, and a bus for each of its ports. */
const FIRST_CARRIER_BUS = 0x80;
const CARRIER_BUSES = 40;
/** Backends of one QEMU that can have carriers; each has bus numbers of its own. */
export const MOST_MAPPED_BACKENDS = Math.floor((0x100 - FIRST_CARRIER_BUS) / CARRIER_BUSES);
const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
/** QEMU's client gives up on an answer after this long; mapping RAM for DMA may pin all of it first. */
const BASE_TIMEOUT_MILLISECONDS = 10_000;
const TIMEOUT_MILLISECONDS_PER_GIB = 5_000;

/** The id of backend `index`'s PF in QEMU. */
export function pfDeviceId(index: number): string {
  return `sriov-pf${index}`;
}

/** The id of a VF's slot in QEMU. */
export function slotDeviceId(index: number, vfIndex: number): string {
  return `${pfDeviceId(index)}-vf${vfIndex}`;
}

/** The root port that carriers of VFs `VFS_OF_CARRIER_PORT × port` and up go on. */
export function carrierPortId(index: number, port: number): string {
  return `sriov-carriers${index}-port${port}`;
}

/** The id of the function that is laid over a VF's slot. */
export function carrierDeviceId(index: number, vfIndex: number): string {
  return `${pfDeviceId(index)}-carrier${vfIndex}`;
}

/** The `-device` arguments of one backend. Throws UserError where its VFs do not fit, or QEMU could not have such devices. */
export function deviceArguments(plan: DevicePlan): string[] {
  if (plan.index > LAST_INDEX) {
    throw new UserError(
      `backend ${plan.index} of a QEMU: its ports have chassis numbers for ${LAST_INDEX + 1}`,
      `count the backends of each QEMU from 0: --index=0 to ${LAST_INDEX}`,
      2,
    );
  }
  const carriers = plan.vfMemory === 'mapped' ? carrierPorts(plan) : [];
  return [...(plan.topology === 'root-port' ? behindRootPort(plan) : onRootBus(plan)), ...carriers];
}

type CarrierPlan = Pick<DevicePlan, 'topology' | 'totalVfs' | 'mappedVfs' | 'machine'>;

/** Whether PF and VFs leave device numbers of `pcie.0` for what carriers take. */
export function hasRoomForCarriers(plan: CarrierPlan): boolean {
  const taken = plan.topology === 'pcie.0' ? devicesOnRootBus(plan) : 1;
  const carriers = plan.machine === 'virt' ? carrierPortCount(plan) : 1;
  return LOWEST_DEVICE + taken + carriers - 1 <= LAST_DEVICE;
}

function carrierPortCount({ totalVfs, mappedVfs = MOST_MAPPED_VFS }: CarrierPlan): number {
  return Math.ceil(Math.min(totalVfs, mappedVfs) / VFS_OF_CARRIER_PORT);
}

/**
 * Empty root ports, one for each VFS_OF_CARRIER_PORT VFs. In a q35 they sit on a root bus of their own: on `pcie.0` it takes hot-plug
 * over by ACPI, where taking a function out needs the guest. A virt leaves hot-plug to its ports, and a guest that it tells of its
 * hardware by a device tree finds no other root bus.
 */
function carrierPorts(plan: DevicePlan): string[] {
  if (plan.machine === 'virt') {
    return emptyPorts(plan, ROOT_BUS);
  }
  const bus = `sriov-carriers${plan.index}`;
  const first = FIRST_CARRIER_BUS + plan.index * CARRIER_BUSES;
  return [
    ...device({ driver: 'pxb-pcie', id: bus, bus: ROOT_BUS, bus_nr: first }),
    ...emptyPorts(plan, bus),
  ];
}

function emptyPorts(plan: DevicePlan, bus: string): string[] {
  const ports = Array.from({ length: carrierPortCount(plan) }, (_, port) =>
    device({
      driver: 'pcie-root-port',
      id: carrierPortId(plan.index, port),
      bus,
      chassis: FIRST_CHASSIS + plan.index,
      slot: FIRST_CARRIER_SLOT + plan.index * MOST_CARRIER_PORTS + port,
      // Firmware has few I/O ports to give to a port that may have functions later.
      'io-reserve': 0,
    }),
  );
  return ports.flat();
}

function behindRootPort(plan: DevicePlan): string[] {
  if (plan.totalVfs > VFS_BEHIND_PORT) {
    throw new UserError(
      `${plan.totalVfs} VFs: behind a root port there are routing IDs for ${VFS_BEHIND_PORT}`,
      `use fewer VFs: --total-vfs=${VFS_BEHIND_PORT}`,
      2,
    );
  }
  const port = `sriov-port${plan.index}`;
  const address = plan.busAddress === undefined ? {} : { addr: formatAddress(plan.busAddress) };
  return [
    ...device({
      driver: 'pcie-root-port',
      id: port,
      bus: ROOT_BUS,
      ...address,
      chassis: FIRST_CHASSIS + plan.index,
      slot: plan.index + 1,
      // QEMU 11.1 aborts when a vfio-user-pci with MSI-X is unplugged, which the guest itself could do.
      hotplug: false,
      ...windowReserve(plan),
    }),
    ...functions(plan, port, 0),
  ];
}

function onRootBus(plan: DevicePlan): string[] {
  const devices = devicesOnRootBus(plan);
  const { device: first, fn } =
    plan.busAddress === undefined
      ? { device: firstDevice(plan.index, devices), fn: 0 }
      : parseAddress(plan.busAddress);
  if (fn !== 0) {
    throw new UserError(
      `--bus-address=${plan.busAddress}: a PF on ${ROOT_BUS} is function 0 of its device`,
      `write --bus-address=${first.toString(16)}`,
      2,
    );
  }
  if (first + devices - 1 > LAST_DEVICE) {
    throw new UserError(
      `${plan.totalVfs} VFs from device ${first.toString(16)} of ${ROOT_BUS} on: ` +
        `there are device numbers up to ${LAST_DEVICE.toString(16)} only, each for 8 functions`,
      'use fewer VFs (--total-vfs), or begin at a lower device number (--bus-address)',
      2,
    );
  }
  return functions(plan, ROOT_BUS, first);
}

/** Of PF and VFs, where they are there. */
function devicesOnRootBus({ totalVfs }: Pick<DevicePlan, 'totalVfs'>): number {
  return Math.ceil((totalVfs + 1) / 8);
}

/** From 0x10 on, so that low numbers are left to the user's devices; a single backend with many VFs begins lower. */
function firstDevice(index: number, devices: number): number {
  const usual = FIRST_DEVICE + index * devices;
  const highest = LAST_DEVICE + 1 - devices;
  return index === 0 && highest >= LOWEST_DEVICE ? Math.min(usual, highest) : usual;
}

/** The PF at function 0 of device `first`, and each VF at the function number that follows. */
function functions(plan: DevicePlan, bus: string, first: number): string[] {
  const one = (id: string, path: string, number: number): string[] => {
    checkSocketPath(path);
    return device({
      driver: 'vfio-user-pci',
      id,
      bus,
      addr: `${(first + (number >> 3)).toString(16)}.${number & 7}`,
      multifunction: true,
      socket: { type: 'unix', path },
      'x-msg-timeout': messageTimeout(plan.ramBytes),
    });
  };
  const slots = Array.from({ length: plan.totalVfs }, (_, vfIndex) =>
    one(
      slotDeviceId(plan.index, vfIndex),
      vfSocketPath(plan.vfSocketsFolder, vfIndex),
      vfRoutingIdOffset(vfIndex),
    ),
  );
  return [...one(pfDeviceId(plan.index), plan.socketPath, 0), ...slots.flat()];
}

/** @throws UserError where QEMU could not connect to it */
function checkSocketPath(path: string): void {
  if (!isSocketPath(path)) {
    throw new UserError(
      `socket path ${path}: longer than the ${MAX_SOCKET_PATH_BYTES} bytes that Linux allows`,
      'serve in a folder with a shorter name',
      2,
    );
  }
}

function device(properties: Record<string, unknown>): string[] {
  return ['-device', JSON.stringify(properties)];
}

/** Milliseconds that QEMU should wait for an answer, given the guest's RAM in bytes. */
export function messageTimeout(ramBytes = 0): number {
  return BASE_TIMEOUT_MILLISECONDS + Math.ceil(ramBytes / GIB) * TIMEOUT_MILLISECONDS_PER_GIB;
}

/**
 * What firmware must keep free behind the port, since it does not know of VF BARs. 64-bit prefetchable BARs share the
 * prefetchable window, all others the 32-bit one. Reserving one BAR more than there are makes room for alignment.
 */
function windowReserve(plan: DevicePlan): Record<string, number> {
  const isHigh = (bar: MemoryBar): boolean => bar.is64Bit && bar.prefetchable;
  const need = (bars: readonly MemoryBar[], pfBars: readonly MemoryBar[]): number => {
    if (bars.length === 0) {
      return 0;
    }
    const vfs = bars.reduce((sum, bar) => sum + bar.size * plan.totalVfs, 0);
    const pf = pfBars.reduce((sum, bar) => sum + bar.size, 0);
    return vfs + pf + Math.max(...bars.map((bar) => bar.size));
  };
  const pfBars = plan.pfBars ?? [];
  const high = need(plan.vfBars.filter(isHigh), pfBars.filter(isHigh));
  const low = need(
    plan.vfBars.filter((bar) => !isHigh(bar)),
    pfBars.filter((bar) => !isHigh(bar)),
  );
  return {
    // A power of two, as OVMF makes it anyway; there is plenty of room above 4 GiB.
    ...(high > 0 ? { 'pref64-reserve': powerOfTwo(Math.max(high, 2 * MIB)) } : {}),
    ...(low > 0 ? { 'mem-reserve': Math.ceil(low / MIB) * MIB + 2 * MIB } : {}),
  };
}

function powerOfTwo(atLeast: number): number {
  return 2 ** Math.ceil(Math.log2(atLeast));
}

/** Reads `DEVICE[.FUNCTION]` in hexadecimal, as QEMU does. Throws UserError. */
export function parseAddress(text: string): { device: number; fn: number } {
  const match = /^(?:0x)?([0-9a-f]{1,2})(?:\.([0-7]))?$/i.exec(text);
  const deviceNumber = Number.parseInt(match?.[1] ?? '', 16);
  if (match === null || deviceNumber > 0x1f) {
    throw new UserError(
      `--bus-address=${text}: no device address`,
      'write DEVICE or DEVICE.FUNCTION in hexadecimal, such as 10 or 5.0',
      2,
    );
  }
  return { device: deviceNumber, fn: Number(match[2] ?? 0) };
}

function formatAddress(text: string): string {
  const { device: number, fn } = parseAddress(text);
  return `${number.toString(16)}.${fn}`;
}
