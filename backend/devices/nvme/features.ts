// The features of one controller, and what Get and Set Features answer.

import type { Command } from './spec/commands.ts';
import { CHANGEABLE, FEATURES, FeatureId, FeatureSelect } from './spec/features.ts';
import { Status } from './spec/status.ts';

const SAVE = 0x8000_0000;

/** Dword 0 of the completion is `result`. */
export interface FeatureAnswer {
  readonly status: Status;
  readonly result: number;
}

const answer = (result: number): FeatureAnswer => ({ status: Status.success, result });
const refusal = (status: Status): FeatureAnswer => ({ status, result: 0 });

export class Features {
  readonly #values = new Map<string, number>();
  readonly #ioQueues: number;
  readonly #vectors: number;

  constructor(ioQueues: number, vectors: number) {
    this.#ioQueues = ioQueues;
    this.#vectors = vectors;
  }

  /** As after a controller reset: nothing is saved. */
  reset(): void {
    this.#values.clear();
  }

  get({ dword10, dword11 }: Command): FeatureAnswer {
    const id = dword10 & 0xff;
    const select = (dword10 >>> 8) & 0x7;
    if (id === FeatureId.numberOfQueues) {
      return answer(select === FeatureSelect.capabilities ? CHANGEABLE : this.#queues());
    }
    const rule = FEATURES.get(id);
    if (rule === undefined || select > FeatureSelect.capabilities) {
      return refusal(Status.invalidField);
    }
    const index = dword11 & rule.index;
    if (id === FeatureId.interruptVectorConfiguration && index >= this.#vectors) {
      return refusal(Status.invalidField);
    }
    if (select === FeatureSelect.capabilities) {
      return answer(CHANGEABLE);
    }
    const initial = (rule.initial | index) >>> 0;
    if (select !== FeatureSelect.current) {
      return answer(initial);
    }
    return answer(this.#values.get(`${id}:${index}`) ?? initial);
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
    const index = dword11 & rule.index;
    const isNoVector =
      id === FeatureId.interruptVectorConfiguration && (dword11 & 0xffff) >= this.#vectors;
    const isNoPowerState = id === FeatureId.powerManagement && (dword11 & 0x1f) !== 0;
    if (isNoVector || isNoPowerState) {
      return refusal(Status.invalidField);
    }
    this.#values.set(`${id}:${index}`, (index | (dword11 & rule.writable)) >>> 0);
    return answer(0);
  }

  /** 0's based, completion queues in the upper half. */
  #queues(): number {
    return ((this.#ioQueues - 1) << 16) | (this.#ioQueues - 1);
  }

  #setQueues(wanted: number, hasIoQueues: boolean): FeatureAnswer {
    if ((wanted & 0xffff) === 0xffff || wanted >>> 16 === 0xffff) {
      return refusal(Status.invalidField);
    }
    return hasIoQueues ? refusal(Status.commandSequenceError) : answer(this.#queues());
  }
}
