// The writes that place a VF slot: right, and no more of them than needed.
import { describe, expect, it } from 'vitest';
import {
  type ConfigWrite,
  PlacementMemory,
  type PlacementPlan,
} from '../../../vmm-glue/qemu/placement.ts';

const SLOT = 0x0101;
const HIGH = { index: 0, is64Bit: true, size: 0x4000n, address: 0x38_0000_4000n };
const LOW = { index: 0, is64Bit: true, size: 0x4000n, address: 0xe000_4000n };

/** `bus:device.function+register/width=value` */
const show = (writes: readonly ConfigWrite[]): string[] =>
  writes.map(({ routingId, register, width, value }) => {
    const [bus, devfn] = [routingId >> 8, routingId & 0xff];
    const where = `${bus.toString(16)}:${(devfn >> 3).toString(16)}.${devfn & 7}`;
    return `${where}+${register.toString(16)}/${width}=${value.toString(16)}`;
  });

function carryOut(plan: PlacementPlan): readonly ConfigWrite[] {
  plan.carriedOut();
  return plan.writes;
}

describe('placing a slot', () => {
  it('writes both halves of a 64-bit BAR above 4 GiB, then Command, in three writes', () => {
    const memory = new PlacementMemory(true);
    expect(show(memory.place(SLOT, [HIGH]).writes)).toEqual([
      '1:0.1+10/4=4000',
      '1:0.1+14/4=38',
      '1:0.1+4/2=2',
    ]);
  });

  it('leaves out the upper half below 4 GiB on a fresh machine: two writes', () => {
    const memory = new PlacementMemory(true);
    expect(show(memory.place(SLOT, [LOW]).writes)).toEqual(['1:0.1+10/4=e0004000', '1:0.1+4/2=2']);
  });

  it('takes the slot off and writes both halves where the machine ran before: they may hold anything', () => {
    const memory = new PlacementMemory(false);
    expect(show(memory.place(SLOT, [LOW]).writes)).toEqual([
      '1:0.1+4/2=0',
      '1:0.1+10/4=e0004000',
      '1:0.1+14/4=0',
      '1:0.1+4/2=2',
    ]);
  });

  it('leaves of Command what is not its own as the guest has it', () => {
    const command = 0x0404;
    const fresh = new PlacementMemory(true);
    expect(show(fresh.place(SLOT, [HIGH], command).writes).at(-1)).toBe('1:0.1+4/2=406');
    const covered = show(new PlacementMemory(false).place(SLOT, [HIGH], command | 2).writes);
    expect([covered[0], covered.at(-1)]).toEqual(['1:0.1+4/2=404', '1:0.1+4/2=406']);
  });

  it('writes only Command when the BARs have not moved', () => {
    const memory = new PlacementMemory(false);
    carryOut(memory.place(SLOT, [HIGH]));
    memory.guestRan();
    expect(show(memory.place(SLOT, [HIGH]).writes)).toEqual(['1:0.1+4/2=2']);
  });

  it('writes nothing to a slot that was placed already while the guest stands still', () => {
    const memory = new PlacementMemory(false);
    carryOut(memory.place(SLOT, [HIGH]));
    expect(memory.place(SLOT, [HIGH]).writes).toEqual([]);
  });

  it('writes only the half that changed when a BAR moved', () => {
    const memory = new PlacementMemory(true);
    carryOut(memory.place(SLOT, [HIGH]));
    memory.guestRan();
    const moved = { ...HIGH, address: 0x38_0008_0000n };
    expect(show(memory.place(SLOT, [moved]).writes).slice(0, 1)).toEqual(['1:0.1+10/4=80000']);
    expect(memory.place(SLOT, [moved]).writes).toHaveLength(2);
  });

  it('takes a BAR away from its old address when the guest has unplaced it', () => {
    const memory = new PlacementMemory(true);
    carryOut(memory.place(SLOT, [LOW]));
    const writes = memory.place(SLOT, [{ ...LOW, address: 0n }]).writes;
    expect(show(writes).slice(0, 1)).toEqual(['1:0.1+10/4=0']);
  });

  it('places several BARs, 32-bit ones in one register', () => {
    const memory = new PlacementMemory(true);
    const bars = [HIGH, { index: 3, is64Bit: false, size: 0x4000n, address: 0xfe00_0000n }];
    expect(show(memory.place(SLOT, bars).writes).slice(2, 3)).toEqual(['1:0.1+1c/4=fe000000']);
  });

  it('takes no slot off for a BAR that the guest has not placed', () => {
    const memory = new PlacementMemory(true);
    const bars = [HIGH, { index: 3, is64Bit: false, size: 0x4000n, address: 0n }];
    expect(memory.place(SLOT, bars).writes).toHaveLength(3);
  });

  it('remembers nothing of a plan that was not carried out', () => {
    const memory = new PlacementMemory(true);
    memory.place(SLOT, [HIGH]);
    expect(memory.place(SLOT, [HIGH]).writes).toHaveLength(3);
  });

  it('writes everything again after writes that failed half-way', () => {
    const memory = new PlacementMemory(true);
    carryOut(memory.place(SLOT, [LOW]));
    memory.place(SLOT, [HIGH]).failed();
    expect(memory.place(SLOT, [LOW]).writes).toHaveLength(4);
  });

  it('writes everything after a reset of a slot that may have been before the writes that failed', () => {
    const memory = new PlacementMemory(true);
    memory.place(SLOT, [HIGH]).failed();
    memory.slotReset(SLOT);
    expect(memory.place(SLOT, [LOW]).writes).toHaveLength(4);
  });

  it('keeps slots apart', () => {
    const memory = new PlacementMemory(true);
    carryOut(memory.place(SLOT, [HIGH]));
    expect(memory.place(SLOT + 1, [HIGH]).writes).toHaveLength(3);
  });
});

