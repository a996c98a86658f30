// Carries out what the SR-IOV machine decides: effects strictly in order, and what comes of them back as events.
// Lives on the device thread; everything slow goes to the main thread through the HostLink.

import type { Clock, Timer } from '../../protocol/clock.ts';
import { UNMAP_TIMEOUT_MILLISECONDS } from '../../protocol/hotplug/timing.ts';
import type { Observers } from '../device/observer.ts';
import type { FunctionHandle, HeldVf, HostError, HostLink } from '../device/physical-device.ts';
import { step } from '../sriov/machine.ts';
import {
  type Effect,
  type Event,
  INITIAL,
  type Limits,
  type State,
  type TimerEvent,
  type UnplugReason,
} from '../sriov/states-and-events.ts';

/** Whoever plugs VFs into the VM: a VMM that knows the hot-plug extension, or the glue of one that does not. */
export interface HotplugPeer {
  readonly attached: boolean;
  /** Whether the VMM itself opens VFs (native hot-plug), so that one which does not answer may still hold them. */
  readonly holdsVfs: boolean;
  beginEnable(generation: number, count: number): void;
  /** The host is making these VFs: where they sit in slots, they can be placed. */
  place(generation: number, count: number): void;
  plug(generation: number, vfIndex: number): void;
  unplug(
    generation: number,
    vfIndex: number,
    deadlineMilliseconds: number,
    reason: UnplugReason,
  ): void;
  endEnable(generation: number, outcome: 'enabled' | 'failed', text: string): void;
}

/** The VFs as the guest sees them. */
export interface VfBank {
  /** Tells the host what the clients of the first `count` VFs have mapped by now, which it is to know when it opens them. */
  handMemoryToHost(count: number, done: (error?: Error) => void): void;
  /** The VFs are open: wires them up, or throws; `done` when they are. The guest does not see them before `activate`. */
  bringUp(handles: readonly FunctionHandle[], generation: number, done: () => void): void;
  activate(count: number): void;
  deactivate(): void;
  /** Forgets every open VF, before the host closes them; `unmapped` when no VMM maps them any more, as far as they say. */
  takeDown(unmapped: () => void): void;
}

export interface RunnerOptions {
  readonly host: HostLink;
  readonly peer: HotplugPeer;
  readonly vfs: VfBank;
  readonly limits: Limits;
  readonly clock: Clock;
  report(level: 'info' | 'warn' | 'error', text: string): void;
  /** Hears of each event before its effects are carried out, and of each effect. */
  readonly observers?: Observers;
  /** Called after every event that changed the phase. */
  phaseChanged?(state: State): void;
}

export class SriovRunner {
  #state: State = INITIAL;
  readonly #options: RunnerOptions;
  readonly #events: Event[] = [];
  #running = false;
  /** Every phase has one at most, which means nothing in another. */
  #timer: Timer | undefined;

  constructor(options: RunnerOptions) {
    this.#options = options;
  }

  get state(): State {
    return this.#state;
  }

  /** Events that effects cause are taken after the effects of the event at hand are all done. */
  dispatch(event: Event): void {
    this.#events.push(event);
    if (this.#running) {
      return;
    }
    this.#running = true;
    try {
      for (let next = this.#events.shift(); next !== undefined; next = this.#events.shift()) {
        this.#take(next);
      }
    } finally {
      this.#running = false;
    }
  }

  #take(event: Event): void {
    const before = this.#state.phase;
    const { state, effects } = step(this.#state, event, this.#options.limits);
    this.#state = state;
    this.#options.observers?.step(event, before, state.phase);
    if (before !== state.phase) {
      this.#timer?.cancel();
    }
    for (const effect of effects) {
      this.#options.observers?.effect(effect);
      this.#attempt(effect);
    }
    if (before !== state.phase) {
      this.#options.phaseChanged?.(state);
    }
  }

