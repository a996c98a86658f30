// How the glue reaches the config space of a guest's functions while the guest stands still. A machine has a PC's
// configuration ports (config-ports.ts), its config space as memory (ecam.ts), or both (q35-config.ts): guest-machine.ts
// finds out which.
import type { ConfigWrite } from './placement.ts';

/** All of it only while the guest stands still, and after `prepare`, unless it is said otherwise. */
export interface ConfigAccess {
  /** What is borrowed of the guest and must be given back before it runs: the value of a register. */
  readonly borrowed: number | undefined;
  /**
   * What can be read and written while the guest runs, and need not be prepared, where there is such a way: an access by it has no
   * state that the guest shares. Rejects with the errors of QMP.
   */
  whileRunning(): Promise<Config | undefined>;
  /** Looks at what the first access will change. */
  prepare(): Promise<void>;
  /** Does what an access does first, without any effect, also while the guest runs. */
  warmUp(): Promise<void>;
  /** Commands to QEMU that these writes take. */
  commandsFor(writes: readonly ConfigWrite[]): number;
  /** Carried out in order; gives the commands to QEMU that it took. Rejects where one fails. */
  write(writes: readonly ConfigWrite[]): Promise<number>;
  /** A dword. */
  read(routingId: number, register: number): Promise<number>;
  /** Rejects where that failed. */
  giveBack(): Promise<void>;
  /** An earlier glue has borrowed this. */
  inherit(borrowed: number | undefined): void;
  /** Nothing counts as borrowed any more. */
  forget(): void;
  close(): void;
}

/** Config space, for as long as a job takes. */
export type Config = Pick<ConfigAccess, 'read' | 'write'>;

/** Waits for the answers to all, however some of them end. Rejects where one did. */
export async function allCarriedOut(answers: readonly Promise<unknown>[]): Promise<void> {
  const settled = await Promise.allSettled(answers);
  const failure = settled.find(({ status }) => status === 'rejected');
  if (failure?.status === 'rejected') {
    throw failure.reason;
  }
}
