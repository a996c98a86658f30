// Access Control Services extended capability. PCIe Base 4.0, "ACS Extended Capability". An Egress Control Vector, of
// the size that the capability says, may follow.

import { bit, bits, type RegisterTable, reg16 } from '../registers.ts';
import { EXTENDED_HEADER } from './extended-header.ts';

export const ACS_BYTES = 0x08;

export const ACS = {
  header: EXTENDED_HEADER,
  capability: reg16(0x04, {
    sourceValidation: bit(0, 'ro'),
    translationBlocking: bit(1, 'ro'),
    p2pRequestRedirect: bit(2, 'ro'),
    p2pCompletionRedirect: bit(3, 'ro'),
    upstreamForwarding: bit(4, 'ro'),
    p2pEgressControl: bit(5, 'ro'),
    directTranslatedP2p: bit(6, 'ro'),
    egressControlVectorSize: bits(15, 8, 'ro'),
  }),
  control: reg16(0x06, {
    sourceValidationEnable: bit(0, 'rw'),
    translationBlockingEnable: bit(1, 'rw'),
    p2pRequestRedirectEnable: bit(2, 'rw'),
    p2pCompletionRedirectEnable: bit(3, 'rw'),
    upstreamForwardingEnable: bit(4, 'rw'),
    p2pEgressControlEnable: bit(5, 'rw'),
    directTranslatedP2pEnable: bit(6, 'rw'),
  }),
} satisfies RegisterTable;
