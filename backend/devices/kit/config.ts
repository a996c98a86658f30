// The config space of a function in RAM, as its hardware would show it: register tables, nothing virtualised yet. What a
// write means is mostly decided above the port.

import { allOnes, loadUint } from '../../../protocol/little-endian.ts';
import { barRegisterValue, barWriteMasks } from '../../pci/bars.ts';
import { type ConfigOwner, ConfigSpace, TableOwner } from '../../pci/config-space.ts';
import { OwnerMap } from '../../pci/owner-map.ts';
import { type Change, RegisterBlock } from '../../pci/register-block.ts';
import { RegisterLayout } from '../../pci/register-layout.ts';
import { fieldOf, maskOf, registerValue } from '../../pci/registers.ts';
import {
  BAR_REGISTERS,
  EXTENDED_CONFIG_BYTES,
  HEADER,
  HEADER_BYTES,
  VF_HEADER,
} from '../../pci/spec/header.ts';
import { type Capability, extendedCapabilities, standardCapabilities } from './capabilities.ts';
import type { DeviceDeclaration, FunctionDeclaration, InterruptPin } from './declaration.ts';
import { ImageConfig, ImageLayout } from './image-config.ts';

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

/** The config space of all functions of one kind, before any is open. `commandWritten` hears of each change of Command. */
export interface ConfigPlan {
  open(commandWritten: () => void): FunctionConfig;
}

/** Where a capability is, and what is made of it when a function is opened. */
interface Place {
  readonly offset: number;
  readonly length: number;
  open(): ResetOwner;
}

interface ResetOwner extends ConfigOwner {
  reset(): void;
}

/**
 * `isOpen`: a VF's own BAR registers are read-only 0 then, because its addresses come from the PF's SR-IOV capability; a
 * description shows them, so that a client learns their sizes.
 */
export function planConfig(
  device: DeviceDeclaration<unknown>,
  shape: FunctionDeclaration<unknown>,
  isVf: boolean,
  isOpen: boolean,
): ConfigPlan {
  if (shape.configImage !== undefined) {
    return planOfImage(shape, shape.configImage, isVf, isOpen);
  }
  const standard = standardCapabilities(shape, isVf);
  const bars = isVf && isOpen ? [] : shape.bars;
  const header = headerLayout(device, isVf, { ...shape, bars }, standard[0]!.offset);
  const places = [...chain(standard), ...chain(extendedCapabilities(device, shape, isVf))];
  const map = new OwnerMap(EXTENDED_CONFIG_BYTES, [{ offset: 0, length: HEADER_BYTES }, ...places]);
  return {
    open(commandWritten) {
      const block = new RegisterBlock(header);
      const isCommand = ({ register }: Change<typeof HEADER>): boolean => register === 'command';
      const owners: readonly ResetOwner[] = [
        new TableOwner(0, block, (changes) => changes.some(isCommand) && commandWritten()),
        ...places.map((place) => place.open()),
      ];
      return {
        space: new ConfigSpace(EXTENDED_CONFIG_BYTES, owners, map),
        busMasterEnable: () => block.field('command', 'busMasterEnable') === 1,
        setInterruptStatus: (status) => block.setField('status', 'interruptStatus', status ? 1 : 0),
        isIntxAsserted: () =>
          block.field('status', 'interruptStatus') === 1 &&
          block.field('command', 'interruptDisable') === 0,
        reset: () => {
          for (const owner of owners) {
            owner.reset();
          }
        },
      };
    },
  };
}

/** The pin is the device's, not the card's: one that nothing drives would be waited for. */
function planOfImage(
  { bars, interruptPin }: FunctionDeclaration<unknown>,
  configImage: Uint8Array,
  isVf: boolean,
  isOpen: boolean,
): ConfigPlan {
  const image = configImage.slice();
  image[HEADER.interruptPin.offset] = pinValue(interruptPin);
  if (isVf && isOpen) {
    image.fill(0, HEADER.bar0.offset, HEADER.cardbusCisPointer.offset);
  }
  const layout = new ImageLayout(image, isVf ? 'vf' : 'pf', isVf ? [] : bars);
  return { open: (commandWritten) => openImage(layout, commandWritten) };
}

