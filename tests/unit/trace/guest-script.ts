// A driver's doings as a trace: each call adds an event, `after` lets time pass.

import { configMap } from '../../../backend/pci/register-map.ts';
import type { NoteKind, TraceEvent } from '../../../protocol/trace/events.ts';
import { IrqIndex } from '../../../protocol/vfio-user/commands.ts';
import { type Explanation, Judgement } from '../../../vmm-glue/trace/explain/judgement.ts';
import { configOf } from '../../../vmm-glue/trace/reading/naming.ts';
import { DESCRIPTION } from './ring.ts';

const PF = configMap(configOf(DESCRIPTION.pf), 'pf');
const VF = configMap(configOf(DESCRIPTION.vf), 'vf');
const MSIX_TABLE = 0x1000;
/** CLOCK_MONOTONIC when it began. */
export const STARTED = 5_000_000_000;

export class GuestScript {
  readonly events: TraceEvent[] = [];
  #time = 0;

  constructor(mode: 'glue' | 'vmm' | 'none' = 'vmm') {
    if (mode !== 'none') {
      this.note('session', { what: 'agreed', role: 'device', hotplug: { role: mode } });
    }
  }

  /** Milliseconds pass. */
  after(milliseconds: number): this {
    this.#time += milliseconds * 1e6;
    return this;
  }

  write(name: string, value: number, functionName = 'pf'): this {
    return this.#access(functionName, name, true, value);
  }

  read(name: string, value: number, functionName = 'pf'): this {
    return this.#access(functionName, name, false, value);
  }

  /** A read of a VF that any driver does. */
  useVf(index: number): this {
    return this.read('Command', 0, `vf${index}`);
  }

  /** Guest memory of a VF is not involved: a write to its vector table. */
  unmaskVector(functionName: string): this {
    this.#push(functionName, 0, MSIX_TABLE + 0x0c, true, 0, 4);
    return this;
  }

  /** The VMM binds eventfds to MSI-X vectors. */
  bindVectors(functionName: string): this {
    const request = { index: IrqIndex.msix, start: 0, count: 1, flags: 0x24, fds: 1 };
    const common = { time: this.#time, function: functionName, isFailure: false };
    this.events.push({ kind: 'setIrqs', ...common, ...request });
    return this;
  }

  note(kind: NoteKind, detail: Record<string, unknown>, functionName = ''): this {
    this.events.push({ kind, time: this.#time, function: functionName, isFailure: false, detail });
    return this;
  }

  phase(before: string, after: string): this {
    return this.note('step', { before, after, event: {} });
  }

  reset(functionName: string, kind: 'device' | 'function'): this {
    return this.note('reset', { kind }, functionName);
  }

  /** QEMU resets a function, on a host that takes so many milliseconds for each access of its. */
  qemuReset(functionName: string, milliseconds: number, { wasAsleep = false } = {}): this {
    this.read('Interrupt Pin', 0, functionName).after(milliseconds);
    this.read('Command', 0, functionName).after(milliseconds);
    this.write('Command', 0, functionName).after(milliseconds);
    this.read('PM Control Status', wasAsleep ? 3 : 0, functionName).after(milliseconds);
    if (wasAsleep) {
      this.write('PM Control Status', 0, functionName).after(milliseconds);
      this.read('PM Control Status', 0, functionName).after(milliseconds);
    }
    this.reset(functionName, 'device').after(milliseconds);
    this.read('Interrupt Pin', 0, functionName).after(milliseconds);
    for (let bar = 0; bar < 6; bar++) {
      this.write(`BAR ${bar}`, 0, functionName).after(milliseconds);
    }
    return this;
  }

  /** The answer to the last access came only now. */
  answered(milliseconds: number): this {
    this.events.push({
      kind: 'answer',
      time: this.#time,
      function: 'pf',
      isFailure: false,
      of: 'access',
      waited: milliseconds * 1e6,
      errno: 0,
    });
    return this;
  }

  /** The glue's doing, stamped by its own clock. */
  glue(what: 'stop' | 'cont'): this {
    return this.note('glue', { what, at: (STARTED + this.#time) / 1e6 });
  }

  /** NumVFs, VF Enable and the wait, as a driver does it right. */
  enable(numVfs = 2): this {
    return this.write('SR-IOV NumVFs', numVfs)
      .write('SR-IOV Control', 0x19)
      .phase('disabled', 'creating')
      .after(5)
      .phase('creating', 'enabled')
      .after(100);
  }

  disable(): this {
    return this.write('SR-IOV Control', 0x10).phase('enabled', 'unplugging');
  }

  /** The ids of the rules that it breaks. */
  findings(): string[] {
    return explain(this.events).findings.map(({ rule }) => rule);
  }

  #access(functionName: string, name: string, isWrite: boolean, value: number): this {
    const { offset, register } = (functionName === 'pf' ? PF : VF).registers.find(
      (each) => each.name === name,
    )!;
    this.#push(functionName, 7, offset, isWrite, value, register.bytes);
    return this.after(0.1);
  }

  #push(
    functionName: string,
    region: number,
    offset: number,
    isWrite: boolean,
    value: number,
    bytes: number,
  ): void {
    const data = new Uint8Array(4);
    new DataView(data.buffer).setUint32(0, value, true);
    this.events.push({
      kind: 'access',
      time: this.#time,
      function: functionName,
      isFailure: false,
      isWrite,
      region,
      offset,
      length: bytes,
      data: data.slice(0, bytes),
      took: 0,
    });
  }
}

/** What is judged of all events of a trace. */
export function explain(events: readonly TraceEvent[], description = DESCRIPTION): Explanation {
  const judgement = seen(events, description);
  judgement.end();
  return judgement.explanation;
}

/** A trace so far. */
export function seen(events: readonly TraceEvent[], description = DESCRIPTION): Judgement {
  const judgement = new Judgement(description, STARTED);
  for (const event of events) {
    judgement.see(event);
  }
  return judgement;
}
