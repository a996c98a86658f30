// The VFs of one PF on the host: makes, verifies, opens, lets go of and removes them. Its promise: sriov_numvfs is never
// written while anybody holds a VF, for then the kernel would block, and nothing but a reboot ends that.
// Called by VfHost, one operation at a time, and by openVfioDevice for what a predecessor left.

import { every } from '../../../../protocol/clock.ts';
import { Errno } from '../../../../protocol/errno.ts';
import { askUntil } from '../../../../protocol/retry.ts';
import { type HeldVf, HostError } from '../../../device/physical-device.ts';
import type { DmaDirector } from '../dma/dma-director.ts';
import type { HostContext } from '../host-context.ts';
import type { HostState } from '../host-state.ts';
import { moduleParameter, type PciFunctionFolder } from '../sysfs.ts';
import type { OpenShape } from '../vfio/function-shape.ts';
import { isGroupHeld } from '../vfio/group.ts';
import { type OpenFunction, openFunction } from '../vfio/open-function.ts';
import { numVfsFailure } from './numvfs-failure.ts';
import type { NumVfs } from './numvfs-writer.ts';

/** How long a new VF may take to get its driver, and how often that is looked at. */
const BIND_PATIENCE_MILLISECONDS = 2_000;
const BIND_STEP_MILLISECONDS = 10;
/** How often is looked whether VFs have gone. */
const GONE_STEP_MILLISECONDS = 50;
/** What is only told is told so long after the VFs are there: a guest that stands still for them runs on first. */
const TELL_LATER_MILLISECONDS = 100;
/** After this long a log line says what is being waited for. */
const SLOW_WRITE_MILLISECONDS = 3_000;

export interface VfSetOptions {
  readonly pf: PciFunctionFolder;
  readonly token: string;
  readonly numVfs: NumVfs;
  readonly state: HostState;
  readonly dma: DmaDirector;
  readonly onReleaseRequested: (vfIndex: number) => void;
  /** Resolves when the kernel asks for the PF back. */
  readonly pfWanted: Promise<void>;
}

export class VfSet {
  readonly #context: HostContext;
  readonly #options: VfSetOptions;
  #open: OpenFunction[] = [];
  /** All VFs of a PF look alike: that of the first one that was opened. */
  #look: OpenShape | undefined;

  constructor(context: HostContext, options: VfSetOptions) {
    this.#context = context;
    this.#options = options;
  }

  /** The VFs that this process has open, by index. */
  get open(): readonly OpenFunction[] {
    return this.#open;
  }

  /** Whether the host has VFs of this PF. */
  exist(): boolean {
    return this.#options.pf.hasVirtualFunctions;
  }

