// Which values a body of the hot-plug extension may have, whoever sends it. Each check throws WireError, EINVAL.
import { WireError } from '../errno.ts';
import { isSocketPath, MAX_SOCKET_PATH_BYTES } from '../launch/socket-names.ts';
import { PAGE_BYTES } from '../page.ts';
import {
  type Carrier,
  type EnableBegin,
  type GetSlots,
  type HotplugReply,
  MAX_SLOTS,
  type Slot,
  type VfBar,
  type VfPlug,
  type VfsTrapped,
  type VfUnplug,
} from './messages.ts';

const MAX_MSIX_VECTORS = 2048;

export function checkVfsTrapped(message: VfsTrapped): void {
  checkGeneration('VfsTrapped', message.generation);
  checkRange('VfsTrapped.firstVf', message.firstVf, 0, 0xfffe);
}

export function checkEnableBegin(message: EnableBegin): void {
  checkGeneration('EnableBegin', message.generation);
  checkRange('EnableBegin.numVfs', message.numVfs, 1, 0xffff);
}

export function checkVfPlug(message: VfPlug): void {
  checkGeneration('VfPlug', message.generation);
  checkRange('VfPlug.vfIndex', message.vfIndex, 0, 0xfffe);
  checkRange('VfPlug.routingIdOffset', message.routingIdOffset, 1, 0xffff);
  checkRange('VfPlug.vendorId', message.vendorId, 0, 0xffff);
  checkRange('VfPlug.deviceId', message.deviceId, 0, 0xffff);
  checkRange('VfPlug.msixVectors', message.msixVectors, 0, MAX_MSIX_VECTORS);
  const path = message.socketPath ?? '';
  if (!isSocketPath(path)) {
    invalid(`VfPlug.socketPath must be at most ${MAX_SOCKET_PATH_BYTES} bytes without a NUL`);
  }
  checkBars('VfPlug', message.bars);
  if (message.carrier !== undefined) {
    checkCarrier(message.carrier, message.bars);
  }
}

/** A glue writes what it is told into a running machine: nothing of a carrier may lie beside its VF. */
function checkCarrier({ socketPath, bars }: Carrier, vfBars: readonly VfBar[]): void {
  if (socketPath === '' || !isSocketPath(socketPath)) {
    invalid(`Carrier.socketPath must be 1 to ${MAX_SOCKET_PATH_BYTES} bytes without a NUL`);
  }
  const taken = new Set<number>();
  for (const { index, vfBar, offset, size } of bars) {
    if (![0, 2, 4].includes(index) || taken.has(index)) {
      invalid(`Carrier.bars: ${index} is no 64-bit BAR, or comes twice`);
    }
    taken.add(index);
    const isPiece =
      size >= BigInt(PAGE_BYTES) && (size & (size - 1n)) === 0n && offset % size === 0n;
    const whole = vfBars.find((bar) => bar.index === vfBar)?.size ?? 0n;
    if (!isPiece || offset + size > whole) {
      invalid(`Carrier.bars: 0x${offset.toString(16)}+0x${size.toString(16)} of BAR ${vfBar}`);
    }
  }
}

function checkBars(message: string, bars: readonly VfBar[]): void {
  let taken = 0;
  for (const bar of bars) {
    checkBar(bar);
    const registers = (bar.is64Bit ? 3 : 1) << bar.index;
    if ((taken & registers) !== 0) {
      invalid(`${message}.bars name BAR ${bar.index} twice`);
    }
    taken |= registers;
  }
}

function checkBar({ index, size, is64Bit, address }: VfBar): void {
  checkRange('VfBar.index', index, 0, is64Bit ? 4 : 5);
  const most = is64Bit ? 1n << 64n : 1n << 32n;
  if (size < 16n || size >= most || (size & (size - 1n)) !== 0n) {
    invalid(`BAR ${index} has size 0x${size.toString(16)}: it must be a power of two that fits it`);
  }
  if (address < 0n || address >= most) {
    invalid(`BAR ${index} is at 0x${address.toString(16)}: a 32-bit BAR has no such address`);
  }
}

export function checkGetSlots({ firstVf, count }: GetSlots): void {
  checkRange('GetSlots.firstVf', firstVf, 0, 0xffff);
  checkRange('GetSlots.count', count, 1, MAX_SLOTS);
}

export function checkSlot({ vfIndex, routingIdOffset, bars }: Slot): void {
  checkRange('Slot.vfIndex', vfIndex, 0, 0xfffe);
  checkRange('Slot.routingIdOffset', routingIdOffset, 1, 0xffff);
  checkBars('Slot', bars);
}

export function checkVfUnplug(message: VfUnplug): void {
  checkGeneration('VfUnplug', message.generation);
  checkRange('VfUnplug.vfIndex', message.vfIndex, 0, 0xfffe);
  checkRange('VfUnplug.deadlineMilliseconds', message.deadlineMilliseconds, 0, 0xffff_ffff);
}

export function checkHotplugReply(message: HotplugReply): void {
  checkGeneration('HotplugReply', message.generation);
  checkRange('HotplugReply.vfIndex', message.vfIndex, 0, 0xfffe);
  checkRange('HotplugReply.errno', message.errno, 0, 4095);
}

export function checkGeneration(message: string, generation: number): void {
  checkRange(`${message}.generation`, generation, 1, 0xffff_ffff);
}

function checkRange(what: string, value: number, least: number, most: number): void {
  if (!Number.isInteger(value) || value < least || value > most) {
    invalid(`${what} is ${value}: it must be ${least}..${most}`);
  }
}

export function invalid(message: string): never {
  throw new WireError('EINVAL', message);
}
