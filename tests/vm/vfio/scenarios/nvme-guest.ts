// An NVMe controller as a guest's driver reaches it through a VMM: registers and doorbells in the mapped BAR 0, its
// completion interrupt by the VMM's eventfd. No message is sent but for setting up.
import type { PciFunction } from '../../../../vmm-glue/reference-vmm/pci-function.ts';
import type { NvmeLink } from './nvme.ts';

/** A link through a VMM's function. */
export function guestLink(fn: PciFunction): NvmeLink {
  return {
    async connect() {
      await fn.enumerate();
      await fn.setBusMaster(true);
      await fn.enableMsix();
    },
    read: async (offset) => register(fn, offset)[0]!,
    async write(offset, value) {
      register(fn, offset)[0] = value;
    },
    async interrupt() {
      await fn.interrupts[0]!.next();
    },
  };
}

/** A register in the mapping of BAR 0: one 32-bit access, as devices want it. */
function register(fn: PciFunction, offset: number): Uint32Array {
  const area = fn.areas.find(
    (each) => each.region === 0 && offset >= each.offset && offset < each.offset + each.length,
  );
  if (area === undefined) {
    throw new Error(`${fn.name}: BAR 0 is not mapped at 0x${offset.toString(16)}`);
  }
  return new Uint32Array(area.bytes.buffer, area.bytes.byteOffset + offset - area.offset, 1);
}