  /** An effect that throws (for want of fds, mostly) has failed: the machine hears of it, and goes on. */
  #attempt(effect: Effect): void {
    try {
      this.#perform(effect);
    } catch (error) {
      this.#failed(effect, error);
    }
  }

  #failed(effect: Effect, error: unknown): void {
    const text = textOf(error);
    this.#options.report('error', `${effect.type} failed: ${text}`);
    for (const event of failuresOf(effect, text)) {
      this.dispatch(event);
    }
  }

  #perform(effect: Effect): void {
    const { peer, vfs, host } = this.#options;
    switch (effect.type) {
      case 'beginEnable':
        peer.beginEnable(effect.generation, effect.count);
        break;
      case 'placeVfs':
        peer.place(effect.generation, effect.count);
        break;
      case 'endEnable':
        peer.endEnable(effect.generation, effect.outcome, effect.text);
        break;
      case 'createVfs':
        vfs.handMemoryToHost(effect.count, (error) => {
          if (error === undefined) {
            host.request('createVfs', [effect.count], (refusal, handles) =>
              this.#created(effect.generation, refusal, handles),
            );
          } else {
            this.#failed(effect, error);
          }
        });
        break;
      case 'plugVfs':
        this.#plug(effect.generation, effect.count);
        break;
      case 'activateVfs':
        vfs.activate(effect.count);
        break;
      case 'deactivateVfs':
        vfs.deactivate();
        break;
      case 'unplugVfs':
        this.#unplug(effect);
        break;
      case 'releaseVfs':
        this.#takeDown(() =>
          host.request('releaseVfs', [], (error, held) => this.#released(error, held)),
        );
        break;
      case 'destroyVfs':
        host.request('destroyVfs', [], (error) => this.#destroyed(error));
        break;
      case 'startTimer':
        this.#timer?.cancel();
        this.#timer = this.#options.clock.after(effect.milliseconds, () =>
          this.dispatch(timerEvent(effect.event, effect.generation, peer.holdsVfs)),
        );
        break;
      case 'report':
        this.#options.report(effect.level, effect.text);
        break;
      default:
        unreachable(effect);
    }
  }

  #created(
    generation: number,
    error: HostError | undefined,
    handles: readonly FunctionHandle[] | undefined,
  ): void {
    if (error !== undefined || handles === undefined) {
      this.dispatch({ type: 'createFailed', text: error?.message ?? 'no VFs came back' });
      return;
    }
    try {
      this.#options.vfs.bringUp(handles, generation, () => this.dispatch({ type: 'vfsCreated' }));
    } catch (fault) {
      this.dispatch({ type: 'bringUpFailed', text: textOf(fault) });
    }
  }

  #plug(generation: number, count: number): void {
    const { peer, vfs } = this.#options;
    // A VMM that attaches VFs itself reads their config space before it answers; a slot must not be seen half-placed.
    if (peer.holdsVfs) {
      vfs.activate(count);
    }
    for (let index = 0; index < count; index++) {
      try {
        peer.plug(generation, index);
      } catch (error) {
        const refusal = textOf(error);
        this.dispatch({ type: 'plugAnswered', vfIndex: index, generation, refusal });
      }
    }
    if (!peer.attached) {
      this.dispatch({ type: 'peerDetached' });
    }
  }

  #unplug(effect: Extract<Effect, { type: 'unplugVfs' }>): void {
    const { peer } = this.#options;
    for (const index of effect.vfIndexes) {
      peer.unplug(effect.generation, index, effect.deadlineMilliseconds, effect.reason);
    }
    if (!peer.attached) {
      this.dispatch({ type: 'peerDetached' });
    }
  }

  /** Goes on without a VMM that does not answer: whether it still holds VFs is for the host to find out. */
  #takeDown(goOn: () => void): void {
    const { vfs, clock, report } = this.#options;
    let isOver = false;
    let patience: Timer | undefined;
    const end = (): void => {
      if (!isOver) {
        isOver = true;
        patience?.cancel();
        goOn();
      }
    };
    vfs.takeDown(end);
    if (!isOver) {
      patience = clock.after(UNMAP_TIMEOUT_MILLISECONDS, () => {
        report('warn', `a VMM has not unmapped its VFs within ${UNMAP_TIMEOUT_MILLISECONDS} ms`);
        end();
      });
    }
  }

  #destroyed(error: HostError | undefined): void {
    if (error === undefined) {
      this.dispatch({ type: 'vfsDestroyed' });
    } else {
      this.dispatch({ type: 'destroyFailed', text: error.message });
    }
  }

  #released(error: HostError | undefined, held: readonly HeldVf[] | undefined): void {
    if (error !== undefined) {
      this.dispatch({
        type: 'vfsReleased',
        held: [{ vfIndex: 0, holder: `the host: ${error.message}` }],
      });
      return;
    }
    this.dispatch({ type: 'vfsReleased', held: held ?? [] });
  }
}

/** What an effect that failed amounts to. Those that only tell somebody something change nothing. */
function failuresOf(effect: Effect, text: string): readonly Event[] {
  switch (effect.type) {
    case 'createVfs':
      return [{ type: 'createFailed', text }];
    case 'beginEnable':
    case 'placeVfs':
    case 'plugVfs':
      return [{ type: 'plugAnswered', vfIndex: 0, generation: effect.generation, refusal: text }];
    case 'activateVfs':
      return [{ type: 'vfLost', vfIndex: 0 }];
    case 'unplugVfs':
      return effect.vfIndexes.map((vfIndex) => ({
        type: 'unplugAnswered',
        vfIndex,
        generation: effect.generation,
        refusal: text,
      }));
    case 'releaseVfs':
      return [{ type: 'vfsReleased', held: [{ vfIndex: 0, holder: `the host: ${text}` }] }];
    case 'destroyVfs':
      return [{ type: 'destroyFailed', text }];
    default:
      return [];
  }
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function timerEvent(type: TimerEvent, generation: number, vmmHolds: boolean): Event {
  return type === 'unplugDeadlinePassed' ? { type, generation, vmmHolds } : { type, generation };
}

function unreachable(effect: never): never {
  throw new Error(`no such effect: ${JSON.stringify(effect)}`);
}
