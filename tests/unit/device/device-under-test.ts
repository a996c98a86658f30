// A PF and one VF as sessions serve them, over loopback functions that note what they are asked; the test plays the
// SR-IOV machine.

import { Hold } from '../../../backend/device/hold.ts';
import type {
  DeviceDescription,
  FunctionWires,
  HostError,
} from '../../../backend/device/physical-device.ts';
import { PF_INDEX } from '../../../backend/device/physical-device.ts';
import { PhysicalFunction } from '../../../backend/device/physical-function.ts';
import type { ServedFunction } from '../../../backend/device/served-function.ts';
import { VirtualFunction } from '../../../backend/device/virtual-function.ts';
import { Offset } from '../../../backend/devices/kit/capabilities.ts';
import { Register } from '../../../backend/devices/loopback/registers.ts';
import { HEADER } from '../../../backend/pci/spec/header.ts';
import { PCI_EXPRESS } from '../../../backend/pci/spec/pcie.ts';
import { SRIOV } from '../../../backend/pci/spec/sriov.ts';
import type { SriovEvent } from '../../../backend/sriov/capability.ts';
import { closeFd } from '../../../protocol/unix/libc.ts';
import { createMemfd, dupFd } from '../../../protocol/unix/memory.ts';
import { IrqIndex, RegionIndex } from '../../../protocol/vfio-user/commands.ts';
import { IrqSetFlag } from '../../../protocol/vfio-user/messages.ts';
import { describeLoopback, openLoopbackFunction } from '../../fakes/loopback.ts';
import { RecordingFunction } from '../../fakes/recording-function.ts';

const OPTIONS = { totalVfs: 4, vfBarSize: 16384, enableMilliseconds: 0 };

/** Offsets in config space. */
export const At = {
  command: HEADER.command.offset,
  headerType: HEADER.headerType.offset,
  bar0: HEADER.bar0.offset,
  deviceControl: Offset.pciExpress + PCI_EXPRESS.deviceControl.offset,
  sriov: Offset.sriov,
  sriovControl: Offset.sriov + SRIOV.control.offset,
  numVfs: Offset.sriov + SRIOV.numVfs.offset,
  systemPageSize: Offset.sriov + SRIOV.systemPageSize.offset,
  vfBar0: Offset.sriov + SRIOV.vfBar0.offset,
} as const;

export const FLR = 0x8000;
export const MEMORY_SPACE = 0x2;
export const BUS_MASTER = 0x4;
export const VF_ENABLE = 0x1;
export const VF_MEMORY_SPACE = 0x8;

/** QEMU, which knows nothing of hot-plug; and a VMM that does. */
export const AS_QEMU = { knowsHotplug: false, seesAllAtOnce: false } as const;
export const AS_NATIVE = { knowsHotplug: true, seesAllAtOnce: true } as const;

export class DeviceUnderTest {
  readonly description: DeviceDescription = describeLoopback(OPTIONS);
  readonly pf: PhysicalFunction;
  readonly vf: VirtualFunction;
  pfHardware!: RecordingFunction;
  /** The one that was opened last. */
  vfHardware: RecordingFunction | undefined;
  /** Called with each function that is opened for the VF. */
  onOpen: (hardware: RecordingFunction) => void = () => {};
  /** What a VF sees of an enable that is under way. */
  readonly early = { isGuestToBePaused: false, hold: new Hold() };
  readonly events: SriovEvent[] = [];
  readonly failures: string[] = [];
  /** How many times VF Enable was cleared by a reset or a disconnect. */
  cleared = 0;
  /** How many times the guest has had a slot with a carrier mapped anew. */
  slotChanges = 0;

  constructor() {
    const failed = (what: string, error: HostError) => {
      this.failures.push(`${what}: ${error.message}`);
    };
    this.pf = new PhysicalFunction(
      this.description,
      { firstVfOffset: 1, vfStride: 1 },
      (wires) => {
        const handle = { index: PF_INDEX, options: OPTIONS } as const;
        this.pfHardware = new RecordingFunction(openLoopbackFunction(handle, 0, wires));
        return this.pfHardware;
      },
      {
        sriov: (event) => {
          this.events.push(event);
          if (event.type === 'vfEnableCleared') {
            this.takeDown();
          }
        },
        vfsCleared: () => {
          this.cleared++;
          this.takeDown();
        },
        failed,
      },
    );
    const { sriov } = this.pf;
    const { early } = this;
    this.vf = new VirtualFunction(0, this.description.vf, {
      expects: (vfIndex) => sriov.vfEnable && vfIndex < sriov.numVfs,
      get vfMemorySpaceEnable() {
        return sriov.vfMemorySpaceEnable;
      },
      get isGuestToBePaused() {
        return early.isGuestToBePaused;
      },
      slotChanged: () => {
        this.slotChanges++;
      },
      drawOut: () => early.hold,
      failed,
    });
  }

