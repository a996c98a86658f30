// What Identify answers: from a controller's facts to 4096 bytes. Pure.

import { Buffer } from 'node:buffer';
import { PF_INDEX } from '../../device/physical-device.ts';
import { ALL_NAMESPACES, NAMESPACE_ID, TRANSFER_SHIFT } from './io-commands.ts';
import { COMPLETION_ENTRY_SHIFT, type Command, SUBMISSION_ENTRY_SHIFT } from './spec/commands.ts';
import {
  DescriptorType,
  IDENTIFY_BYTES,
  IDENTIFY_CONTROLLER,
  IDENTIFY_NAMESPACE,
  IdentifyCns,
  PRIMARY_CAPABILITIES,
  SECONDARY_CONTROLLER,
} from './spec/identify.ts';
import { VERSION_1_4 } from './spec/registers.ts';
import { Status } from './spec/status.ts';
import { BLOCK_BYTES } from './storage.ts';
import { controllerIdOf, PRIMARY_ID, Resources, type Subsystem } from './subsystem.ts';

export const FIRMWARE_REVISION = '1.0';
export const ERROR_LOG_ENTRIES = 16;
export const EVENT_REQUESTS = 4;
/** In kelvin. It never changes: a host that wants to see what happens moves its thresholds. */
export const Temperature = { now: 300, warning: 343, critical: 353 } as const;

/** PCI vendor ID, as in config space. */
export const VENDOR_ID = 0x1234;
const MULTIPLE_CONTROLLERS = 1 << 1;
const IS_VF = 1 << 2;
const IO_CONTROLLER = 1;
const VIRTUALIZATION = 1 << 7;
const DOORBELL_BUFFERS = 1 << 8;
const SLOT_1_READ_ONLY_OF_1 = 0b11;
const COMMAND_EFFECTS_AND_OFFSETS = 0b110;
/** Compare, Dataset Management, Write Zeroes, Save and Select. */
const OPTIONAL_IO = 0b1_1101;
const DEALLOCATED_READS_ZERO = 0b1001;
const WRITE_CACHE_FLUSHED_FOR_ALL = 0b111;
const HIGHEST_ACTIVE = 0xffff_fffd;
const SECONDARY_LIST_START = 32;
const MOST_SECONDARIES = 127;

/** Whose Identify it is: -1 is the PF. */
export interface IdentifySource {
  readonly index: number;
  readonly subsystem: Subsystem;
}

/** The structure that a command asks for, or why there is none. */
export function identify(command: Command, source: IdentifySource): Uint8Array | Status {
  const { namespaceId } = command;
  const isOurs = namespaceId === NAMESPACE_ID;
  const isPrimary = source.index === PF_INDEX;
  const firstController = command.dword10 >>> 16;
  switch (command.dword10 & 0xff) {
    case IdentifyCns.namespace:
      // With all ones it is what every namespace has in common: formats.
      return isOurs || namespaceId === ALL_NAMESPACES
        ? namespaceOf(source, isOurs)
        : Status.invalidNamespace;
    case IdentifyCns.controller:
      return controllerOf(source);
    case IdentifyCns.activeNamespaces:
      return namespaceId > HIGHEST_ACTIVE ? Status.invalidNamespace : listAfter(namespaceId);
    case IdentifyCns.namespaceDescriptors:
      return isOurs ? descriptorsOf(source) : Status.invalidNamespace;
    case IdentifyCns.controllers:
      return controllersFrom(firstController, source);
    case IdentifyCns.primaryCapabilities:
      return isPrimary ? primaryCapabilities(source.subsystem) : Status.invalidField;
    case IdentifyCns.secondaryControllers:
      return isPrimary ? secondariesFrom(firstController, source.subsystem) : Status.invalidField;
    default:
      return Status.invalidField;
  }
}

function controllerId(index: number): number {
  return index === PF_INDEX ? PRIMARY_ID : controllerIdOf(index);
}

function controllerOf({ index, subsystem }: IdentifySource): Uint8Array {
  const isPrimary = index === PF_INDEX;
  const { serialNumber, uuid, vendorIds } = subsystem.options;
  return IDENTIFY_CONTROLLER.encode({
    vendorId: VENDOR_ID,
    subsystemVendorId: VENDOR_ID,
    ...vendorIds,
    serialNumber,
    modelNumber: 'vfio-user-sriov NVMe',
    firmwareRevision: FIRMWARE_REVISION,
    recommendedArbitrationBurst: 3,
    multiPath: MULTIPLE_CONTROLLERS | (isPrimary ? 0 : IS_VF),
    maximumDataTransfer: TRANSFER_SHIFT,
    controllerId: controllerId(index),
    version: VERSION_1_4,
    controllerType: IO_CONTROLLER,
    optionalAdminCommands: DOORBELL_BUFFERS | (isPrimary ? VIRTUALIZATION : 0),
    abortLimit: 3,
    eventRequestLimit: EVENT_REQUESTS - 1,
    firmwareUpdates: SLOT_1_READ_ONLY_OF_1,
    logPageAttributes: COMMAND_EFFECTS_AND_OFFSETS,
    errorLogEntries: ERROR_LOG_ENTRIES - 1,
    warningTemperature: Temperature.warning,
    criticalTemperature: Temperature.critical,
    submissionEntrySizes: SUBMISSION_ENTRY_SHIFT | (SUBMISSION_ENTRY_SHIFT << 4),
    completionEntrySizes: COMPLETION_ENTRY_SHIFT | (COMPLETION_ENTRY_SHIFT << 4),
    namespaces: NAMESPACE_ID,
    optionalIoCommands: OPTIONAL_IO,
    volatileWriteCache: WRITE_CACHE_FLUSHED_FOR_ALL,
    subsystemName: `nqn.2014-08.org.nvmexpress:uuid:${uuidText(uuid)}`,
    maximumPower: 2500,
  });
}

