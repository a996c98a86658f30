// The features of one controller, and what Get and Set Features answer.

import { Temperature } from './identify.ts';
import { ALL_NAMESPACES, NAMESPACE_ID } from './io-commands.ts';
import type { Command } from './spec/commands.ts';
import {
  CHANGEABLE,
  FEATURES,
  FeatureId,
  type FeatureRule,
  FeatureSelect,
  OF_NAMESPACE,
  TemperatureSelect,
} from './spec/features.ts';
import { CriticalWarning } from './spec/logs.ts';
import { Status } from './spec/status.ts';

const SAVE = 0x8000_0000;
/** Where THSEL is in Temperature Threshold. */
const TEMPERATURE_TYPE = 20;

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

  /** At the upper threshold or above it, or at the lower one or below. */
  get isTemperatureBeyond(): boolean {
    const [over, under] = [TemperatureSelect.over, TemperatureSelect.under].map(
      (type) => this.#current(FeatureId.temperatureThreshold, type << TEMPERATURE_TYPE) & 0xffff,
    );
    return Temperature.now >= over! || Temperature.now <= under!;
  }

  /** It is, and the host wants to be told. */
  get tellsOfTemperature(): boolean {
    const told = this.#current(FeatureId.asynchronousEventConfiguration, 0);
    return (told & CriticalWarning.temperature) !== 0 && this.isTemperatureBeyond;
  }

  get({ namespaceId, dword10, dword11 }: Command): FeatureAnswer {
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
    if (rule.isOfNamespace === true && namespaceId !== NAMESPACE_ID) {
      return refusal(Status.invalidNamespace);
    }
    if (select === FeatureSelect.capabilities) {
      return answer(CHANGEABLE | (rule.isOfNamespace === true ? OF_NAMESPACE : 0));
    }
    return answer(
      select === FeatureSelect.current ? this.#current(id, index) : initialOf(rule, index),
    );
  }

  /** Of a feature that has a rule, and an index that it has. */
  #current(id: number, index: number): number {
    return this.#values.get(`${id}:${index}`) ?? initialOf(FEATURES.get(id)!, index);
  }

  /** `hasIoQueues`: the number of queues cannot be changed any more. */
  set({ namespaceId, dword10, dword11 }: Command, hasIoQueues: boolean): FeatureAnswer {
    const id = dword10 & 0xff;
    if ((dword10 & SAVE) !== 0) {
      return refusal(Status.featureNotSaveable);
    }
    const rule = FEATURES.get(id);
    if (rule === undefined && id !== FeatureId.numberOfQueues) {
      return refusal(Status.invalidField);
    }
    const wrong = namespaceStatus(namespaceId, rule?.isOfNamespace === true);
    if (wrong !== Status.success) {
      return refusal(wrong);
    }
    if (rule === undefined) {
      return this.#setQueues(dword11, hasIoQueues);
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

/** A namespace's own feature is set of one or of all; another of none, or of all alike. */
function namespaceStatus(namespaceId: number, isOfNamespace: boolean): Status {
  switch (namespaceId) {
    case ALL_NAMESPACES:
      return Status.success;
    case NAMESPACE_ID:
      return isOfNamespace ? Status.success : Status.featureNotNamespaceSpecific;
    case 0:
      return isOfNamespace ? Status.invalidNamespace : Status.success;
    default:
      return Status.invalidNamespace;
  }
}

function temperatureOf(index: number): { sensor: number; type: number } {
  return { sensor: (index >>> 16) & 0xf, type: (index >>> TEMPERATURE_TYPE) & 0x3 };
}

/** What is set of all sensors is set of the composite temperature: there is no other. */
function chosenOfAll(id: number, index: number): number {
  const isOfAll =
    id === FeatureId.temperatureThreshold && temperatureOf(index).sensor === TemperatureSelect.all;
  return isOfAll ? index & ~(TemperatureSelect.all << 16) : index;
}

/** With the bits that choose it. */
function initialOf({ initial, initialOfOthers = initial }: FeatureRule, index: number): number {
  return ((index === 0 ? initial : initialOfOthers) | index) >>> 0;
}
