// Start-up of a physical device: checks the host, removes what a killed predecessor left, opens the PF with a fresh VF
// token, and looks at one VF to know what they are like. Every refusal names its cause and its fix.
// Called by `serve --pf` and `probe`.

import { randomUUID } from 'node:crypto';
import { totalmem } from 'node:os';
import type { Clock } from '../../../protocol/clock.ts';
import { Errno } from '../../../protocol/errno.ts';
import type { Log } from '../../../protocol/log.ts';
import {
  type FunctionShape,
  HostError,
  LINUX_MAKING_MILLISECONDS,
  PF_INDEX,
} from '../../device/physical-device.ts';
import { insistOnIds, readProfile } from '../device-profile.ts';
import { type ContainerMode, DmaDirector } from './dma/dma-director.ts';
import { readMemlockLimit } from './dma/dma-limits.ts';
import { PinnedMemory } from './dma/pinned-memory.ts';
import type { HostContext } from './host-context.ts';
import { HostState } from './host-state.ts';
import { linuxContext } from './linux-context.ts';
import { insist } from './readiness/requirements.ts';
import { PciFunctionFolder } from './sysfs.ts';
import { VfioContainer } from './vfio/container.ts';
import { openFunction } from './vfio/open-function.ts';
import type { NumVfs } from './vfs/numvfs-writer.ts';
import { sriovFacts, vfBarsOf } from './vfs/sriov-resources.ts';
import { VfHost } from './vfs/vf-host.ts';
import { VfSet } from './vfs/vf-set.ts';

export interface OpenVfioOptions {
  /** As `0000:01:00.0`. */
  readonly pf: string;
  readonly container: ContainerMode;
  /** A file that `probe` wrote. */
  readonly profile?: string;
  /** Offers the VM no more VFs than this, where the card has more. */
  readonly mostVfs?: number;
  /** Bytes of guest memory that may be pinned; unless told otherwise, as many as the host has. */
  readonly mostGuestMemory?: number;
  /** The folder of the sockets of root's processes (`privileged`), where this user may not do all itself. */
  readonly privileged?: string;
  readonly log: Log;
}

/** Threads in which Node waits for the kernel, unless its environment says otherwise; one of them polls eventfds. */
const NODE_THREADS = 4;
const BUSY_THREADS = 1;

/** Opens the PF and everything around it. Leaves nothing behind when it fails. @throws HostError */
export async function openVfioDevice(options: OpenVfioOptions, clock: Clock): Promise<VfHost> {
  const context = linuxContext(options.log, clock, options.privileged);
  const device = await openDeviceIn(context, options);
  const atOnce = Number(process.env.UV_THREADPOOL_SIZE ?? NODE_THREADS) - BUSY_THREADS;
  if (atOnce < device.description.totalVfs) {
    const message = `VFs are opened and closed ${atOnce} at a time, 0.1 s each: Node has that many threads for it`;
    options.log.info(message, { fix: 'start with UV_THREADPOOL_SIZE=32 in the environment' });
  }
  return device;
}

/** As openVfioDevice, on any host. */
export async function openDeviceIn(
  context: HostContext,
  options: OpenVfioOptions,
): Promise<VfHost> {
  const pf = new PciFunctionFolder(context.folders.sysfs, options.pf);
  const group = insist(context.folders.sysfs, pf.bdf, 'serve');
  const state = new HostState(context.folders.state, pf.bdf);
  const unlock = state.lock();
  // What must be undone when a later step fails, last first.
  const undo: (() => Promise<void> | void)[] = [unlock];
  try {
    // Before the first VFIO file: these processes must never inherit one.
    const numVfs = context.startWriter(pf.attributePath('sriov_numvfs'));
    undo.push(() => numVfs.close());
    const mapper = context.startMapper();
    undo.push(() => mapper.close());
    const { clock } = context;
    const { dev, proc } = context.folders;
    const memlock = readMemlockLimit(proc);
    const pinned = new PinnedMemory(
      BigInt(options.mostGuestMemory ?? totalmem()),
      context.calls.fileIdentity,
    );
    const dma = new DmaDirector(context, options.container, () =>
      VfioContainer.open(context.calls, { dev, memlock, mapper, pinned, clock }),
    );
    const token = randomUUID();
    const releaseRequests = { notify: (_index: number) => {} };
    let tellPfWanted = () => {};
    const pfWanted = new Promise<void>((resolve) => {
      tellPfWanted = resolve;
    });
    const vfs = new VfSet(context, {
      pf,
      token,
      numVfs,
      state,
      dma,
      onReleaseRequested: (vfIndex) => releaseRequests.notify(vfIndex),
      pfWanted,
    });
    await removeLeftovers(context, pf, numVfs, state, vfs);

    const container = await dma.containerFor(PF_INDEX);
    undo.push(() => dma.functionClosed(PF_INDEX));
    const openPf = await openFunction(context, {
      index: PF_INDEX,
      bdf: pf.bdf,
      group,
      token,
      container,
      isNew: false,
      onReleaseRequested: () => {
        tellPfWanted();
        releaseRequests.notify(PF_INDEX);
      },
    });
    undo.push(() => openPf.close());

    const { shape } = openPf.opened;
    const facts = sriovFacts(shape.config, pf.bdf);
    const vfBars = vfBarsOf(pf.resources(), facts.totalVfs, pf.bdf);
    const vf = await vfShape(vfs, options, shape);
    const letGo = () => {
      mapper.close();
      numVfs.close();
      unlock();
    };
    const totalVfs = Math.min(facts.totalVfs, options.mostVfs ?? facts.totalVfs);
    return new VfHost(context, {
      description: {
        name: pf.bdf,
        pf: shape,
        vf,
        vfBars,
        ...facts,
        totalVfs,
        leastMakingMilliseconds: LINUX_MAKING_MILLISECONDS,
      },
      pf: openPf,
      vfs,
      dma,
      releaseRequests,
      letGo,
    });
  } catch (error) {
    for (const step of undo.reverse()) {
      await step();
    }
    throw error;
  }
}

/** Removes the VFs that a killed predecessor left. @throws HostError when they are not ours, or are held. */
async function removeLeftovers(
  context: HostContext,
  pf: PciFunctionFolder,
  numVfs: NumVfs,
  state: HostState,
  vfs: VfSet,
): Promise<void> {
  const count = await numVfs.read();
  if (count === 0) {
    state.update({ enabledVfs: undefined });
    return;
  }
  // The lock says that whoever noted this does not live any more.
  if (state.read().enabledVfs === undefined) {
    throw new HostError(
      'read',
      Errno.EBUSY,
      pf.attributePath('sriov_numvfs'),
      `${count} VFs are enabled, and not by this program`,
      `if nobody needs them: echo 0 > ${pf.attributePath('sriov_numvfs')}`,
    );
  }
  await vfs.destroy();
  context.log.info('removed the VFs that a predecessor left', { count });
}

/** What a VF looks like: from the profile, or by enabling one for a moment. */
async function vfShape(
  vfs: VfSet,
  { profile, pf }: OpenVfioOptions,
  pfShape: FunctionShape,
): Promise<FunctionShape> {
  if (profile !== undefined) {
    const read = readProfile(profile, pf);
    insistOnIds(read, profile, pf, pfShape.config);
    return read.vf;
  }
  const [vf] = await vfs.create(1);
  const held = await vfs.release();
  if (held.length > 0) {
    throw new HostError(
      'open',
      Errno.EBUSY,
      pf,
      `the VF that was enabled to look at it was taken by ${held[0]!.holder}`,
      'end that process',
    );
  }
  await vfs.destroy();
  return vf!.opened.shape;
}
