// What a model holds of its function: services that it may take apart, pass on and keep, for it is somebody else's code.

import type { FunctionPort } from './declaration.ts';
import type { GuestMemory } from './guest-memory.ts';
import type { ModelServices } from './model-services.ts';

/** Functions of its own, so that each works without the object; the getter is shared, or V8 makes a dictionary of each object. */
export class ModelPort implements FunctionPort {
  readonly index: number;
  readonly generation: number;
  readonly vectors: number;
  readonly memory: GuestMemory;
  readonly block: FunctionPort['block'];
  readonly readRam: FunctionPort['readRam'];
  readonly writeRam: FunctionPort['writeRam'];
  readonly raise: FunctionPort['raise'];
  readonly driveIntx: FunctionPort['driveIntx'];
  readonly after: FunctionPort['after'];
  readonly work: FunctionPort['work'];
  readonly log: FunctionPort['log'];
  /** What `busMasterEnable` asks, also where that is reached through another object. */
  protected readonly isMaster: () => boolean;

  constructor(index: number, generation: number, services: ModelServices) {
    const { wires } = services;
    const isMaster = (): boolean => services.isMaster();
    this.index = index;
    this.generation = generation;
    this.vectors = services.vectors;
    this.memory = {
      read: (address, into) => isMaster() && wires.readMemory(address, into),
      write: (address, from) => isMaster() && wires.writeMemory(address, from),
      moveFile: (file, segments, way) => isMaster() && wires.moveFile?.(file, segments, way),
    };
    this.block = (table, events) => services.block(table, events);
    this.readRam = (bar, offset, into) => services.readRam(bar, offset, into);
    this.writeRam = (bar, offset, from) => services.writeRam(bar, offset, from);
    this.raise = (vector) => services.raise(vector);
    this.driveIntx = (asserted) => services.driveIntx(asserted);
    this.after = (milliseconds, callback) => services.after(milliseconds, callback);
    this.work = (step) => services.work(step);
    this.log = (level, message) => services.log(level, message);
    this.isMaster = isMaster;
  }

  get busMasterEnable(): boolean {
    return this.isMaster();
  }
}
