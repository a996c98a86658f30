// The features of one controller, and what Get and Set Features answer.

import type { Command } from './spec/commands.ts';
import {
  CHANGEABLE,
  FEATURES,
  FeatureId,
  type FeatureRule,
  FeatureSelect,
  TemperatureSelect,
} from './spec/features.ts';
import { Status } from './spec/status.ts';

const SAVE = 0x8000_0000;

/** Dword 0 of the completion is `result`. */
export interface FeatureAnswer {
  readonly status: Status;
  readonly result: number;
}

const answer = (result: number): FeatureAnswer => ({ status: Status.success, result });
const refusal = (status: Status): FeatureAnswer => ({ status, result: 0 });

/** What a controller has just now: a VF's is dealt to it. */
export interface ControllerLimits {
  /** Queue pairs without the admin queue's. */
  readonly ioQueues: number;
  readonly vectors: number;
}

export class Features {
  readonly #values = new Map<string, number>();
  readonly #limits: ControllerLimits;

  constructor(limits: ControllerLimits) {
    this.#limits = limits;
  }

  /** The volatile write cache is off: what is written is on the disk before its command completes. */
  get writesThrough(): boolean {
    return this.#values.get(`${FeatureId.volatileWriteCache}:0`) === 0;
  }

  /** As after a controller reset: nothing is saved. */
  reset(): void {
    this.#values.clear();
  }

  get({ dword10, dword11 }: Command): FeatureAnswer {
    const id = dword10 & 0xff;
    const select = (dword10 >>> 8) & 0x7;
    if (select > FeatureSelect.capabilities) {
      return refusal(Status.invalidField);
    }
    if (id === FeatureId.numberOfQueues) {
      return answer(select === FeatureSelect.capabilities ? CHANGEABLE : this.#queues());
    }
    const rule = FEATURES.get(id);
    const index = rule === undefined ? 0 : dword11 & rule.index;
    if (rule === undefined || !this.#hasValue(id, index)) {
      return refusal(Status.invalidField);
    }
    if (select === FeatureSelect.capabilities) {
      return answer(CHANGEABLE);
    }
    const current =
      select === FeatureSelect.current ? this.#values.get(`${id}:${index}`) : undefined;
    return answer(current ?? (initialOf(rule, index) | index) >>> 0);
  }

  /** `hasIoQueues`: the number of queues cannot be changed any more. */
  set({ dword10, dword11 }: Command, hasIoQueues: boolean): FeatureAnswer {
    const id = dword10 & 0xff;
    if ((dword10 & SAVE) !== 0) {
      return refusal(Status.featureNotSaveable);
    }
    if (id === FeatureId.numberOfQueues) {
      return this.#setQueues(dword11, hasIoQueues);
    }
    const rule = FEATURES.get(id);
    if (rule === undefined) {
      return refusal(Status.invalidField);
    }
    const index = chosenOfAll(id, dword11 & rule.index);
    const isNoPowerState = id === FeatureId.powerManagement && (dword11 & 0x1f) !== 0;
    if (isNoPowerState || !this.#hasValue(id, index)) {
      return refusal(Status.invalidField);
    }
    this.#values.set(`${id}:${index}`, (index | (dword11 & rule.writable)) >>> 0);
    return answer(0);
  }

  /** Whether there is such a value of the feature. */
  #hasValue(id: number, index: number): boolean {
    switch (id) {
      case FeatureId.interruptVectorConfiguration:
        return index < this.#limits.vectors;
      case FeatureId.temperatureThreshold: {
        const { sensor, type } = temperatureOf(index);
        return sensor === TemperatureSelect.composite && type <= TemperatureSelect.under;
      }
      default:
        return true;
    }
  }

  /** 0's based, completion queues in the upper half. */
  #queues(): number {
    const most = this.#limits.ioQueues - 1;
    return (most << 16) | most;
  }

  #setQueues(wanted: number, hasIoQueues: boolean): FeatureAnswer {
    if ((wanted & 0xffff) === 0xffff || wanted >>> 16 === 0xffff) {
      return refusal(Status.invalidField);
    }
    return hasIoQueues ? refusal(Status.commandSequenceError) : answer(this.#queues());
  }
}

function temperatureOf(index: number): { sensor: number; type: number } {
  return { sensor: (index >>> 16) & 0xf, type: (index >>> 20) & 0x3 };
}

/** What is set of all sensors is set of the composite temperature: there is no other. */
function chosenOfAll(id: number, index: number): number {
  const isOfAll =
    id === FeatureId.temperatureThreshold && temperatureOf(index).sensor === TemperatureSelect.all;
  return isOfAll ? index & ~(TemperatureSelect.all << 16) : index;
}

function initialOf({ initial, initialOfOthers = initial }: FeatureRule, index: number): number {
  return index === 0 ? initial : initialOfOthers;
}
