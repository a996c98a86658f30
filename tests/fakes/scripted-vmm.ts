// Whoever plugs VFs into the VM, as a test wants it: obedient, silent, refusing, or with answers of its own choice.

import type { HotplugPeer } from '../../backend/hotplug/runner.ts';
import type { Event, UnplugReason } from '../../backend/sriov/states-and-events.ts';

export interface Announcement {
  readonly kind: 'begin' | 'plug' | 'unplug' | 'end';
  readonly generation: number;
  readonly vfIndex?: number;
  readonly count?: number;
  readonly reason?: UnplugReason;
  readonly outcome?: 'enabled' | 'failed';
  readonly text?: string;
}

export class ScriptedVmm implements HotplugPeer {
  attached = true;
  holdsVfs = true;
  /** Everything it was told, in order. */
  readonly told: Announcement[] = [];
  /** Called for each announcement, before the answer; a test gives VFs holders here. */
  onTold: (announcement: Announcement) => void = () => {};
  answersPlugs = true;
  answersUnplugs = true;
  readonly #tell: (event: Event) => void;

  constructor(tell: (event: Event) => void) {
    this.#tell = tell;
  }

  beginEnable(generation: number, count: number): void {
    this.#note({ kind: 'begin', generation, count });
  }

  place(): void {}

  plug(generation: number, vfIndex: number): void {
    this.#note({ kind: 'plug', generation, vfIndex });
    if (this.attached && this.answersPlugs) {
      this.answerPlug(vfIndex, generation);
    }
  }

  unplug(generation: number, vfIndex: number, _deadline: number, reason: UnplugReason): void {
    this.#note({ kind: 'unplug', generation, vfIndex, reason });
    if (this.attached && this.answersUnplugs) {
      this.answerUnplug(vfIndex, generation);
    }
  }

  endEnable(generation: number, outcome: 'enabled' | 'failed', text: string): void {
    this.#note({ kind: 'end', generation, outcome, text });
  }

  answerPlug(vfIndex: number, generation: number, refusal?: string): void {
    const how = refusal === undefined ? {} : { refusal };
    this.#tell({ type: 'plugAnswered', vfIndex, generation, ...how });
  }

  answerUnplug(vfIndex: number, generation: number, refusal?: string): void {
    const how = refusal === undefined ? {} : { refusal };
    this.#tell({ type: 'unplugAnswered', vfIndex, generation, ...how });
  }

  /** Its connection ends. */
  leave(): void {
    this.attached = false;
    this.#tell({ type: 'peerDetached' });
  }

  #note(announcement: Announcement): void {
    if (!this.attached) {
      return;
    }
    this.told.push(announcement);
    this.onTold(announcement);
  }
}
