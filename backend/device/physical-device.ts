// The port that everything above the hardware stands on: one SR-IOV device, as its physical function and its VFs.
// The kinds of device in backend/devices stand behind it (devices/kind.ts); device/ and server/ know nothing else of them.
// It has two halves: PhysicalDevice on the main thread may wait for the host; DeviceFunction on the device
// thread answers at once, and hands whatever takes longer to the main thread through a HostLink.

import { ExplainedError } from '../../protocol/explained-error.ts';
import type { BarShape } from '../pci/bars.ts';
import type { RegisterTable } from '../pci/registers.ts';

/** Index of a function: the PF, or VF 0, 1, ... */
export const PF_INDEX = -1;

/** One VFIO region; `index` as in RegionIndex, sizes and offsets in bytes, `size` 0 where the region is absent. */
export interface RegionShape {
  readonly index: number;
  readonly size: number;
  readonly readable: boolean;
  readonly writable: boolean;
  /** Parts that a VMM may map; the rest is trapped. */
  readonly mappable: readonly { readonly offset: number; readonly size: number }[];
}

/** One VFIO interrupt index; `index` as in IrqIndex, `count` vectors, `flags` as in IrqInfoFlag. */
export interface IrqShape {
  readonly index: number;
  readonly count: number;
  readonly flags: number;
}

/** What a function looks like before it is open: enough to answer every question a client asks while it attaches. */
export interface FunctionShape {
  /** Config space as the hardware shows it, 4096 bytes (256 where the function has no extended space). */
  readonly config: Uint8Array;
  readonly bars: readonly BarShape[];
  readonly regions: readonly RegionShape[];
  readonly irqs: readonly IrqShape[];
  /** The registers in its BARs, as far as the device names them: for traces. */
  readonly barTables?: readonly BarTable[];
}

/** Registers of the BAR `region`, from `offset` in it on; `names`: what people call them, by their names in the table. */
export interface BarTable {
  readonly region: number;
  readonly title: string;
  readonly offset: number;
  readonly table: RegisterTable;
  readonly names?: Readonly<Record<string, string>>;
}

/** The device as found at start-up. */
export interface DeviceDescription {
  /** What a person calls it: `0000:01:00.0`, or `loopback`. */
  readonly name: string;
  readonly pf: FunctionShape;
  /** A VF that is up; real IDs in `config`. */
  readonly vf: FunctionShape;
  readonly totalVfs: number;
  readonly vfDeviceId: number;
  /** One VF's BARs, as the SR-IOV capability describes them (memory only). */
  readonly vfBars: readonly BarShape[];
  /** Making VFs takes at least this many milliseconds. */
  readonly leastMakingMilliseconds: number;
}

/** Linux sleeps for this long when it has set VF Enable of a PF, as the standard wants. */
export const LINUX_MAKING_MILLISECONDS = 100;

/** The fd of a window that has no file behind it (ROM, another device's BAR): no device can reach it. */
export const NO_FILE = -1;

/** A piece of guest memory: `address` and `size` on the guest's bus, `fileOffset` into the file `fd` (or NO_FILE). */
export interface DmaWindow {
  readonly address: bigint;
  readonly size: bigint;
  readonly fd: number;
  readonly fileOffset: bigint;
  readonly readable: boolean;
  readonly writable: boolean;
}

/** Windows that the client of the function `index` has mapped. */
export interface ExpectedMemory {
  readonly index: number;
  readonly windows: readonly DmaWindow[];
}

/** VFIO_DEVICE_SET_IRQS as a value; `flags` as in IrqSetFlag. Eventfds: -1 takes that vector's away. */
export interface IrqRequest {
  readonly index: number;
  readonly start: number;
  readonly count: number;
  readonly flags: number;
  readonly bools?: readonly boolean[];
  readonly eventFds?: readonly number[];
}

/** `length` bytes at `address` on the guest's bus. */
export interface GuestRange {
  readonly address: bigint;
  readonly length: number;
}

/** A place in an open file, in bytes from its start. */
export interface FilePlace {
  readonly fd: number;
  readonly offset: number;
}

/** Which way bytes go between a file and guest memory. */
export type FileDirection = 'fromFile' | 'toFile';

/** Where a function without hardware of its own takes its interrupts and its memory from. */
export interface FunctionWires {
  /** Signals the eventfd bound to a vector; false where there is none or it is masked. */
  raise(index: number, vector: number): boolean;
  /** Asserts or deasserts a level-triggered vector: INTx. */
  drive(index: number, vector: number, asserted: boolean): void;
  /** Copies guest memory; false where no window covers the range or the file ends early. */
  readMemory(address: bigint, into: Uint8Array): boolean;
  writeMemory(address: bigint, from: Uint8Array): boolean;
  /**
   * Copies between a file and as many bytes of guest memory as the ranges have, in one call of the kernel. False as above;
   * undefined: not all of it could be copied in this way, and nothing is certain.
   */
  moveFile?(
    file: FilePlace,
    ranges: readonly GuestRange[],
    way: FileDirection,
  ): boolean | undefined;
}

