// A card of one's own: PF and VFs each with a doorbell, a mailbox to every other function, and a DMA engine.
// Run it: vfio-user-sriov qemu --device=examples/my-card/my-card.ts -- qemu-system-x86_64 …  (README.md beside this)

import {
  defineDevice,
  type FunctionModel,
  type FunctionPort,
  memoryBar,
  msixTable,
  type RegisterWrite,
  ram,
  registers,
} from 'vfio-user-sriov/device';
import { bit, bits, type RegisterTable, reg32 } from 'vfio-user-sriov/device/registers';

/** BAR 0, from its start; my_card.c has the same offsets. */
const CARD = {
  /** "CARD" in memory order. */
  magic: reg32(0x00, 'ro'),
  /** 0 is the PF, 1 and more are VFs. */
  functionNumber: reg32(0x04, 'ro'),
  /** What is written is raised as MSI-X vector 0, and counted. */
  doorbell: reg32(0x08, 'rw'),
  doorbellCount: reg32(0x0c, 'ro'),
  /** The message, then for whom: that sends it. */
  mailboxMessage: reg32(0x10, 'rw'),
  mailboxSend: reg32(0x14, { to: bits(7, 0, 'rw'), failed: bit(31, 'ro') }),
  /** What came last, and from whom. Vector 1 tells of it. */
  mailboxReceived: reg32(0x18, 'ro'),
  mailboxSender: reg32(0x1c, 'ro'),
  /** Copies guest memory; vector 2 tells when it is done. */
  dmaSourceLow: reg32(0x20, 'rw'),
  dmaSourceHigh: reg32(0x24, 'rw'),
  dmaDestinationLow: reg32(0x28, 'rw'),
  dmaDestinationHigh: reg32(0x2c, 'rw'),
  dmaLength: reg32(0x30, 'rw'),
  /** Writing `start` starts it; `busy` until vector 2; `failed`: memory that is not mapped. */
  dmaControl: reg32(0x34, { start: bit(0, 'rw'), busy: bit(1, 'ro'), failed: bit(2, 'ro') }),
} satisfies RegisterTable;

const MAGIC = 0x44524143;
const Vector = { doorbell: 0, mailbox: 1, dma: 2 } as const;
/** A step of the DMA engine: small enough that nobody else waits for it. */
const CHUNK = 64 * 1024;
const LONGEST = 1 << 20;

/** What PF and VFs share: who is there to take a message. */
type Mailboxes = Map<number, (message: number, from: number) => void>;

function createCard(port: FunctionPort, mailboxes: Mailboxes): FunctionModel {
  const number = port.index + 1;
  const card = port.block(CARD, { written });

  function written({ register, after, whole }: RegisterWrite<typeof CARD>): void {
    if (register === 'doorbell' && whole) {
      card.set('doorbellCount', card.get('doorbellCount') + 1);
      port.raise(Vector.doorbell);
    } else if (register === 'mailboxSend' && whole) {
      send(card.field('mailboxSend', 'to'));
    } else if (register === 'dmaControl' && (after & 1) !== 0) {
      card.set('dmaControl', 0);
      startDma();
    }
  }

  function send(to: number): void {
    const deliver = mailboxes.get(to);
    deliver?.(card.get('mailboxMessage'), number);
    card.setField('mailboxSend', 'failed', deliver === undefined ? 1 : 0);
  }

  function receive(message: number, from: number): void {
    card.set('mailboxReceived', message);
    card.set('mailboxSender', from);
    port.raise(Vector.mailbox);
  }

  function startDma(): void {
    const source = address('dmaSourceLow', 'dmaSourceHigh');
    const destination = address('dmaDestinationLow', 'dmaDestinationHigh');
    const length = Math.min(card.get('dmaLength'), LONGEST);
    let done = 0;
    card.setField('dmaControl', 'busy', 1);
    port.work(() => {
      const bytes = new Uint8Array(Math.min(CHUNK, length - done));
      const isMapped =
        port.memory.read(source + BigInt(done), bytes) &&
        port.memory.write(destination + BigInt(done), bytes);
      done += bytes.length;
      if (isMapped && done < length) {
        return true;
      }
      card.setField('dmaControl', 'busy', 0);
      card.setField('dmaControl', 'failed', isMapped ? 0 : 1);
      port.raise(Vector.dma);
      return false;
    });
  }

  function address(low: keyof typeof CARD, high: keyof typeof CARD): bigint {
    return (BigInt(card.get(high)) << 32n) | BigInt(card.get(low));
  }

  function reset(): void {
    card.set('functionNumber', number);
  }

  reset();
  mailboxes.set(number, receive);
  return { reset, close: () => void mailboxes.delete(number) };
}

const functionOf = (pages: number) => ({
  bars: [
    memoryBar(0, pages * 4096, [
      registers(0, CARD, { magic: MAGIC }),
      msixTable(0x1000),
      ram(0x2000, (pages - 2) * 4096),
    ]),
  ],
  msixVectors: Object.keys(Vector).length,
  create: createCard,
});

// biome-ignore lint/style/noDefaultExport: what `--device=FILE` loads
export default defineDevice<Mailboxes>({
  name: 'my-card',
  vendorId: 0x1234,
  deviceId: 0xca4d,
  vfDeviceId: 0xca4e,
  classCode: 0x12_00_00,
  totalVfs: 4,
  share: () => new Map(),
  pf: functionOf(16),
  vf: functionOf(4),
});
