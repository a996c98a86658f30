// Plays a recorded guest against a backend: its accesses, resets and interrupts, in order and as fast as the answers come.
// VFs come as they come to a VMM that knows the hot-plug extension, whoever plugged them in the recording.

import { CONFIG_BYTES } from '../../../backend/pci/spec/header.ts';
import type { Clock } from '../../../protocol/clock.ts';
import { elapsed } from '../../../protocol/retry.ts';
import type { AccessEvent, TraceEvent } from '../../../protocol/trace/events.ts';
import { isCarrier } from '../../../protocol/trace/format.ts';
import { createEventFd } from '../../../protocol/unix/eventfd.ts';
import { closeFd } from '../../../protocol/unix/libc.ts';
import { RegionIndex } from '../../../protocol/vfio-user/commands.ts';
import { VfioUserClient } from '../../client/client.ts';
import type { HotplugEvent } from '../../client/hotplug.ts';
import { seconds } from '../reading/lines.ts';
import type { NamedEvent, Naming } from '../reading/naming.ts';
import { difference } from './compare.ts';

export interface PlayerOptions {
  readonly socketPath: string;
  readonly naming: Naming;
  readonly isStrict: boolean;
  readonly clock: Clock;
  /** How long VFs may take to come. */
  readonly enableMilliseconds: number;
}

/** How a replay went. */
export interface Outcome {
  readonly accesses: number;
  /** The first answer that differs, for people. */
  readonly difference: string | undefined;
  /** What was in the recording and could not be played, with how often. */
  readonly notPlayed: ReadonlyMap<string, number>;
}

const DMA = 'guest memory (its contents are not in a recording)';
/** A stock QEMU has them, to map the memory of VFs. */
const CARRIERS = 'accesses to carriers of VFs’ memory';
const ABSENT = 'accesses to VFs that were not up';
const HIDDEN = 'answers of extended config space before the first reset (it was hidden)';
const NEXT_VMM = 'what another VMM did when the first had gone';
const RESET_TIME = 'answers while a reset lasted (how long it takes is the hardware’s)';
/** How long a backend may take for a function level reset that the recording has ended; PCIe allows 100 ms. */
const RESET_MILLISECONDS = 1000;
const LOOK_MILLISECONDS = 10;

export class Player {
  readonly #options: PlayerOptions;
  readonly #pf: VfioUserClient;
  readonly #vfs = new Map<number, VfioUserClient>();
  readonly #eventFds: number[] = [];
  readonly #notPlayed = new Map<string, number>();
  /** Functions whose last reset had not ended in the recording, as far as it has been read. */
  readonly #resetting = new Set<string>();
  readonly #ending = new AbortController();
  #enableEnded = new AbortController();
  #isEnabled = false;
  /** The recorded VMM has let go of the PF: its backend has taken back then what it had of the device. */
  #hasGone = false;
  /** The recorded VMM knows no hot-plug, as QEMU does not: extended config space is empty to it until it resets the PF. */
  #isHiding = false;
  /** Why VFs do not come any more. After the end of the play nobody asks. */
  #lost: { readonly error: unknown } | undefined;
  #accesses = 0;

  /** Rejects with the client's errors where nobody serves there. */
  static async open(options: PlayerOptions): Promise<Player> {
    const pf = await VfioUserClient.connect(options.socketPath, {
      capabilities: { sriov_hotplug: { version: 1, role: 'vmm' } },
    });
    return new Player(pf, options);
  }

  private constructor(pf: VfioUserClient, options: PlayerOptions) {
    this.#pf = pf;
    this.#options = options;
    if (pf.hasHotplug) {
      void this.#listen();
    }
  }

  async play(events: Iterable<TraceEvent>): Promise<Outcome> {
    for (const event of events) {
      const found = await this.#event(event);
      if (this.#lost !== undefined) {
        throw this.#lost.error;
      }
      if (found !== undefined) {
        return this.#outcome(found);
      }
    }
    return this.#outcome(undefined);
  }

  close(): void {
    this.#ending.abort();
    for (const client of [this.#pf, ...this.#vfs.values()]) {
      client.close();
    }
    for (const fd of this.#eventFds) {
      closeFd(fd);
    }
  }

  #outcome(found: string | undefined): Outcome {
    return { accesses: this.#accesses, difference: found, notPlayed: this.#notPlayed };
  }

  async #event(event: TraceEvent): Promise<string | undefined> {
    if (this.#hasGone) {
      if (event.kind === 'access' || event.kind === 'reset' || event.kind === 'setIrqs') {
        this.#skip(NEXT_VMM);
      }
      return undefined;
    }
    switch (event.kind) {
      case 'session':
        if (event.function === 'pf' && event.detail.role === 'device') {
          this.#hasGone = event.detail.what === 'gone';
          this.#isHiding = event.detail.hotplug === undefined;
        }
        return undefined;
      case 'access':
        return this.#access(event);
      case 'reset':
        if (event.detail.kind === 'device') {
          this.#isHiding &&= event.function !== 'pf';
          await this.#clientOf(event.function)?.reset();
        } else {
          this.#resetting.add(event.function);
        }
        return undefined;
      case 'setIrqs':
        await this.#setIrqs(event);
        return undefined;
      case 'step':
        if (event.detail.after === 'enabled' && event.detail.before !== 'enabled') {
          await this.#untilEnabled();
        }
        return undefined;
      case 'dmaMap':
      case 'dmaUnmap':
        this.#skip(DMA);
        return undefined;
      default:
        return undefined;
    }
  }