/** A call to the host that failed: `call` and `path` name what was asked, `what` the cause, `fix` what a person can do. */
export class HostError extends ExplainedError {
  override readonly name: string = 'HostError';
  declare readonly errno: number;
  declare readonly call: string;
  declare readonly path: string;

  constructor(call: string, errno: number, path: string, what: string, fix?: string) {
    super({ call, errno, path, what, fix });
  }
}

/** Called once, later or at once, with the error if there was one. */
export type Done = (error?: HostError) => void;

/** One open function, on the device thread. Nothing here waits. Throws HostError where the host refuses. */
export interface DeviceFunction {
  /** Naturally aligned accesses of 1, 2 or 4 bytes to the hardware's config space. */
  readConfig(offset: number, length: 1 | 2 | 4): number;
  writeConfig(offset: number, length: 1 | 2 | 4, value: number): void;
  /** A BAR or the ROM; ranges were checked against the shape. */
  readRegion(region: number, offset: number, into: Uint8Array): void;
  writeRegion(region: number, offset: number, from: Uint8Array): void;
  /** The file that a VMM maps for the mappable parts of a region. The function keeps the fd. */
  regionFile(region: number): { readonly fd: number; readonly offset: bigint } | undefined;
  setIrqs(request: IrqRequest): void;
  mapDma(window: DmaWindow, done: Done): void;
  unmapDma(window: DmaWindow, done: Done): void;
  /** Unmaps whatever was mapped: the client has gone, which may have had tens of thousands of windows. */
  unmapAllDma(done: Done): void;
  /** Function level reset. */
  reset(done: Done): void;
  /** The host is writing sriov_numvfs (true) or has finished (false): config space must not be waited for. */
  hostBusy(busy: boolean): void;
  /** Gives back what it holds on this thread; nothing else is called afterwards. */
  close(): void;
}

/** What the main thread hands over for each open function: plain data, beside the index for its kind's eyes only. */
export interface FunctionHandle {
  readonly index: number;
}

/** A VF that somebody still holds; `holder` says who, as far as it can be known. */
export interface HeldVf {
  readonly vfIndex: number;
  readonly holder: string;
}

/** The device, on the main thread. Every method may take long and rejects with HostError. */
export interface PhysicalDevice {
  readonly description: DeviceDescription;
  readonly pf: FunctionHandle;
  /**
   * Some of what the clients of VFs that are to be made have mapped by now: all of it decides whether a VF can live in the
   * PF's address space. Comes before createVfs, and holds for the VFs that this makes.
   */
  expectMemory(memory: readonly ExpectedMemory[]): Promise<void>;
  /** Makes `count` VFs and opens all of them, or leaves none behind. */
  createVfs(count: number): Promise<readonly FunctionHandle[]>;
  /** Closes every reference this process has to the VFs, then tells which of them somebody else still holds. */
  releaseVfs(): Promise<readonly HeldVf[]>;
  /** Removes the VFs; only after releaseVfs has found none held. */
  destroyVfs(): Promise<void>;
  resetFunction(index: number): Promise<void>;
  mapDma(index: number, window: DmaWindow): Promise<void>;
  unmapDma(index: number, window: DmaWindow): Promise<void>;
  unmapAllDma(index: number): Promise<void>;
  /** What a function keeps in files is on their disk when this ends. */
  syncStorage(index: number): Promise<void>;
  /** Calls back when the kernel asks for a function back (its REQ interrupt). */
  onReleaseRequested(callback: (index: number) => void): void;
  /** Lets go of everything and leaves the host as it was found. */
  close(): Promise<void>;
}

/** What the device thread may ask of the main thread: these methods of the device, their arguments, their replies. */
export type HostRequestName =
  | 'expectMemory'
  | 'createVfs'
  | 'releaseVfs'
  | 'destroyVfs'
  | 'resetFunction'
  | 'mapDma'
  | 'unmapDma'
  | 'unmapAllDma'
  | 'syncStorage';

export type HostRequests = {
  readonly [Name in HostRequestName]: {
    readonly args: Parameters<PhysicalDevice[Name]>;
    readonly reply: Awaited<ReturnType<PhysicalDevice[Name]>>;
  };
};

/** Does on the main thread what the device thread asked for. */
export function perform<Name extends HostRequestName>(
  device: PhysicalDevice,
  name: Name,
  args: HostRequests[Name]['args'],
): Promise<HostRequests[Name]['reply']> {
  const method = device[name] as (
    ...args: HostRequests[Name]['args']
  ) => Promise<HostRequests[Name]['reply']>;
  return method.apply(device, args);
}

/** The device thread's line to the main thread: replies come in a later turn of its loop. */
export interface HostLink {
  request<Name extends HostRequestName>(
    name: Name,
    args: HostRequests[Name]['args'],
    done: (error: HostError | undefined, reply: HostRequests[Name]['reply'] | undefined) => void,
  ): void;
}