function openImage(layout: ImageLayout, commandWritten: () => void): FunctionConfig {
  const config = new ImageConfig(layout);
  const register = (name: 'command' | 'status'): number =>
    config.read(HEADER[name].offset, HEADER[name].bytes);
  const isAnsweringCommand: ConfigOwner = {
    offset: config.offset,
    length: config.length,
    read: (offset, length) => config.read(offset, length),
    write: (offset, length, value) => {
      const before = register('command');
      config.write(offset, length, value);
      if (register('command') !== before) {
        commandWritten();
      }
    },
  };
  return {
    space: new ConfigSpace(EXTENDED_CONFIG_BYTES, [isAnsweringCommand]),
    busMasterEnable: () => fieldOf(HEADER.command, 'busMasterEnable', register('command')) === 1,
    setInterruptStatus: (status) => {
      const bit = maskOf(HEADER.status, 'interruptStatus');
      const value = status ? register('status') | bit : register('status') & ~bit;
      config.set(HEADER.status.offset, HEADER.status.bytes, value);
    },
    isIntxAsserted: () =>
      fieldOf(HEADER.status, 'interruptStatus', register('status')) === 1 &&
      fieldOf(HEADER.command, 'interruptDisable', register('command')) === 0,
    reset: () => config.reset(),
  };
}

/** 0: none, 1: INTA. */
function pinValue(pin: InterruptPin | undefined): number {
  return pin === undefined ? 0 : 'ABCD'.indexOf(pin) + 1;
}

function chain(capabilities: readonly Capability[]): Place[] {
  return capabilities.map((capability, index) => {
    const { offset } = capability;
    const next = capabilities[index + 1]?.offset ?? 0;
    if ('bytes' in capability) {
      const bytes = capability.bytes(next);
      const owner = constantOwner(offset, bytes);
      return { offset, length: bytes.length, open: () => owner };
    }
    const { table, length, reset, writable = {}, written } = capability;
    const layout = new RegisterLayout(table, { length, reset: reset(next), writable });
    return {
      offset,
      length,
      open: () => {
        const block = new RegisterBlock(layout);
        return new TableOwner(offset, block, written && ((changes) => written(block, changes)));
      },
    };
  });
}

function constantOwner(offset: number, bytes: Uint8Array): ResetOwner {
  return {
    offset,
    length: bytes.length,
    read: (at, length) => (loadUint(bytes, at, length) & allOnes(length)) >>> 0,
    write: () => {},
    reset: () => {},
  };
}

function headerLayout(
  device: DeviceDeclaration<unknown>,
  isVf: boolean,
  { bars, interruptPin }: Pick<FunctionDeclaration<unknown>, 'bars' | 'interruptPin'>,
  capabilitiesPointer: number,
): RegisterLayout<typeof HEADER> {
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
    interruptPin: pinValue(interruptPin),
  };
  const writable: Partial<Record<keyof typeof HEADER, number>> = { expansionRomBase: 0 };
  for (const name of BAR_REGISTERS) {
    writable[name] = 0;
  }
  for (const bar of bars) {
    const { low, high } = barWriteMasks(bar);
    reset[BAR_REGISTERS[bar.index]!] = barRegisterValue(bar);
    writable[BAR_REGISTERS[bar.index]!] = low;
    if (bar.kind === 'memory64') {
      writable[BAR_REGISTERS[bar.index + 1]!] = high;
    }
  }
  const table = isVf ? VF_HEADER : HEADER;
  const layout = new RegisterLayout(table, { length: HEADER_BYTES, reset, writable });
  return layout as RegisterLayout<typeof HEADER>;
}
