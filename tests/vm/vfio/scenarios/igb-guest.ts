// The igb registers as a guest's driver reaches them, through a VMM: by messages, or through a mapped BAR.
import type { PciFunction } from '../../../../vmm-glue/reference-vmm/pci-function.ts';

const STATUS = 0x0008;
const ICR = 0x00c0;
const ICS = 0x00c8;
const IMS = 0x00d0;
const GPIE = 0x1514;
const EICS = 0x1520;
const EIMS = 0x1524;
const EICR = 0x1580;
const MULTIPLE_MSIX = 1 << 4;
const DESCRIPTOR_WRITTEN_BACK = 1;

/** Status by a message to the backend. */
export async function statusByMessage(fn: PciFunction): Promise<number> {
  return toNumber(await fn.client.readRegion(0, STATUS, 4));
}

/** Status through the mapping of BAR 0, in one 32-bit access: no message is sent. */
export function statusByMapping(fn: PciFunction): number {
  const area = fn.areas.find(({ region, offset }) => region === 0 && offset === 0);
  if (area === undefined) {
    throw new Error(`${fn.name}: BAR 0 is not mapped`);
  }
  return new Uint32Array(area.bytes.buffer, area.bytes.byteOffset)[STATUS / 4]!;
}

/** Has the card raise a vector: PF and VFs have these registers at the same offsets. */
export async function raise(fn: PciFunction, vector: number): Promise<void> {
  await write(fn, GPIE, MULTIPLE_MSIX);
  // A cause that is pending already raises no second interrupt.
  await write(fn, EICR, 1 << vector);
  await write(fn, EIMS, 1 << vector);
  await write(fn, EICS, 1 << vector);
}

/** Has the PF, without MSI-X, assert INTx. */
export async function raiseIntx(fn: PciFunction): Promise<void> {
  await write(fn, IMS, DESCRIPTOR_WRITTEN_BACK);
  await write(fn, ICS, DESCRIPTOR_WRITTEN_BACK);
}

/** Takes every cause away, as a driver's handler does: INTx is deasserted. */
export async function quietIntx(fn: PciFunction): Promise<void> {
  await write(fn, GPIE, 0);
  await write(fn, ICR, 0xffff_ffff);
}

async function write(fn: PciFunction, offset: number, value: number): Promise<void> {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  await fn.client.writeRegion(0, offset, bytes);
}

function toNumber(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
}