  /** The guest sets VF Enable; the VF is not up yet. */
  setVfEnable(numVfs = 1): void {
    write(this.pf, At.numVfs, [numVfs, 0]);
    write(this.pf, At.sriovControl, [VF_ENABLE | VF_MEMORY_SPACE, 0]);
  }

  bringUp(): void {
    const generation = this.vf.generation + 1;
    const open = (wires: FunctionWires): RecordingFunction => {
      const handle = { index: 0, options: OPTIONS } as const;
      this.vfHardware = new RecordingFunction(openLoopbackFunction(handle, generation, wires));
      this.onOpen(this.vfHardware);
      return this.vfHardware;
    };
    this.vf.bringUp(
      generation,
      open,
      (rest) => rest(),
      () => {},
    );
  }

  /** The VF's slot as QEMU has it when the guest runs: realised, and reset once. */
  attachSlot(): void {
    this.vf.attach(AS_QEMU);
    this.vf.reset(() => {});
  }

  /** All of an enable, up to the VF that the guest sees. */
  enable(): void {
    this.setVfEnable();
    this.bringUp();
    this.vf.activate();
  }

  takeDown(): void {
    this.vf.deactivate();
    this.vf.takeDown();
  }

  close(): void {
    this.pf.detach();
    this.vf.detach();
    this.takeDown();
    this.pfHardware.close();
  }
}

/** Reads config space. */
export function read(served: ServedFunction, offset: number, length: number): Uint8Array {
  const into = new Uint8Array(length).fill(0xee);
  served.readRegion(RegionIndex.config, offset, into);
  return into;
}

export function read16(served: ServedFunction, offset: number): number {
  const [low, high] = read(served, offset, 2);
  return low! | (high! << 8);
}

/** Writes config space. */
export function write(served: ServedFunction, offset: number, bytes: readonly number[]): void {
  served.writeRegion(RegionIndex.config, offset, Uint8Array.from(bytes));
}

export function write16(served: ServedFunction, offset: number, value: number): void {
  write(served, offset, [value & 0xff, value >>> 8]);
}

/** A guest's function level reset, through the PCI Express capability. */
export function functionLevelReset(served: ServedFunction): void {
  write16(served, At.deviceControl, FLR);
}

export function bar(served: ServedFunction, offset: number, length = 4): Uint8Array {
  const into = new Uint8Array(length);
  served.readRegion(RegionIndex.bar0, offset, into);
  return into;
}

/** What a loopback function says it is: MAGIC, or all ones where it does not answer. */
export function magic(served: ServedFunction): number {
  return new DataView(bar(served, Register.magic).buffer).getUint32(0, true);
}

export function writeBar(served: ServedFunction, offset: number, value: number): void {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  served.writeRegion(RegionIndex.bar0, offset, bytes);
}

/** Maps one page of a new file at a guest address. */
export function mapPage(served: ServedFunction, address: bigint): { error?: Error } {
  const memory = createMemfd('guest', 4096);
  const outcome: { error?: Error } = {};
  const window = { address, size: 4096n, fileOffset: 0n, readable: true, writable: true };
  served.mapDma({ ...window, fd: dupFd(memory) }, (error) => {
    if (error !== undefined) {
      outcome.error = error;
    }
  });
  closeFd(memory);
  return outcome;
}

/** Binds an eventfd to MSI-X vector 0; the caller keeps its own. */
export function bindVector0(served: ServedFunction, eventFd: number): void {
  served.setIrqs({
    index: IrqIndex.msix,
    start: 0,
    count: 1,
    flags: IrqSetFlag.dataEventFd | IrqSetFlag.actionTrigger,
    eventFds: [dupFd(eventFd)],
  });
}
