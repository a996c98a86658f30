// A backend as the glue's client shows it: a stream of hot-plug announcements that a test makes, with the answers.
import type { GlueEvents, Slot, VfPlacement } from '../../protocol/hotplug/messages.ts';
import type { HotplugSource } from '../../vmm-glue/choreography/backend-channel.ts';
import type { HotplugEvent } from '../../vmm-glue/client/hotplug.ts';

/** How an announcement was answered. */
export interface FakeAnswer {
  readonly result: 'done' | 'refused';
  readonly errno: number;
  readonly text: string;
}

interface PlugOptions {
  readonly address?: bigint;
  readonly is64Bit?: boolean;
  readonly placementLost?: boolean;
  readonly slotCommand?: number;
}

function placement(vfIndex: number, options: PlugOptions): VfPlacement {
  const bar = {
    index: 0,
    size: 16384n,
    is64Bit: options.is64Bit ?? true,
    prefetchable: true,
    address: options.address ?? 0x8_0000_0000n + BigInt(vfIndex) * 16384n,
  };
  return {
    routingIdOffset: vfIndex + 1,
    bars: [bar],
    placementLost: options.placementLost ?? false,
    slotCommand: options.slotCommand ?? 0,
  };
}

export class FakeBackend implements HotplugSource {
  generation = 0;
  /** Commands that the glue has told of, as text. */
  readonly reported: string[] = [];
  /** What it answers when it is asked for slots. */
  slotsNow: readonly Slot[] = [];
  /** It was asked for slots where there were none, since it last told that they have moved. */
  askedInVain = false;
  readonly #events: HotplugEvent[] = [];
  #wake: () => void = () => {};
  #slotsMoved: () => void = () => {};
  #isGone = false;

  async *hotplugEvents(): AsyncGenerator<HotplugEvent> {
    for (;;) {
      const event = this.#events.shift();
      if (event !== undefined) {
        yield event;
      } else if (this.#isGone) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }

  whenSlotsMoved(callback: () => void): void {
    this.#slotsMoved = callback;
  }

  async slots(firstVf: number, count: number): Promise<readonly Slot[]> {
    const slots = this.slotsNow.filter(
      ({ vfIndex }) => vfIndex >= firstVf && vfIndex < firstVf + count,
    );
    this.askedInVain ||= slots.length === 0;
    return slots;
  }

  /** Has slots of VFs that are off, with what a plug would say of each. */
  moveSlots(count: number, options: PlugOptions = {}): void {
    this.slotsNow = Array.from({ length: count }, (_, vfIndex) => ({
      vfIndex,
      ...placement(vfIndex, options),
    }));
    this.askedInVain = false;
    this.#slotsMoved();
  }

  /** The connection ends, from either side. */
  close(): void {
    this.#isGone = true;
    this.#wake();
  }

  reportGlueEvents({ events }: GlueEvents): void {
    this.reported.push(...events.map(({ text }) => text));
  }

  begin(numVfs: number, readyAfterMilliseconds?: number, placed?: boolean): Promise<FakeAnswer> {
    this.generation++;
    const message = { generation: this.generation, numVfs, readyAfterMilliseconds, placed };
    return this.#announce((answer) => ({ kind: 'enableBegin', message, ...answer }));
  }

  plug(vfIndex: number, options: PlugOptions = {}): Promise<FakeAnswer> {
    const message = {
      vfIndex,
      generation: this.generation,
      vendorId: 0x1af4,
      deviceId: 0x1110,
      msixVectors: 2,
      ...placement(vfIndex, options),
    };
    return this.#announce((answer) => ({
      kind: 'vfPlug',
      message,
      takeFd: () => undefined,
      ...answer,
    }));
  }

  unplug(vfIndex: number): Promise<FakeAnswer> {
    const message = {
      vfIndex,
      generation: this.generation,
      deadlineMilliseconds: 1000,
      reason: 'guestDisabled' as const,
    };
    return this.#announce((answer) => ({ kind: 'vfUnplug', message, ...answer }));
  }

  end(outcome: 'enabled' | 'failed' = 'enabled'): void {
    const message = { generation: this.generation, outcome, text: '' };
    this.#push({ kind: 'enableEnd', message });
  }

  #announce(
    make: (answer: { done(): void; refuse(errno: number, text: string): void }) => HotplugEvent,
  ): Promise<FakeAnswer> {
    return new Promise((resolve) => {
      this.#push(
        make({
          done: () => resolve({ result: 'done', errno: 0, text: '' }),
          refuse: (errno, text) => resolve({ result: 'refused', errno, text }),
        }),
      );
    });
  }

  #push(event: HotplugEvent): void {
    this.#events.push(event);
    this.#wake();
  }
}
