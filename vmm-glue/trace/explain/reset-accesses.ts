// Which accesses around a DEVICE_RESET are QEMU's own and no driver's. Its vfio-user-pci does the same at each
// (vfio_pci_pre_reset and vfio_pci_post_reset of hw/vfio/pci.c, 10.1 to 11.1), and no guest comes between: so they are known
// by what they are and by their order, however slow the host is.

import type { AccessEvent, TraceEvent } from '../../../protocol/trace/events.ts';
import { RegionIndex } from '../../../protocol/vfio-user/commands.ts';
import type { Naming } from '../reading/naming.ts';

/** By register; capital letters are writes. */
const LETTERS: Readonly<Record<string, string>> = {
  Command: 'c',
  'PM Control Status': 'p',
  'Interrupt Pin': 'i',
  ...Object.fromEntries([0, 1, 2, 3, 4, 5].map((bar) => [`BAR ${bar}`, 'b'])),
};
/** INTx is looked for where MSI-X was on, decoding and bus mastering end, the function comes to D0. */
const BEFORE = /i?cC(?:p(?:Pp)?)?$/;
const MOST_BEFORE = 6;
/** Of one register. */
const MOST_BYTES = 4;
/** INTx is looked for, BARs are cleared. */
const AFTER = 'iBBBBBB';

interface SeenAccess {
  readonly event: AccessEvent;
  readonly letter: string;
}

export class ResetAccesses {
  readonly #naming: Naming;
  /** The last of each function. */
  readonly #before = new Map<string, SeenAccess[]>();
  /** How many of `AFTER` each function has seen since its reset. */
  readonly #after = new Map<string, number>();
  readonly #found = new WeakSet<TraceEvent>();

  constructor(naming: Naming) {
    this.#naming = naming;
  }

  /** Takes the next event in. */
  see(event: TraceEvent): void {
    if (event.kind === 'reset' && event.detail.kind === 'device') {
      this.#reset(event.function);
    } else if (event.kind === 'access' && event.region === RegionIndex.config) {
      this.#access(event);
    }
  }

  /** It is QEMU's; of one before a reset this is known when the reset has been seen. */
  has(event: TraceEvent): boolean {
    return this.#found.has(event);
  }

  #reset(name: string): void {
    const seen = this.#before.get(name) ?? [];
    const [own = ''] = BEFORE.exec(seen.map(({ letter }) => letter).join('')) ?? [];
    for (const { event } of seen.slice(seen.length - own.length)) {
      this.#found.add(event);
    }
    this.#before.delete(name);
    this.#after.set(name, 0);
  }

  #access(event: AccessEvent): void {
    const letter = this.#letterOf(event);
    const name = event.function;
    const done = this.#after.get(name);
    if (done !== undefined && letter === AFTER[done]) {
      this.#found.add(event);
      this.#after.set(name, done + 1);
    } else {
      this.#after.delete(name);
    }
    this.#before.set(
      name,
      [...(this.#before.get(name) ?? []), { event, letter }].slice(-MOST_BEFORE),
    );
  }

  #letterOf({ function: name, region, offset, length, isWrite }: AccessEvent): string {
    // Whatever length a damaged recording says: no register is longer.
    if (length === 0 || length > MOST_BYTES) {
      return '-';
    }
    const [piece, ...more] = this.#naming.map(name, region).pieces(offset, length);
    const letter = (more.length === 0 ? LETTERS[piece!.name] : undefined) ?? '-';
    return isWrite ? letter.toUpperCase() : letter;
  }
}
