// The loopback device: registers that raise interrupts, a small DMA engine and plain memory, on the PF and on each VF.

import type { RegisterBlock } from '../../pci/register-block.ts';
import {
  type DeviceDeclaration,
  type FunctionModel,
  type FunctionPort,
  memoryBar,
  msixTable,
  type RegisterWrite,
  ram,
  registers,
} from '../kit/declaration.ts';
import { DMA_LIMIT, DmaStatus, Layout, LOOPBACK, MAGIC } from './registers.ts';

const PF_BAR_BYTES = 64 * 1024;
/** Amazon's, because Linux's pci-pf-stub, which does nothing but enable VFs, binds this PF by itself (pci-pf-stub.c). */
const VENDOR = 0x1d0f;
const PF_DEVICE = 0x0053;
/** Nobody's. */
const VF_DEVICE = 0x0054;
/** Processing accelerator. */
const CLASS_CODE = 0x12_00_00;
const ERRORS = { advancedErrorReporting: true } as const;

/** How a loopback device is made; sizes in bytes, times in milliseconds. */
export interface LoopbackOptions {
  readonly totalVfs: number;
  readonly vfBarSize: number;
  /** How long making VFs takes, as a host's sriov_numvfs would. */
  readonly enableMilliseconds: number;
}

export function declareLoopback(options: LoopbackOptions): DeviceDeclaration {
  const create = (port: FunctionPort): FunctionModel => new LoopbackModel(port);
  return {
    name: 'loopback',
    vendorId: VENDOR,
    deviceId: PF_DEVICE,
    vfDeviceId: VF_DEVICE,
    classCode: CLASS_CODE,
    revision: 1,
    totalVfs: options.totalVfs,
    enableMilliseconds: options.enableMilliseconds,
    pf: { bars: [bar(PF_BAR_BYTES)], msiVectors: 1, msixVectors: 8, ...ERRORS, create },
    vf: { bars: [bar(options.vfBarSize)], msixVectors: 4, ...ERRORS, create },
  };
}

function bar(size: number) {
  return memoryBar(
    0,
    size,
    [
      registers(Layout.registers, LOOPBACK, { magic: MAGIC }),
      msixTable(Layout.msixTable, Layout.msixPending),
      ram(Layout.memory, size - Layout.memory),
    ],
    { prefetchable: true },
  );
}

class LoopbackModel implements FunctionModel {
  readonly #port: FunctionPort;
  readonly #registers: RegisterBlock<typeof LOOPBACK>;

  constructor(port: FunctionPort) {
    this.#port = port;
    this.#registers = port.block(LOOPBACK, { written: (write) => this.#written(write) });
    this.reset();
  }

  reset(): void {
    this.#registers.set('functionNumber', this.#port.index + 1);
    this.#registers.set('generation', this.#port.generation);
  }

  #written({ register, after, whole }: RegisterWrite<typeof LOOPBACK>): void {
    if (register !== 'doorbell' && register !== 'dmaStart') {
      return;
    }
    this.#registers.set(register, 0);
    if (!whole) {
      return;
    }
    if (register === 'doorbell') {
      this.#ring(after);
    } else if (after === 1) {
      this.#registers.set('dmaStatus', this.#copy());
      this.#port.raise(this.#registers.get('dmaVector'));
    }
  }

  #ring(vector: number): void {
    if (this.#port.raise(vector)) {
      this.#registers.set('doorbellCount', this.#registers.get('doorbellCount') + 1);
    }
  }

  #copy(): number {
    const { memory, busMasterEnable } = this.#port;
    if (!busMasterEnable) {
      return DmaStatus.busMasterOff;
    }
    const length = this.#registers.get('dmaLength');
    if (length === 0 || length > DMA_LIMIT) {
      return DmaStatus.badLength;
    }
    const bytes = new Uint8Array(length);
    const source = this.#registers.getPair('dmaSourceLow', 'dmaSourceHigh');
    const destination = this.#registers.getPair('dmaDestinationLow', 'dmaDestinationHigh');
    const copied = memory.read(source, bytes) && memory.write(destination, bytes);
    return copied ? DmaStatus.done : DmaStatus.notMapped;
  }
}
