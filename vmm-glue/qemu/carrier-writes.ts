// What is written to lay carriers over slots, and to take them out, as writes to config space. Pure.
// Their root port: PCIe Base 4.0, "Slot Control Register", "Slot Status Register", and "Type 1 Configuration Space Header".
import type { VfPlug } from '../../protocol/hotplug/messages.ts';
import { canBeMapped } from './address-limit.ts';
import type { Step } from './background-writes.ts';
import { BridgeHeader, CommandBit, Header } from './pci-registers.ts';

/** A root port that carriers go on. */
export interface CarrierPort {
  readonly routingId: number;
  /** The bus behind it; 0 while the guest has not numbered it. */
  readonly secondaryBus: number;
  /** Offset of Slot Control in its config space. */
  readonly slotControl: number;
}

const WINDOW_64_BIT = 1;
/** A bridge's window is of whole MiB. */
const MIB = 0x10_0000n;
const LOW_HALF = 0xffff_ffffn;

/** Attention Indicator off, Power Indicator on, power on, and no interrupt of any kind. */
const POWER_ON = 0x01c0;
/** All off: QEMU then takes out what is in the slot. */
const POWER_OFF = 0x07c0;
/** The events of Slot Status, each cleared by a 1. */
const EVENTS = 0x011f;

/** Lets functions be added without the guest's hearing of it. */
export function powerOn({ routingId, slotControl }: CarrierPort): Step {
  return configWrite(routingId, slotControl, 2, POWER_ON);
}

/** Takes out all functions of the port. */
export function powerOff({ routingId, slotControl }: CarrierPort): Step {
  return configWrite(routingId, slotControl, 2, POWER_OFF);
}

/** Clears the events of Slot Status, given as the upper half of the dword at Slot Control. */
export function clearEvents({ routingId, slotControl }: CarrierPort, dword: number): Step {
  const status = (dword >>> 16) & EVENTS;
  return configWrite(routingId, slotControl, 4, ((status << 16) | POWER_ON) >>> 0);
}

/** Opens the port's window around the VFs, then puts each carrier over its VF, and lets it answer where it is to. */
export function layingSteps(
  port: CarrierPort,
  vfs: readonly VfPlug[],
  answers: (vf: VfPlug) => boolean,
): Step[] {
  return [
    ...openingSteps(port, vfs),
    ...vfs.flatMap((vf) => [...carrierSteps(port, vf), answering(port, vf, answers(vf))]),
  ];
}

/** Lets the carrier of a VF answer, or not: where it does not, the slot shows through. */
export function answering(port: CarrierPort, vf: VfPlug, answers: boolean): Step {
  return configWrite(
    carrierRoutingId(port, vf),
    Header.command,
    2,
    answers ? CommandBit.memorySpaceEnable : 0,
  );
}

/** Has the port's window on top of what the guest has mapped since: QEMU maps it anew at any write of Command. */
export function raise({ routingId }: Pick<CarrierPort, 'routingId'>): Step {
  return configWrite(
    routingId,
    Header.command,
    2,
    CommandBit.memorySpaceEnable | CommandBit.busMasterEnable,
  );
}

/** Whether something of the VF can be laid: it has a carrier, and an address. */
export function canBeLaid(vf: VfPlug): boolean {
  return piecesOf(vf).length > 0;
}

/** Whether the guest has the VF where memory can be mapped. */
export function isWithinReach(vf: VfPlug, addressLimit: bigint): boolean {
  return piecesOf(vf).every(({ address, size }) =>
    canBeMapped({ start: address, end: address + size }, addressLimit),
  );
}

function piecesOf({ bars, carrier }: VfPlug) {
  return (carrier?.bars ?? []).flatMap(({ index, vfBar, offset, size }) => {
    const address = bars.find((bar) => bar.index === vfBar)?.address ?? 0n;
    return address === 0n ? [] : [{ index, address: address + offset, size }];
  });
}

/** Function numbers are VFs' modulo 8. */
function carrierRoutingId({ secondaryBus }: CarrierPort, { vfIndex }: VfPlug): number {
  return (secondaryBus << 8) | (vfIndex % 8);
}

function carrierSteps(port: CarrierPort, vf: VfPlug): Step[] {
  const routingId = carrierRoutingId(port, vf);
  return piecesOf(vf).map(({ index, address }) => {
    const register = Header.bar0 + 4 * index;
    return [
      ...configWrite(routingId, register, 4, Number(address & LOW_HALF)),
      ...configWrite(routingId, register + 4, 4, Number(address >> 32n)),
    ];
  });
}

/** Apart, since QEMU makes up all of the guest's memory map anew at each: with one command for all it would for all in one go. */
function openingSteps({ routingId }: CarrierPort, vfs: readonly VfPlug[]): Step[] {
  const pieces = vfs.flatMap(piecesOf);
  const low = pieces.reduce((least, { address }) => (address < least ? address : least), 1n << 64n);
  const high = pieces.reduce((most, { address, size }) => {
    const end = address + size;
    return end > most ? end : most;
  }, 0n);
  const base = low - (low % MIB);
  const last = ((high + MIB - 1n) / MIB) * MIB - 1n;
  const half = (value: bigint): number => Number((value >> 16n) & 0xfff0n) | WINDOW_64_BIT;
  return [
    configWrite(
      routingId,
      BridgeHeader.prefetchableBaseLimit,
      4,
      (half(base) | (half(last) << 16)) >>> 0,
    ),
    configWrite(routingId, BridgeHeader.prefetchableBaseUpper, 4, Number(base >> 32n)),
    configWrite(routingId, BridgeHeader.prefetchableLimitUpper, 4, Number(last >> 32n)),
    raise({ routingId }),
  ];
}

/** One register's. */
function configWrite(routingId: number, register: number, width: 2 | 4, value: number): Step {
  return [{ routingId, register, width, value }];
}
