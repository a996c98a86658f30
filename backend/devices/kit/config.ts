// The config space of a function in RAM, as its hardware would show it: register tables, nothing virtualised yet. What a
// write means is mostly decided above the port.

import { allOnes, loadUint } from '../../../protocol/little-endian.ts';
import { barRegisterValue, barWriteMasks } from '../../pci/bars.ts';
import { type ConfigOwner, ConfigSpace, tableOwner } from '../../pci/config-space.ts';
import { type Change, RegisterBlock } from '../../pci/register-block.ts';
import { type RegisterTable, registerValue } from '../../pci/registers.ts';
import {
  BAR_REGISTERS,
  EXTENDED_CONFIG_BYTES,
  HEADER,
  HEADER_BYTES,
  VF_HEADER,
} from '../../pci/spec/header.ts';
import { type Capability, extendedCapabilities, standardCapabilities } from './capabilities.ts';
import type { DeviceDeclaration, FunctionDeclaration } from './declaration.ts';

/** What the device's side of a function needs of its own config space. */
export interface FunctionConfig {
  readonly space: ConfigSpace;
  readonly busMasterEnable: () => boolean;
  /** Interrupt Status: the device has an INTx interrupt to tell of. */
  readonly setInterruptStatus: (status: boolean) => void;
  /** Whether the INTx pin is asserted: Interrupt Status, unless Interrupt Disable is set. */
  readonly isIntxAsserted: () => boolean;
  readonly reset: () => void;
}

interface Placed {
  readonly owner: ConfigOwner;
  reset(): void;
}

/**
 * `isOpen`: a VF's own BAR registers are read-only 0 then, because its addresses come from the PF's SR-IOV capability; a
 * description shows them, so that a client learns their sizes. `commandWritten` hears of each change of Command.
 */
export function functionConfig(
  device: DeviceDeclaration<unknown>,
  shape: FunctionDeclaration<unknown>,
  isVf: boolean,
  isOpen: boolean,
  commandWritten: () => void = () => {},
): FunctionConfig {
  const standard = standardCapabilities(shape, isVf);
  const bars = isVf && isOpen ? [] : shape.bars;
  const header = headerBlock(device, isVf, { ...shape, bars }, standard[0]!.offset);
  const placed = [
    placedBlock(0, header, (changes) => {
      if (changes.some(({ register }) => register === 'command')) {
        commandWritten();
      }
    }),
    ...chain(standard),
    ...chain(extendedCapabilities(device, shape, isVf)),
  ];
  return {
    space: new ConfigSpace(
      EXTENDED_CONFIG_BYTES,
      placed.map(({ owner }) => owner),
    ),
    busMasterEnable: () => header.field('command', 'busMasterEnable') === 1,
    setInterruptStatus: (status) => header.setField('status', 'interruptStatus', status ? 1 : 0),
    isIntxAsserted: () =>
      header.field('status', 'interruptStatus') === 1 &&
      header.field('command', 'interruptDisable') === 0,
    reset: () => {
      for (const each of placed) {
        each.reset();
      }
    },
  };
}

function placedBlock<T extends RegisterTable>(
  offset: number,
  block: RegisterBlock<T>,
  written: (changes: readonly Change<T>[]) => void = () => {},
): Placed {
  return { owner: tableOwner(offset, block, written), reset: () => block.reset() };
}

function chain(capabilities: readonly Capability[]): Placed[] {
  return capabilities.map((capability, index) => {
    const next = capabilities[index + 1]?.offset ?? 0;
    if ('bytes' in capability) {
      return { owner: constantOwner(capability.offset, capability.bytes(next)), reset: () => {} };
    }
    const { offset, table, length, reset, writable, written } = capability;
    const block = new RegisterBlock<RegisterTable>(table, { length, reset: reset(next) });
    for (const [name, mask] of Object.entries(writable ?? {})) {
      block.setWriteMask(name, mask);
    }
    return placedBlock(offset, block, (changes) => written?.(block, changes));
  });
}

function constantOwner(offset: number, bytes: Uint8Array): ConfigOwner {
  return {
    offset,
    length: bytes.length,
    read: (at, length) => (loadUint(bytes, at, length) & allOnes(length)) >>> 0,
    write: () => {},
  };
}

function headerBlock(
  device: DeviceDeclaration<unknown>,
  isVf: boolean,
  { bars, interruptPin }: Pick<FunctionDeclaration<unknown>, 'bars' | 'interruptPin'>,
  capabilitiesPointer: number,
): RegisterBlock<typeof HEADER> {
  const reset: Partial<Record<keyof typeof HEADER, number>> = {
    vendorId: device.vendorId,
    deviceId: isVf ? device.vfDeviceId : device.deviceId,
    status: registerValue(HEADER.status, { capabilitiesList: 1 }),
    revisionId: device.revision ?? 0,
    programmingInterface: device.classCode & 0xff,
    subClass: (device.classCode >>> 8) & 0xff,
    baseClass: device.classCode >>> 16,
    subsystemVendorId: device.subsystemVendorId ?? device.vendorId,
    subsystemId: device.subsystemId ?? device.deviceId,
    capabilitiesPointer,
    // 0: none, 1: INTA.
    interruptPin: interruptPin === undefined ? 0 : 'ABCD'.indexOf(interruptPin) + 1,
  };
  for (const bar of bars) {
    reset[BAR_REGISTERS[bar.index]!] = barRegisterValue(bar);
  }
  const table = isVf ? VF_HEADER : HEADER;
  const block = new RegisterBlock(table, { length: HEADER_BYTES, reset });
  for (const name of BAR_REGISTERS) {
    block.setWriteMask(name, 0);
  }
  block.setWriteMask('expansionRomBase', 0);
  for (const bar of bars) {
    const { low, high } = barWriteMasks(bar);
    block.setWriteMask(BAR_REGISTERS[bar.index]!, low);
    if (bar.kind === 'memory64') {
      block.setWriteMask(BAR_REGISTERS[bar.index + 1]!, high);
    }
  }
  return block as RegisterBlock<typeof HEADER>;
}
