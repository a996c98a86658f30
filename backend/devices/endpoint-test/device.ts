// The test endpoint as a declared device: PF and VFs alike, but for INTx, which a VF does not have. Its IDs are two that
// Linux's pci_endpoint_test binds by itself.

import { randomFillSync } from 'node:crypto';
import { crc32 } from 'node:zlib';
import type { RegisterBlock } from '../../pci/register-block.ts';
import { fieldOf, registerValue } from '../../pci/registers.ts';
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
import { ENDPOINT_TEST, IrqType } from './registers.ts';
import { BarSubranges } from './subranges.ts';

/** Texas Instruments' DRA74x and DRA72x, of both of which the driver's table says: registers in BAR 0. */
const IDS = { vendorId: 0x104c, deviceId: 0xb500, vfDeviceId: 0xb501 } as const;
/** "Device does not fit any defined class": the test endpoint is of none. */
const CLASS_CODE = 0xff_00_00;
const KIB = 1024;
/** What a driver's test fills and reads back: BARs of several sizes, none in pairs, so that all six are there. */
const MEMORY_BARS: ReadonlyMap<number, number> = new Map(
  [4 * KIB, 8 * KIB, 4 * KIB, 16 * KIB, 4 * KIB].map((size, index) => [index + 1, size]),
);
const VECTORS = 32;
/** A step of a transfer: small enough that nobody else waits for it. */
const CHUNK = 64 * KIB;
const DOORBELL_DATA = 0x4442;

type StatusField = keyof typeof ENDPOINT_TEST.status.fields;

/** A command that moves memory, piece by piece. */
interface Transfer {
  readonly success: StatusField;
  readonly failure: StatusField;
  /** Gives what was wrong with the address, if anything. */
  piece(offset: bigint, bytes: Uint8Array): StatusField | undefined;
  /** Whether all of it is what it should be; asked in the end. */
  isRight(): boolean;
}

/** How a test endpoint is made. */
export interface EndpointTestOptions {
  readonly totalVfs: number;
}

export function declareEndpointTest({ totalVfs }: EndpointTestOptions): DeviceDeclaration {
  const bars = [
    memoryBar(0, 8 * KIB, [registers(0, ENDPOINT_TEST), msixTable(4 * KIB)], { width: 32 }),
    ...Array.from(MEMORY_BARS, ([index, size]) =>
      memoryBar(index, size, [ram(0, size)], { width: 32 }),
    ),
  ];
  const shape = { bars, msiVectors: VECTORS, msixVectors: VECTORS };
  return {
    name: 'endpoint-test',
    ...IDS,
    classCode: CLASS_CODE,
    totalVfs,
    pf: { ...shape, interruptPin: 'A', create: (port) => new EndpointTest(port, true) },
    vf: { ...shape, create: (port) => new EndpointTest(port, false) },
  };
}

class EndpointTest implements FunctionModel {
  readonly #port: FunctionPort;
  readonly #hasIntx: boolean;
  readonly #registers: RegisterBlock<typeof ENDPOINT_TEST>;
  readonly #subranges: BarSubranges;
  #isBusy = false;
  #isDoorbellEnabled = false;