describe('a slot that stays where another was placed after it', () => {
  const OTHER = SLOT + 0x80;
  const place = (memory: PlacementMemory, slot: number, address: bigint): string[] => {
    memory.guestRan();
    return show(carryOut(memory.place(slot, [{ ...HIGH, address }])));
  };

  it.each([
    ['at the same address', 0n],
    ['over a part of it', 0x2000n],
  ])('%s is mapped anew, because QEMU shows what was mapped last', (_where, distance) => {
    const memory = new PlacementMemory(true);
    place(memory, SLOT, HIGH.address);
    place(memory, OTHER, HIGH.address + distance);
    expect(place(memory, SLOT, HIGH.address)).toEqual(['1:0.1+4/2=0', '1:0.1+4/2=2']);
    expect(place(memory, SLOT, HIGH.address)).toHaveLength(1);
    expect(place(memory, OTHER, HIGH.address + distance)).toHaveLength(2);
  });

  it.each([
    ['beside it', HIGH.address, HIGH.address + HIGH.size],
    ['nowhere', 0n, 0n],
  ])('%s is not', (_where, own, others) => {
    const memory = new PlacementMemory(true);
    place(memory, SLOT, own);
    place(memory, OTHER, others);
    expect(place(memory, SLOT, own)).toHaveLength(1);
  });

  it('is mapped anew once, if another glue placed both: what lies where is not known', () => {
    const memory = new PlacementMemory(false);
    expect(place(memory, SLOT, HIGH.address).slice(0, 1)).toEqual(['1:0.1+4/2=0']);
    expect(place(memory, SLOT, HIGH.address)).toHaveLength(1);
  });

  it('is mapped anew, if the writes of the other were not finished', () => {
    const memory = new PlacementMemory(true);
    place(memory, SLOT, HIGH.address);
    memory.place(OTHER, [HIGH]).failed();
    expect(place(memory, SLOT, HIGH.address)).toHaveLength(2);
    place(memory, OTHER, HIGH.address + HIGH.size);
    expect(place(memory, SLOT, HIGH.address)).toHaveLength(1);
  });

  it('is not, if the other has gone elsewhere or was reset', () => {
    for (const leave of [
      (memory: PlacementMemory) => place(memory, OTHER, HIGH.address + 0x10_0000n),
      (memory: PlacementMemory) => memory.slotReset(OTHER),
    ]) {
      const memory = new PlacementMemory(true);
      place(memory, SLOT, HIGH.address);
      place(memory, OTHER, HIGH.address);
      leave(memory);
      expect(place(memory, SLOT, HIGH.address)).toHaveLength(1);
    }
  });

  it('needs no more than its move, if it moves itself', () => {
    const memory = new PlacementMemory(true);
    for (const [slice, slot] of [SLOT, SLOT + 1, SLOT + 2].entries()) {
      place(memory, slot, HIGH.address + BigInt(slice) * HIGH.size);
    }
    for (const [slice, slot] of [SLOT, SLOT + 1, SLOT + 2].entries()) {
      expect(place(memory, slot, HIGH.address + BigInt(slice + 1) * HIGH.size)).toHaveLength(2);
    }
  });
});

describe('forgetting a placement', () => {
  const placed = (): PlacementMemory => {
    const memory = new PlacementMemory(false);
    carryOut(memory.place(SLOT, [HIGH]));
    carryOut(memory.place(SLOT + 1, [HIGH]));
    memory.guestRan();
    return memory;
  };

  it('places anew after a reset of the machine, knowing that BARs hold 0', () => {
    const memory = placed();
    memory.machineReset();
    expect(memory.place(SLOT, [HIGH]).writes).toHaveLength(3);
    expect(memory.place(SLOT, [LOW]).writes).toHaveLength(2);
  });

  it('places anew after a reset of one slot, and leaves the others', () => {
    const memory = placed();
    memory.slotReset(SLOT);
    expect(memory.place(SLOT, [LOW]).writes).toHaveLength(2);
    expect(memory.place(SLOT + 1, [HIGH]).writes).toHaveLength(1);
  });

  it('trusts nothing when another QEMU may be there', () => {
    const memory = placed();
    memory.forgetAll(false);
    expect(memory.place(SLOT, [LOW]).writes).toHaveLength(4);
  });
});
