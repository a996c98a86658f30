// MSI capability in its four layouts: 32- or 64-bit address, with or without per-vector masking.
// PCIe Base 4.0, "MSI Capability Structures".

import { bit, bits, fieldOf, type RegisterTable, reg8, reg16, reg32 } from '../registers.ts';

const MSI_HEAD = {
  capabilityId: reg8(0x00, 'ro'),
  nextPointer: reg8(0x01, 'ro'),
  messageControl: reg16(0x02, {
    enable: bit(0, 'rw'),
    multipleMessageCapable: bits(3, 1, 'ro'),
    multipleMessageEnable: bits(6, 4, 'rw'),
    address64Capable: bit(7, 'ro'),
    perVectorMaskingCapable: bit(8, 'ro'),
    extendedMessageDataCapable: bit(9, 'ro'),
    extendedMessageDataEnable: bit(10, 'rw'),
  }),
  messageAddress: reg32(0x04, { address: bits(31, 2, 'rw') }),
} satisfies RegisterTable;

export const MSI_32 = {
  ...MSI_HEAD,
  messageData: reg16(0x08, 'rw'),
} satisfies RegisterTable;

export const MSI_32_MASKED = {
  ...MSI_32,
  extendedMessageData: reg16(0x0a, 'rw'),
  maskBits: reg32(0x0c, 'rw'),
  pendingBits: reg32(0x10, 'ro'),
} satisfies RegisterTable;

export const MSI_64 = {
  ...MSI_HEAD,
  messageUpperAddress: reg32(0x08, 'rw'),
  messageData: reg16(0x0c, 'rw'),
} satisfies RegisterTable;

export const MSI_64_MASKED = {
  ...MSI_64,
  extendedMessageData: reg16(0x0e, 'rw'),
  maskBits: reg32(0x10, 'rw'),
  pendingBits: reg32(0x14, 'ro'),
} satisfies RegisterTable;

/** Length in bytes of the layout that a Message Control value describes: 0x0a, 0x0e, 0x14 or 0x18. */
export function msiBytes(messageControl: number): number {
  const { messageControl: register } = MSI_HEAD;
  const address64 = fieldOf(register, 'address64Capable', messageControl) === 1;
  const masking = fieldOf(register, 'perVectorMaskingCapable', messageControl) === 1;
  return 0x0a + (address64 ? 4 : 0) + (masking ? 0x0a : 0);
}
