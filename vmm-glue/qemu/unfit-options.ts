// The options of QEMU that a launched QEMU cannot have, each with its reason and what to do; as data. Gone through with
// the list that QEMU 11.1's -help prints: what is not named here was found to work, or is QEMU's own to refuse.
import { UserError } from '../../protocol/user-error.ts';

interface UnfitOption {
  readonly why: string;
  readonly fix: string;
  /** Unfit with these values only. */
  readonly value?: RegExp;
}

const NO_VM: UnfitOption = {
  why: 'QEMU prints something and ends, without a VM',
  fix: 'run QEMU by itself for that',
};

const NO_MIGRATION = 'the state of a vfio-user device can neither be saved nor moved';

/** By name, without dashes. */
const UNFIT: Readonly<Record<string, UnfitOption>> = {
  daemonize: {
    why: 'QEMU would leave the launcher, which ends the backend when QEMU is gone',
    fix: 'leave it out, and run the launcher itself in the background',
  },
  preconfig: {
    why: 'QEMU waits for orders before it makes its devices, so the glue would find none',
    fix: 'leave it out; -S starts a guest paused',
  },
  incoming: { why: NO_MIGRATION, fix: 'leave it out and let the guest boot' },
  loadvm: { why: NO_MIGRATION, fix: 'leave it out and let the guest boot' },
  'only-migratable': { why: NO_MIGRATION, fix: 'leave it out' },
  icount: {
    why: 'what a device outside QEMU does is in no recording, so a replay goes another way',
    fix: 'leave out its rr=',
    value: /(^|,)rr=/,
  },
  'dump-vmstate': NO_VM,
  h: NO_VM,
  help: NO_VM,
  version: NO_VM,
};

/** Throws UserError where one of a command line's options is unfit. */
export function checkOptions(options: readonly { name: string; value: string }[]): void {
  for (const { name, value } of options) {
    const unfit = UNFIT[name];
    if (unfit !== undefined && (unfit.value?.test(value) ?? true)) {
      throw new UserError(`QEMU's option -${name}: ${unfit.why}`, unfit.fix);
    }
  }
}
