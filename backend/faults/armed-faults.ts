// The faults that are armed for a device, on the device thread: what its functions ask, and what people add, list and clear.

import type { Clock, Timer } from '../../protocol/clock.ts';
import type { FaultStatus } from '../../protocol/hotplug/status.ts';
import type { Log } from '../../protocol/log.ts';
import type { FaultLanguage, FaultName, Faults, FiredFault, Occasion } from '../device/faults.ts';
import { ArmedRule } from './armed-rule.ts';
import { type FaultyDevice, insistOnFitness, insistOnKind, signalsByItself } from './fitness.ts';
import { parseRule, RuleError, type RuleProblem } from './parse-rule.ts';
import { COMMON_LANGUAGE, languageWith } from './spec.ts';

const MOST_RULES = 64;

/** What of a function is acted on, rather than asked for. */
export interface FaultyFunction {
  readonly name: string;
  /** Whether somebody would hear an interrupt. */
  hears(vector: number): boolean;
  /** Raises one that the device did not. */
  raiseSpurious(vector: number): void;
  /** Other vectors than before are withheld from the hardware. */
  withheldChanged(): void;
}

export interface ArmedFaultsOptions {
  readonly device: FaultyDevice;
  readonly clock: Clock;
  readonly log: Log;
  functions(): readonly FaultyFunction[];
}

interface Entry {
  readonly id: number;
  readonly armed: ArmedRule;
  timer?: Timer;
}

/** A function level reset that hangs, or takes longer, by which rule. */
interface HungReset {
  readonly entry: Entry;
  readonly function: string;
  readonly goOn: () => void;
  /** Of one that goes on by itself. */
  readonly timer?: Timer;
}

export class ArmedFaults implements Faults {
  readonly #options: ArmedFaultsOptions;
  readonly #language: FaultLanguage;
  #entries: readonly Entry[] = [];
  /** The same by name: most faults are never armed, and are asked for at every access. */
  readonly #byName = new Map<FaultName, readonly Entry[]>();
  #hung: readonly HungReset[] = [];
  #lastId = 0;

  constructor(options: ArmedFaultsOptions) {
    this.#options = options;
    const { faults } = options.device;
    this.#language = faults === undefined ? COMMON_LANGUAGE : languageWith(faults);
  }

  get status(): readonly FaultStatus[] {
    return this.#entries.map(({ id, armed }) => ({
      id,
      rule: armed.rule.text,
      fired: armed.fired,
    }));
  }

  /** Arms it, or says why not: it is no rule, or none for this device. */
  add(text: string): RuleProblem | undefined {
    try {
      this.#add(text);
      return undefined;
    } catch (error) {
      if (error instanceof RuleError) {
        return error;
      }
      throw error;
    }
  }

  #add(text: string): void {
    insistOnKind(text, this.#options.device);
    const rule = parseRule(text, this.#language);
    insistOnFitness(rule, this.#options.device);
    if (this.#entries.length >= MOST_RULES) {
      const what = `${MOST_RULES} faults are armed already`;
      throw new RuleError({ position: 0, what, fix: 'clear some' });
    }
    const entry: Entry = { id: ++this.#lastId, armed: new ArmedRule(rule) };
    this.#set([...this.#entries, entry]);
    this.#options.log.warn(`fault ${entry.id} is armed: ${text}`);
    if (rule.name === 'msix:spurious') {
      this.#raiseAgain(entry);
    }
    this.#withheldChanged([entry]);
  }

  /** All, or one; false where there is none of this ID. What hangs by it goes on. */
  clear(id?: number): boolean {
    const gone = this.#entries.filter((each) => id === undefined || each.id === id);
    this.#set(this.#entries.filter((each) => !gone.includes(each)));
    for (const { id: goneId, armed, timer } of gone) {
      timer?.cancel();
      this.#options.log.warn(`fault ${goneId} is cleared: ${armed.rule.text}`);
    }
    this.#release(({ entry }) => gone.includes(entry));
    this.#withheldChanged(gone);
    return gone.length > 0 || id === undefined;
  }

  fires(name: FaultName, occasion: Occasion): FiredFault | undefined {
    const entry = this.#firing(name, occasion);
    return entry && { rule: entry.armed.rule.text, value: entry.armed.rule.value };
  }

  lasts(name: FaultName, occasion: Occasion): boolean {
    return this.#byName.get(name)?.some(({ armed }) => armed.lasts(occasion)) === true;
  }

  withholds(occasion: Occasion): boolean {
    if (!signalsByItself(this.#options.device.kind)) {
      return false;
    }
    const entry = this.#byName.get('msix:lost')?.find(({ armed }) => armed.concerns(occasion));
    entry?.armed.fire();
    return entry !== undefined;
  }

  delayReset(occasion: Occasion, goOn: () => void): void {
    const hanging = this.#firing('flr:hang', occasion);
    if (hanging !== undefined) {
      this.#hung = [...this.#hung, { entry: hanging, function: occasion.function, goOn }];
      return;
    }
    const delaying = this.#firing('flr:delay', occasion);
    if (delaying === undefined) {
      goOn();
      return;
    }
    const { value } = delaying.armed.rule;
    const timer = this.#options.clock.after(value, () => this.#release((each) => each === hung));
    const hung: HungReset = { entry: delaying, function: occasion.function, goOn, timer };
    this.#hung = [...this.#hung, hung];
  }

  deviceReset(name: string): void {
    this.#release((hung) => hung.function === name);
  }

  /** Every rule counts the occasion; the first that fires is the one. */
  #firing(name: FaultName, occasion: Occasion): Entry | undefined {
    let found: Entry | undefined;
    for (const entry of this.#byName.get(name) ?? []) {
      const wasLasting = entry.armed.lasts(occasion);
      if (entry.armed.meets(occasion)) {
        found ??= entry;
        if (!wasLasting) {
          this.#options.log.info(`${occasion.function}: fault ${entry.id} fires`, {
            rule: entry.armed.rule.text,
          });
        }
      }
    }
    return found;
  }

  #set(entries: readonly Entry[]): void {
    this.#entries = entries;
    this.#byName.clear();
    for (const entry of entries) {
      const { name } = entry.armed.rule;
      this.#byName.set(name, [...(this.#byName.get(name) ?? []), entry]);
    }
  }

  #release(isMeant: (hung: HungReset) => boolean): void {
    const going = this.#hung.filter(isMeant);
    this.#hung = this.#hung.filter((hung) => !going.includes(hung));
    for (const { goOn, timer } of going) {
      timer?.cancel();
      goOn();
    }
  }

  /** Its occasions are moments at which somebody would hear it. */
  #raiseAgain(entry: Entry): void {
    const { rule } = entry.armed;
    entry.timer = this.#options.clock.after(rule.value, () => {
      const { vector = 0 } = rule.conditions;
      for (const each of this.#options.functions()) {
        if (each.hears(vector) && entry.armed.meets({ function: each.name, vector })) {
          each.raiseSpurious(vector);
        }
      }
      this.#raiseAgain(entry);
    });
  }

  #withheldChanged(changed: readonly Entry[]): void {
    const isAny = changed.some(({ armed }) => armed.rule.name === 'msix:lost');
    if (isAny && signalsByItself(this.#options.device.kind)) {
      for (const each of this.#options.functions()) {
        each.withheldChanged();
      }
    }
  }
}