  constructor(port: FunctionPort, hasIntx: boolean) {
    this.#port = port;
    this.#hasIntx = hasIntx;
    this.#subranges = new BarSubranges(port, MEMORY_BARS);
    this.#registers = port.block(ENDPOINT_TEST, {
      written: (write) => this.#written(write),
      reading: (register) => this.#reading(register),
    });
    this.reset();
  }

  reset(): void {
    this.#isBusy = false;
    this.#isDoorbellEnabled = false;
    this.#subranges.reset();
    const capabilities = registerValue(ENDPOINT_TEST.capabilities, {
      unalignedAccess: 1,
      msi: 1,
      msix: 1,
      intx: this.#hasIntx ? 1 : 0,
      subrangeMapping: 1,
      dynamicInboundMapping: 1,
    });
    this.#registers.set('capabilities', capabilities);
  }

  #written({ register, after }: RegisterWrite<typeof ENDPOINT_TEST>): void {
    if (register === 'command') {
      this.#takeCommand();
    } else if (register === 'doorbell' && this.#isDoorbellEnabled && after === DOORBELL_DATA) {
      this.#answer('doorbellSuccess');
    }
  }

  /** The driver reads Status to learn what an interrupt was for: that ends INTx, which is a level. */
  #reading(register: keyof typeof ENDPOINT_TEST): void {
    if (register === 'status' && this.#hasIntx) {
      this.#port.driveIntx(false);
    }
  }

  /** One at a time: what is written while a transfer runs is done after it. */
  #takeCommand(): void {
    const command = this.#registers.get('command');
    if (this.#isBusy || command === 0) {
      return;
    }
    this.#registers.set('command', 0);
    this.#registers.set('status', 0);
    const asks = (field: keyof typeof ENDPOINT_TEST.command.fields): boolean =>
      fieldOf(ENDPOINT_TEST.command, field, command) === 1;
    if (asks('raiseIntxIrq') || asks('raiseMsiIrq') || asks('raiseMsixIrq')) {
      this.#answer();
    } else if (asks('read')) {
      this.#move(this.#read());
    } else if (asks('write')) {
      this.#move(this.#write());
    } else if (asks('copy')) {
      this.#move(this.#copy());
    } else if (asks('enableDoorbell')) {
      this.#enableDoorbell(true);
      this.#answer('doorbellEnableSuccess');
    } else if (asks('disableDoorbell')) {
      this.#enableDoorbell(false);
      this.#answer('doorbellDisableSuccess');
    } else if (asks('setUpBarSubrange')) {
      const isDone = this.#subranges.setUp(this.#registers.get('size'));
      this.#answer(isDone ? 'barSubrangeSetupSuccess' : 'barSubrangeSetupFail');
    } else if (asks('clearBarSubrange')) {
      const isDone = this.#subranges.clear(this.#registers.get('size'));
      this.#answer(isDone ? 'barSubrangeClearSuccess' : 'barSubrangeClearFail');
    }
  }

  /** The endpoint reads what the driver has put into memory, and told the checksum of. */
  #read(): Transfer {
    const source = this.#registers.getPair('lowerSourceAddress', 'upperSourceAddress');
    let checksum = 0;
    return {
      success: 'readSuccess',
      failure: 'readFail',
      piece: (offset, bytes) => {
        const isRead = this.#port.memory.read(source + offset, bytes);
        checksum = crc32(bytes, checksum);
        return isRead ? undefined : 'sourceAddressInvalid';
      },
      isRight: () => uninverted(checksum) === this.#registers.get('checksum'),
    };
  }

  /** The endpoint fills the driver's memory, and tells the checksum. */
  #write(): Transfer {
    const destination = this.#registers.getPair(
      'lowerDestinationAddress',
      'upperDestinationAddress',
    );
    let checksum = 0;
    return {
      success: 'writeSuccess',
      failure: 'writeFail',
      piece: (offset, bytes) => {
        randomFillSync(bytes);
        checksum = crc32(bytes, checksum);
        const isWritten = this.#port.memory.write(destination + offset, bytes);
        return isWritten ? undefined : 'destinationAddressInvalid';
      },
      isRight: () => {
        this.#registers.set('checksum', uninverted(checksum));
        return true;
      },
    };
  }

  #copy(): Transfer {
    const source = this.#registers.getPair('lowerSourceAddress', 'upperSourceAddress');
    const destination = this.#registers.getPair(
      'lowerDestinationAddress',
      'upperDestinationAddress',
    );
    const { memory } = this.#port;
    return {
      success: 'copySuccess',
      failure: 'copyFail',
      piece: (offset, bytes) => {
        if (!memory.read(source + offset, bytes)) {
          return 'sourceAddressInvalid';
        }
        return memory.write(destination + offset, bytes) ? undefined : 'destinationAddressInvalid';
      },
      isRight: () => true,
    };
  }

  #move({ success, failure, piece, isRight }: Transfer): void {
    const size = this.#registers.get('size');
    let done = 0;
    this.#isBusy = true;
    this.#port.work(() => {
      const bytes = new Uint8Array(Math.min(CHUNK, size - done));
      const invalid = piece(BigInt(done), bytes);
      done += bytes.length;
      if (invalid === undefined && done < size) {
        return true;
      }
      this.#isBusy = false;
      if (invalid !== undefined) {
        this.#answer(failure, invalid);
      } else {
        this.#answer(isRight() ? success : failure);
      }
      this.#takeCommand();
      return false;
    });
  }

  #enableDoorbell(isEnabled: boolean): void {
    this.#isDoorbellEnabled = isEnabled;
    this.#registers.set('doorbellBar', 0);
    this.#registers.set('doorbellOffset', isEnabled ? ENDPOINT_TEST.doorbell.offset : 0);
    this.#registers.set('doorbellData', isEnabled ? DOORBELL_DATA : 0);
  }

  /** Sets bits of Status, and raises the interrupt that the driver asked for. */
  #answer(...fields: readonly StatusField[]): void {
    for (const field of [...fields, 'irqRaised'] as const) {
      this.#registers.setField('status', field, 1);
    }
    if (this.#registers.get('irqType') !== IrqType.intx) {
      this.#port.raise(this.#registers.get('irqNumber') - 1);
    } else if (this.#hasIntx) {
      this.#port.driveIntx(true);
    }
  }
}

/** The usual CRC-32 is inverted in the end; Linux's crc32_le is not. */
function uninverted(checksum: number): number {
  return ~checksum >>> 0;
}
