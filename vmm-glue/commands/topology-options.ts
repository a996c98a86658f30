// The options that say where the devices go in QEMU, shared by `qemu` and `qemu-args`.
import { Option } from 'commander';
import {
  MOST_MAPPED_VFS,
  TOPOLOGIES,
  type Topology,
  VF_MEMORY,
  type VfMemory,
} from '../qemu/topology.ts';
import { wholeNumber } from './whole-number.ts';

export interface TopologyOptions {
  readonly topology: Topology;
  readonly busAddress?: string;
  readonly vfMemory?: VfMemory;
  readonly mappedVfs: number;
}

export function topologyOptions(): Option[] {
  return [
    new Option(
      '--topology <kind>',
      'root-port: PF and up to 255 VFs behind a port of their own; pcie.0: side by side on the root bus, up to 239',
    )
      .choices([...TOPOLOGIES])
      .default('root-port'),
    new Option(
      '--bus-address <address>',
      'address on pcie.0 of the port, or of the PF with --topology=pcie.0, in hexadecimal as in QEMU, such as 5.0',
    ),
    new Option(
      '--vf-memory <how>',
      "mapped: what may be mapped of VFs is laid over their slots (default where QEMU can, but not with --libvirt); trapped: QEMU asks the backend at each access to a VF's BARs",
    ).choices([...VF_MEMORY]),
    new Option(
      '--mapped-vfs <number>',
      'the first so many VFs are mapped, up to a multiple of 8; each takes QEMU longer than the one before',
    )
      .argParser(wholeNumber(1, 255))
      .default(MOST_MAPPED_VFS),
  ];
}