  /** Makes `count` VFs and opens all of them, or leaves none behind. @throws HostError */
  async create(count: number): Promise<readonly OpenFunction[]> {
    const refused = this.#options.dma.failure();
    if (refused !== undefined) {
      throw refused;
    }
    // Those of an enable that failed while somebody held one.
    if (this.exist()) {
      await this.destroy();
    }
    this.#options.state.update({ enabledVfs: count });
    const { clock } = this.#context;
    const start = clock.now();
    try {
      await this.#write(count);
    } catch (error) {
      this.#options.state.update({ enabledVfs: undefined });
      throw error;
    }
    const written = clock.now();
    const bdfs = this.#options.pf.virtualFunctions();
    const results = await Promise.allSettled(bdfs.map((bdf, index) => this.#openVf(index, bdf)));
    this.#open = results.flatMap((result) => (result.status === 'fulfilled' ? result.value : []));
    const failure = results.find((result) => result.status === 'rejected');
    if (failure === undefined && bdfs.length === count) {
      const made = {
        count,
        numVfsMilliseconds: Math.round(written - start),
        openMilliseconds: Math.round(clock.now() - written),
      };
      const tell = (): void => this.#context.log.info('the host has made VFs', made);
      clock.after(TELL_LATER_MILLISECONDS, tell);
      return this.#open;
    }
    await this.#undo();
    throw failure?.reason ?? this.#missing(count, bdfs.length);
  }

  /** Closes every VF of this process, then tells which ones somebody else holds. */
  async release(): Promise<readonly HeldVf[]> {
    const open = this.#open;
    this.#open = [];
    // Each close is a reset of 0.1 s: all at once.
    await Promise.all(
      open.map(async (vf) => {
        await vf.close();
        await this.#options.dma.functionClosed(vf.index);
      }),
    );
    return this.held();
  }

  /** Which VFs somebody else holds; only after release. A live mapping counts as much as an open file. */
  async held(): Promise<readonly HeldVf[]> {
    const { calls, folders } = this.#context;
    const bdfs = this.#options.pf.virtualFunctions();
    const found = await Promise.all(
      bdfs.map(async (bdf, vfIndex) => {
        const group = this.#options.pf.sibling(bdf).iommuGroup;
        if (group === undefined || !(await isGroupHeld(calls, folders, group))) {
          return [];
        }
        return [{ vfIndex, holder: await this.#context.holderOf(group) }];
      }),
    );
    return found.flat();
  }

  /** Removes the VFs. @throws HostError EBUSY, without having touched anything, when one is held. */
  async destroy(): Promise<void> {
    if (this.#open.length > 0) {
      throw new Error('destroyVfs before releaseVfs: VFs are open here');
    }
    const held = await this.held();
    if (held.length > 0) {
      const who = held.map(({ vfIndex, holder }) => `VF ${vfIndex} by ${holder}`).join(', ');
      throw new HostError(
        'write',
        Errno.EBUSY,
        this.#options.pf.attributePath('sriov_numvfs'),
        `VFs stay: held are ${who}`,
        'end the process that holds them',
      );
    }
    await this.#write(0);
    this.#options.state.update({ enabledVfs: undefined });
  }

  async #openVf(index: number, bdf: string): Promise<OpenFunction> {
    const { pf, token, dma, onReleaseRequested } = this.#options;
    const vf = pf.sibling(bdf);
    const group = await this.#verify(vf);
    const container = await dma.containerFor(index);
    let open: OpenFunction | undefined;
    try {
      open = await openFunction(this.#context, {
        index,
        bdf,
        group,
        token,
        container,
        isNew: true,
        known: this.#look,
        onReleaseRequested: () => onReleaseRequested(index),
      });
      this.#look ??= open.opened;
      await dma.functionOpened(index);
      return open;
    } catch (error) {
      await open?.close();
      await dma.functionClosed(index);
      throw error;
    }
  }

  // Nothing is touched that is not a VF of our PF. Gives the VF's group.
  async #verify(vf: PciFunctionFolder): Promise<string> {
    const { pf } = this.#options;
    if (vf.physicalFunction !== pf.bdf) {
      throw new HostError(
        'readlink',
        Errno.ENODEV,
        vf.attributePath('physfn'),
        `${vf.bdf} is no VF of ${pf.bdf}`,
      );
    }
    // The kernel's vfio-pci captures the VFs of a PF that it drives; where it did not, we bind.
    if (!(await this.#hasVfioDriver(vf, 0))) {
      await this.#bind(vf);
      if (!(await this.#hasVfioDriver(vf, BIND_PATIENCE_MILLISECONDS))) {
        throw new HostError(
          'bind',
          Errno.ENODEV,
          vf.path,
          `VF ${vf.bdf} has the driver ${vf.driver ?? 'none'} instead of vfio-pci`,
          `echo vfio-pci > ${vf.attributePath('driver_override')} and bind it again`,
        );
      }
    }
    const group = vf.iommuGroup;
    const neighbours = vf.groupMembers().filter((bdf) => bdf !== vf.bdf);
    if (group === undefined || neighbours.length > 0) {
      throw new HostError(
        'readlink',
        Errno.EPERM,
        vf.attributePath('iommu_group'),
        group === undefined
          ? `VF ${vf.bdf} has no IOMMU group`
          : `VF ${vf.bdf} shares its IOMMU group ${group} with ${neighbours.join(', ')}`,
        group === undefined
          ? 'turn the IOMMU on'
          : 'put the card into a slot whose root port has ACS',
      );
    }
    return group;
  }

  #hasVfioDriver(vf: PciFunctionFolder, patienceMilliseconds: number): Promise<boolean> {
    return askUntil(
      () => vf.driver === 'vfio-pci',
      (bound) => bound,
      {
        clock: this.#context.clock,
        patienceMilliseconds,
        stepMilliseconds: BIND_STEP_MILLISECONDS,
      },
    );
  }

  async #bind(vf: PciFunctionFolder): Promise<void> {
    try {
      await this.#context.bindVf(vf);
    } catch (error) {
      this.#context.log.warn('a VF cannot be bound to vfio-pci', {
        vf: vf.bdf,
        error: String(error),
      });
    }
  }

  async #undo(): Promise<void> {
    const held = await this.release();
    if (held.length === 0) {
      await this.destroy();
      return;
    }
    this.#context.log.error('VFs stay on the host after a failed enable: they are held', {
      held,
    });
  }

  async #write(count: number): Promise<void> {
    const { pf, numVfs } = this.#options;
    const path = pf.attributePath('sriov_numvfs');
    const reminder = every(this.#context.clock, SLOW_WRITE_MILLISECONDS, () => {
      const message = 'the kernel has not finished writing sriov_numvfs yet';
      this.#context.log.warn(message, { path, count, fix: 'see dmesg' });
    });
    const errno = await Promise.race([numVfs.write(count), this.#outrunByUnbind(count)]);
    reminder.cancel();
    if (errno === 0) {
      return;
    }
    throw numVfsFailure(errno, count, {
      path,
      pf: pf.bdf,
      totalVfs: pf.numberOf('sriov_totalvfs') ?? 0,
      driver: pf.driver,
      enableSriov: moduleParameter(this.#context.folders.sysfs, 'vfio_pci', 'enable_sriov'),
    });
  }

  // Who unbinds the PF has the kernel remove its VFs, and then waits for us to close the PF. A write that came meanwhile
  // waits for that in turn: a 0 has nothing left to do, anything else is in vain.
  async #outrunByUnbind(count: number): Promise<number> {
    await this.#options.pfWanted;
    if (count !== 0) {
      return Errno.ECANCELED;
    }
    await askUntil(
      () => this.exist(),
      (exist) => !exist,
      {
        clock: this.#context.clock,
        patienceMilliseconds: Number.POSITIVE_INFINITY,
        stepMilliseconds: GONE_STEP_MILLISECONDS,
      },
    );
    return 0;
  }

  #missing(count: number, found: number): HostError {
    return new HostError(
      'readlink',
      Errno.EIO,
      this.#options.pf.path,
      `${count} VFs were asked for and ${found} appeared`,
      'see dmesg',
    );
  }
}
