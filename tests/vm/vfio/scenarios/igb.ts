// The few registers of Intel's 82576 (igb) that the scenarios use. Intel 82576 Datasheet, "Programming Interface".
import type { DeviceFunction } from '../../../../backend/device/physical-device.ts';

const STATUS = 0x0008;
const GPIE = 0x1514;
const EICS = 0x1520;
const EIMS = 0x1524;
const EICR = 0x1580;
const MULTIPLE_MSIX = 1 << 4;
const COMMAND = 0x04;
const MEMORY_AND_BUS_MASTER = 0x06;

export function readRegister(fn: DeviceFunction, offset: number): number {
  const bytes = new Uint8Array(4);
  fn.readRegion(0, offset, bytes);
  return new DataView(bytes.buffer).getUint32(0, true);
}

export function writeRegister(fn: DeviceFunction, offset: number, value: number): void {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  fn.writeRegion(0, offset, bytes);
}

/** Device status. */
export function readStatus(fn: DeviceFunction): number {
  return readRegister(fn, STATUS);
}

/** Whether a status is that of a card that answers: neither 0 nor all-ones. */
export function isAlive(status: number): boolean {
  return status !== 0 && status !== 0xffff_ffff;
}

/** Lets the function answer and raise interrupts: memory space, bus master. */
export function switchOn(fn: DeviceFunction): void {
  fn.writeConfig(COMMAND, 2, fn.readConfig(COMMAND, 2) | MEMORY_AND_BUS_MASTER);
}

/** Makes a function raise an MSI-X vector of its own accord; VFs have these registers too, but for the PF's mode. */
export function raiseVector(fn: DeviceFunction, vector: number): void {
  writeRegister(fn, GPIE, MULTIPLE_MSIX);
  // A cause that is pending already raises no second interrupt.
  writeRegister(fn, EICR, 1 << vector);
  writeRegister(fn, EIMS, 1 << vector);
  writeRegister(fn, EICS, 1 << vector);
}