function namespaceOf(source: IdentifySource, isOurs: boolean): Uint8Array {
  const common = {
    deallocateFeatures: DEALLOCATED_READS_ZERO,
    format0: Math.log2(BLOCK_BYTES) << 16,
  };
  if (!isOurs) {
    return IDENTIFY_NAMESPACE.encode(common);
  }
  const blocks = BigInt(Math.floor(source.subsystem.storageOf(source.index).bytes / BLOCK_BYTES));
  const id = namespaceUuid(source);
  return IDENTIFY_NAMESPACE.encode({
    ...common,
    size: blocks,
    capacity: blocks,
    utilization: blocks,
    globallyUniqueId: id,
    eui64: id.subarray(8),
  });
}

/** The subsystem's, told apart by the controller: each has a namespace of its own. */
function namespaceUuid({ index, subsystem }: IdentifySource): Uint8Array {
  const id = subsystem.options.uuid.slice();
  const low = ((id[14]! << 8) | id[15]!) + controllerId(index) + 1;
  id[14] = low >>> 8;
  id[15] = low;
  return id;
}

function descriptorsOf(source: IdentifySource): Uint8Array {
  const id = namespaceUuid(source);
  const list = new Uint8Array(IDENTIFY_BYTES);
  let at = 0;
  for (const [type, bytes] of [
    [DescriptorType.eui64, id.subarray(8)],
    [DescriptorType.nguid, id],
    [DescriptorType.uuid, id],
  ] as const) {
    list[at] = type;
    list[at + 1] = bytes.length;
    list.set(bytes, at + 4);
    at += 4 + bytes.length;
  }
  return list;
}

function listAfter(namespaceId: number): Uint8Array {
  const list = new Uint8Array(IDENTIFY_BYTES);
  if (namespaceId < NAMESPACE_ID) {
    list[0] = NAMESPACE_ID;
  }
  return list;
}

/** Number of identifiers, then these: all controllers that exist, from `first` on. */
function controllersFrom(first: number, { subsystem }: IdentifySource): Uint8Array {
  const present = subsystem.secondaries.flatMap(({ controller }, vfIndex) =>
    controller === undefined ? [] : [controllerIdOf(vfIndex)],
  );
  const ids = [PRIMARY_ID, ...present].filter((id) => id >= first);
  const list = new DataView(new ArrayBuffer(IDENTIFY_BYTES));
  list.setUint16(0, ids.length, true);
  for (const [position, id] of ids.entries()) {
    list.setUint16(2 + 2 * position, id, true);
  }
  return new Uint8Array(list.buffer);
}

function primaryCapabilities(subsystem: Subsystem): Uint8Array {
  const { flexible, primary } = subsystem;
  return PRIMARY_CAPABILITIES.encode({
    controllerId: PRIMARY_ID,
    resourceTypes: 0b11,
    queuesFlexible: flexible,
    queuesAssigned: subsystem.assigned('queues'),
    queuesAllocatedToPrimary: primary.queues,
    queuesPrivate: Resources.primaryPrivate,
    queuesMostPerSecondary: Resources.mostPerSecondary,
    queuesGranularity: 1,
    interruptsFlexible: flexible,
    interruptsAssigned: subsystem.assigned('interrupts'),
    interruptsAllocatedToPrimary: primary.interrupts,
    interruptsPrivate: Resources.primaryPrivate,
    interruptsMostPerSecondary: Resources.mostPerSecondary,
    interruptsGranularity: 1,
  });
}

function secondariesFrom(first: number, { secondaries }: Subsystem): Uint8Array {
  const list = new Uint8Array(IDENTIFY_BYTES);
  const shown = secondaries
    .map((secondary, vfIndex) => ({ ...secondary, vfIndex }))
    .filter(({ vfIndex }) => controllerIdOf(vfIndex) >= first)
    .slice(0, MOST_SECONDARIES);
  list[0] = shown.length;
  for (const [position, { vfIndex, isOnline, queues, interrupts }] of shown.entries()) {
    SECONDARY_CONTROLLER.encode(
      {
        controllerId: controllerIdOf(vfIndex),
        primaryId: PRIMARY_ID,
        state: isOnline ? 1 : 0,
        virtualFunction: vfIndex + 1,
        queues,
        interrupts,
      },
      list,
      SECONDARY_LIST_START + position * SECONDARY_CONTROLLER.size,
    );
  }
  return list;
}

function uuidText(uuid: Uint8Array): string {
  const text = Buffer.from(uuid).toString('hex');
  return text.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}
