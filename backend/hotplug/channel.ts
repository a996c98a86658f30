// The server's side of the hot-plug extension: the machine's peer, as messages to whichever client negotiated it.
// protocol/hotplug/README.md is the specification.

import type { Clock, Timer } from '../../protocol/clock.ts';
import { errnoName, WireError } from '../../protocol/errno.ts';
import {
  decodeHotplugReply,
  encodeEnableBegin,
  encodeEnableEnd,
  encodeVfMemorySpace,
  encodeVfPlug,
  encodeVfUnplug,
} from '../../protocol/hotplug/codec.ts';
import { HotplugCommand } from '../../protocol/hotplug/commands.ts';
import type {
  GetSlots,
  Slot,
  VfMemorySpace,
  VfPlug,
  VfsTrapped,
} from '../../protocol/hotplug/messages.ts';
import {
  GUEST_WAIT_MILLISECONDS,
  TOLD_OF_VFS_MILLISECONDS,
} from '../../protocol/hotplug/timing.ts';
import { warmUpCodec } from '../../protocol/hotplug/warm-up.ts';
import type { Log } from '../../protocol/log.ts';
import { closeFd } from '../../protocol/unix/libc.ts';
import { commandName } from '../../protocol/vfio-user/commands.ts';
import type { Frame } from '../../protocol/vfio-user/framing.ts';
import type { Observers } from '../device/observer.ts';
import type { Event, UnplugReason } from '../sriov/states-and-events.ts';
import { areSameBars, EarlyPlugs, type PlugOutcome } from './early-plugs.ts';
import type { HotplugEndpoint, PeerSession } from './endpoint.ts';
import { PausePromise } from './pause-promise.ts';
import type { HotplugPeer } from './runner.ts';

/** For the answer to a VfUnplug that nobody waits for. */
const TAKE_BACK_MILLISECONDS = 1000;

/** What a VfPlug says of a VF beside its index and generation. */
export type VfFacts = Omit<VfPlug, 'vfIndex' | 'generation' | 'socketPath'>;

export interface ChannelOptions {
  readonly clock: Clock;
  readonly observers?: Observers;
  /** Bringing VFs up takes at least this many milliseconds. */
  readonly leastMakingMilliseconds: number;
  describeVf(vfIndex: number): VfFacts;
  /** The VF's slot is where it was placed last, and its BARs answer. */
  isPlaced(vfIndex: number): boolean;
  /** A glue has come, which knows nothing of where slots are. */
  glueAttached?(): void;
  /** Where the slots belong of VFs that are off; none while they are on, or have no place. */
  slots?(asked: GetSlots): readonly Slot[];
  /** A connection for this VF alone; the caller closes `peerFd`. */
  connectVf(vfIndex: number): { session: PeerSession; peerFd: number };
  /** Where a client that cannot be handed an fd finds the VF. */
  vfSocketPath(vfIndex: number): string;
  /** A VfPlug of the VF goes out; calls what this gives when it was answered with done. */
  plugging(vfIndex: number): () => void;
  event(event: Event): void;
  log: Log;
}

export class HotplugChannel implements HotplugPeer, HotplugEndpoint {
  readonly #options: ChannelOptions;
  #session: PeerSession | undefined;
  #role: 'vmm' | 'glue' = 'glue';
  readonly #pause: PausePromise;
  readonly #early: EarlyPlugs;
  /** VFs of the enable at hand are still to be told of. */
  #placing: Timer | undefined;
  #trapped: VfsTrapped | undefined;
  /** The last enable that was before its client. */
  #generationBefore = 0;
  /** The VFs' own connections, by index. */
  readonly #vfSessions = new Map<number, PeerSession>();
  /** Where whoever plugs VFs has put them, by index. */
  readonly #places = new Map<number, VfPlug['bars']>();

  constructor(options: ChannelOptions) {
    this.#options = options;
    this.#pause = new PausePromise(options.clock);
    this.#early = new EarlyPlugs(options.clock);
  }

  get attached(): boolean {
    return this.#session !== undefined;
  }