  async #access(event: AccessEvent): Promise<string | undefined> {
    const client = this.#clientOf(event.function);
    if (client === undefined) {
      this.#skip(isCarrier(event.function) ? CARRIERS : ABSENT);
      return undefined;
    }
    this.#accesses++;
    const { region, offset, data, isWrite } = event;
    if (isWrite) {
      await client.writeRegion(region, offset, data);
      return undefined;
    }
    const answered = await this.#read(client, event);
    if (answered === undefined) {
      return undefined;
    }
    // What a BAR holds is the hardware's.
    if (region !== RegionIndex.config && !this.#options.isStrict) {
      return undefined;
    }
    const map = this.#options.naming.map(event.function, region);
    const found = difference(map, offset, this.#seenOf(event), answered, this.#options.isStrict);
    if (found === undefined) {
      return undefined;
    }
    const { offset: from, length } = found;
    const named = (bytes: Uint8Array): NamedEvent => {
      const piece = bytes.subarray(from - offset, from - offset + length);
      return this.#options.naming.name({ ...event, offset: from, length, data: piece })[0]!;
    };
    const recorded = named(data);
    return (
      `${seconds(event.time)} ${event.function} R ${recorded.what}: ` +
      `recorded ${recorded.text}, answered ${named(answered).text}`
    );
  }

  /** The recorded answer, as far as a VMM that sees everything at once gets the same. */
  #seenOf({ function: name, region, offset, data }: AccessEvent): Uint8Array {
    const end = Math.max(0, CONFIG_BYTES - offset);
    if (!this.#isHiding || name !== 'pf' || region !== RegionIndex.config || data.length <= end) {
      return data;
    }
    this.#skip(HIDDEN);
    return data.subarray(0, end);
  }

  /** Undefined where nobody answers in the recording, because a reset of the function lasts. */
  async #read(client: VfioUserClient, event: AccessEvent): Promise<Uint8Array | undefined> {
    const { function: name, region, offset, data } = event;
    let answered = await client.readRegion(region, offset, data.length);
    if (!this.#resetting.has(name) || region !== RegionIndex.config || this.#options.isStrict) {
      return answered;
    }
    if (isNobody(data)) {
      this.#skip(RESET_TIME);
      return undefined;
    }
    this.#resetting.delete(name);
    const { clock } = this.#options;
    const patience = clock.now() + RESET_MILLISECONDS;
    while (isNobody(answered) && clock.now() < patience) {
      await elapsed(clock, LOOK_MILLISECONDS, this.#ending.signal);
      answered = await client.readRegion(region, offset, data.length);
    }
    return answered;
  }

  async #setIrqs({
    function: name,
    index,
    start,
    count,
    flags,
    fds,
  }: Extract<TraceEvent, { kind: 'setIrqs' }>): Promise<void> {
    const eventFds = Array.from({ length: fds }, () => createEventFd());
    this.#eventFds.push(...eventFds);
    try {
      await this.#clientOf(name)?.setIrqs({ index, start, count, flags }, undefined, eventFds);
    } catch {
      this.#skip('interrupts that this backend refuses');
    }
  }

  #clientOf(name: string): VfioUserClient | undefined {
    return name === 'pf' ? this.#pf : this.#vfs.get(Number(/^vf(\d+)$/.exec(name)?.[1]));
  }

  #skip(what: string): void {
    this.#notPlayed.set(what, (this.#notPlayed.get(what) ?? 0) + 1);
  }

  async #listen(): Promise<void> {
    try {
      for await (const event of this.#pf.hotplugEvents()) {
        await this.#hotplug(event);
      }
    } catch (error) {
      this.#lost = { error };
    }
    this.#enableEnded.abort();
  }

  async #hotplug(event: HotplugEvent): Promise<void> {
    switch (event.kind) {
      case 'enableBegin':
        this.#isEnabled = false;
        event.done();
        break;
      case 'vfPlug': {
        const fd = event.takeFd();
        if (fd !== undefined) {
          const vf = await VfioUserClient.adopt(fd);
          if (this.#ending.signal.aborted) {
            vf.close();
            return;
          }
          this.#vfs.set(event.message.vfIndex, vf);
        }
        event.done();
        break;
      }
      case 'vfUnplug':
        this.#vfs.get(event.message.vfIndex)?.close();
        this.#vfs.delete(event.message.vfIndex);
        event.done();
        break;
      case 'enableEnd':
        this.#isEnabled = true;
        this.#enableEnded.abort();
        break;
    }
  }

  /** The recording goes on when its VFs are up: so does this, or after a while without them. */
  async #untilEnabled(): Promise<void> {
    if (this.#isEnabled) {
      return;
    }
    this.#enableEnded = new AbortController();
    const { clock, enableMilliseconds } = this.#options;
    await elapsed(clock, enableMilliseconds, this.#enableEnded.signal);
  }
}

/** All-ones: how a bus answers where nobody does. */
function isNobody(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0xff);
}