  get role(): 'vmm' | 'glue' | undefined {
    return this.attached ? this.#role : undefined;
  }

  get holdsVfs(): boolean {
    return this.attached && this.#role === 'vmm';
  }

  get #hasGlue(): boolean {
    return this.role === 'glue';
  }

  attach(session: PeerSession, role: 'vmm' | 'glue'): void {
    if (this.#session !== undefined) {
      throw new WireError('EBUSY', 'hot-plug is negotiated on another connection already');
    }
    this.#session = session;
    this.#role = role;
    this.#generationBefore = this.#pause.generation;
    warmUpCodec();
    this.#options.log.info(`hot-plug client attached as ${role}`);
    if (role === 'glue') {
      this.#options.glueAttached?.();
    }
  }

  detach(session: PeerSession): void {
    if (session !== this.#session) {
      return;
    }
    this.#session = undefined;
    this.#placing?.cancel();
    this.#early.drain();
    this.#pause.drop();
    this.#options.log.info('hot-plug client detached');
    this.#closeVfSessions();
    this.#options.event({ type: 'peerDetached' });
  }

  vfsTrapped(message: VfsTrapped): void {
    this.#trapped = message;
    this.#options.log.debug(`VFs from ${message.firstVf} on are trapped: ${message.text}`);
  }

  slots(asked: GetSlots): readonly Slot[] {
    return this.#options.slots?.(asked) ?? [];
  }

  /** Slots are not where the VF BARs say: whoever has slots may place them now. */
  slotsMoved(): void {
    if (this.#hasGlue) {
      this.#options.observers?.hotplug('sent', 'SlotsMoved', {});
      this.#session?.command(HotplugCommand.slotsMoved, new Uint8Array(), []);
    }
  }

  /** Why the glue maps nothing of a VF of this enable; undefined where that is not known. */
  whyTrapped(vfIndex: number, generation: number): string | undefined {
    if (generation <= this.#generationBefore) {
      return 'the glue came after it was enabled, and learns of it at the next enable';
    }
    const trapped = this.#trapped;
    const isMeant = trapped?.generation === generation && vfIndex >= trapped.firstVf;
    return isMeant ? trapped.text : undefined;
  }

  beginEnable(generation: number, count: number): void {
    const body = encodeEnableBegin({
      generation,
      numVfs: count,
      readyAfterMilliseconds: this.#options.leastMakingMilliseconds,
      ...(this.#arePlaced(count) ? { placed: true } : {}),
    });
    this.#pause.asked(generation);
    this.#ask(HotplugCommand.enableBegin, body, [], { vfIndex: 0, generation }, ({ refusal }) => {
      this.#pause.answered(generation, refusal === undefined);
      if (refusal !== undefined) {
        this.#options.log.warn(`the VMM could not prepare for ${count} VFs: ${refusal}`);
      }
    });
  }

  /**
   * A glue is there, and has asked its VMM to pause the guest for the last enable, or is about to. One that has not answered
   * yet is waited for: its host may be slower than the guest waits.
   */
  get isPauseExpected(): boolean {
    return this.#hasGlue && (this.#pause.isGiven || this.patienceMilliseconds > 0);
  }

  /** How long the glue's answer to the last EnableBegin is still waited for; 0 where it has come. */
  get patienceMilliseconds(): number {
    return this.#pause.patienceMilliseconds;
  }

  /** Calls back when the glue has asked its VMM to pause the guest, or says that it will, or at once where nothing like that is on its way. */
  whenPauseIsPromised(callback: () => void): void {
    if (this.#hasGlue && this.#pause.isAwaited) {
      this.#pause.whenSettled(callback);
    } else {
      callback();
    }
  }

  /** A VMM that opens VFs has no slots. */
  #arePlaced(count: number): boolean {
    const { isPlaced } = this.#options;
    return !this.holdsVfs && Array.from({ length: count }, (_, index) => index).every(isPlaced);
  }

  /** A VMM that opens VFs has nothing to do for one that is not up. */
  place(generation: number, count: number): void {
    if (!this.#hasGlue) {
      return;
    }
    const { clock, leastMakingMilliseconds } = this.#options;
    if (leastMakingMilliseconds < GUEST_WAIT_MILLISECONDS) {
      this.#placeNow(generation, count);
      return;
    }
    this.#placing = clock.after(TOLD_OF_VFS_MILLISECONDS, () => this.#placeNow(generation, count));
  }

  #placeNow(generation: number, count: number): void {
    for (let vfIndex = 0; vfIndex < count; vfIndex++) {
      const plug = { ...this.#options.describeVf(vfIndex), vfIndex, generation };
      const keep = this.#early.sent(vfIndex, generation, plug);
      this.#sendPlug(plug, [], (outcome) => {
        if (keep(outcome) || outcome.refusal === undefined) {
          return;
        }
        this.#options.event({ type: 'plugAnswered', vfIndex, generation, ...outcome });
      });
    }
  }

  plug(generation: number, vfIndex: number): void {
    this.#placing?.cancel();
    const about = { vfIndex, generation };
    const plug: VfPlug = { ...this.#options.describeVf(vfIndex), ...about };
    if (this.holdsVfs) {
      // Whoever maps a VF itself needs no carrier of it.
      delete plug.carrier;
    }
    const answered = (outcome: PlugOutcome): void =>
      this.#options.event({ type: 'plugAnswered', ...about, ...outcome });
    const early = this.#early.take(vfIndex, generation, plug, answered);
    if (early === 'taken') {
      return;
    }
    if (early === 'stale') {
      this.#takeBack(about);
    }
    const fds: number[] = [];
    try {
      if (this.holdsVfs && this.#session?.connection.carriesFds === true) {
        const { session, peerFd } = this.#options.connectVf(vfIndex);
        this.#vfSessions.set(vfIndex, session);
        fds.push(peerFd);
      } else if (this.holdsVfs) {
        plug.socketPath = this.#options.vfSocketPath(vfIndex);
      }
    } catch (error) {
      answered({ refusal: error instanceof Error ? error.message : String(error) });
      return;
    }
    this.#sendPlug(plug, fds, answered);
    for (const fd of fds) {
      closeFd(fd);
    }
  }

  #sendPlug(plug: VfPlug, fds: readonly number[], answered: (outcome: PlugOutcome) => void): void {
    const { vfIndex, generation } = plug;
    const about = { vfIndex, generation };
    const plugged = this.#options.plugging(vfIndex);
    this.#ask(HotplugCommand.vfPlug, encodeVfPlug(plug), fds, about, (outcome) => {
      if (outcome.refusal === undefined) {
        plugged();
        this.#places.set(vfIndex, plug.bars);
      } else {
        this.#closeVfSession(vfIndex);
      }
      answered(outcome);
    });
  }

  /**
   * The guest may have moved the VF BARs since it enabled its VFs: the glue has those that are elsewhere now plugged anew. `done`
   * when it has all of them where they belong; never where it cannot.
   */
  followVfBars(generation: number, count: number, done: () => void): void {
    const places = this.#hasGlue ? [...this.#places] : [];
    const moved = places.filter(
      ([vfIndex, bars]) =>
        vfIndex < count && !areSameBars(bars, this.#options.describeVf(vfIndex).bars),
    );
    let left = moved.length;
    if (left === 0) {
      done();
      return;
    }
    for (const [vfIndex] of moved) {
      const about = { vfIndex, generation };
      this.#takeBack(about);
      this.#sendPlug({ ...this.#options.describeVf(vfIndex), ...about }, [], ({ refusal }) => {
        if (refusal !== undefined) {
          this.#options.log.warn(`VF ${vfIndex} does not follow the VF BARs: ${refusal}`);
        } else if (--left === 0) {
          done();
        }
      });
    }
  }

  /** A slot that was announced and is not wanted: nothing depends on the answer. */
  #takeBack({ vfIndex, generation }: { vfIndex: number; generation: number }): void {
    const body = encodeVfUnplug({
      vfIndex,
      generation,
      deadlineMilliseconds: TAKE_BACK_MILLISECONDS,
      reason: 'vfLost',
    });
    this.#ask(HotplugCommand.vfUnplug, body, [], { vfIndex, generation }, () => {});
  }

  unplug(
    generation: number,
    vfIndex: number,
    deadlineMilliseconds: number,
    reason: UnplugReason,
  ): void {
    const body = encodeVfUnplug({ vfIndex, generation, deadlineMilliseconds, reason });
    const about = { vfIndex, generation };
    this.#ask(HotplugCommand.vfUnplug, body, [], about, (outcome) => {
      if (outcome.refusal === undefined) {
        this.#closeVfSession(vfIndex);
      } else if (!this.holdsVfs) {
        // A slot's VMM holds nothing of the VF, so that there is nothing to wait for: its QEMU may well be dead.
        this.#options.log.warn(`VF ${vfIndex} stays in its slot: ${outcome.refusal}`);
        this.#options.event({ type: 'unplugAnswered', ...about });
        return;
      }
      this.#options.event({ type: 'unplugAnswered', ...about, ...outcome });
    });
  }

  /** The memory of VFs is where the guest wants it: whoever has laid it over slots follows. Others need not know. */
  memorySpace(message: VfMemorySpace): void {
    if (!this.#hasGlue) {
      return;
    }
    const { enabled } = message;
    const body = encodeVfMemorySpace(message);
    const about = { vfIndex: 0, generation: message.generation };
    this.#ask(HotplugCommand.vfMemorySpace, body, [], about, ({ refusal }) => {
      if (refusal !== undefined) {
        this.#options.log.debug(`VF Memory Space Enable is ${enabled}: ${refusal}`, about);
      }
    });
  }

  endEnable(generation: number, outcome: 'enabled' | 'failed', text: string): void {
    this.#options.observers?.hotplug('sent', 'EnableEnd', { generation, outcome, text });
    this.#session?.command(
      HotplugCommand.enableEnd,
      encodeEnableEnd({ generation, outcome, text }),
      [],
    );
    this.#placing?.cancel();
    for (const announced of this.#early.drain()) {
      this.#takeBack(announced);
    }
  }

  /** Sends a command; `answered` is not called when the client goes without answering: `detach` tells that. */
  #ask(
    command: number,
    body: Uint8Array,
    fds: readonly number[],
    about: { vfIndex: number; generation: number },
    answered: (outcome: PlugOutcome) => void,
  ): void {
    const { observers } = this.#options;
    const message = commandName(command);
    observers?.hotplug('sent', message, { ...about, fds: fds.length });
    this.#session?.command(command, body, fds, (frame) => {
      if (frame === undefined) {
        return true;
      }
      const outcome = outcomeOf(frame, about);
      observers?.hotplug('received', message, { ...about, ...(outcome ?? { stray: true }) });
      if (outcome === undefined) {
        this.#options.log.warn(`an answer that is not about VF ${about.vfIndex}: ignored`, about);
        return false;
      }
      answered(outcome);
      return true;
    });
  }

  #closeVfSession(vfIndex: number): void {
    const session = this.#vfSessions.get(vfIndex);
    this.#vfSessions.delete(vfIndex);
    session?.close();
  }

  #closeVfSessions(): void {
    for (const vfIndex of [...this.#vfSessions.keys()]) {
      this.#closeVfSession(vfIndex);
    }
  }
}

/** Undefined: the answer is about something else, and the command stays outstanding. */
function outcomeOf(
  frame: Frame,
  about: { vfIndex: number; generation: number },
): PlugOutcome | undefined {
  if (frame.error !== 0) {
    return { refusal: `answered ${errnoName(frame.error)}` };
  }
  try {
    const reply = decodeHotplugReply(frame.body);
    if (reply.vfIndex !== about.vfIndex || reply.generation !== about.generation) {
      return undefined;
    }
    if (reply.result === 'done') {
      return {};
    }
    return { refusal: reply.text === '' ? errnoName(reply.errno) : reply.text };
  } catch (error) {
    if (!(error instanceof WireError)) {
      throw error;
    }
    return { refusal: `the answer cannot be read: ${error.message}` };
  }
}
