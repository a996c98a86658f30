// One function held open through VFIO on the main thread: its fds, its address space, and the kernel's wish to have it
// back. Called by VfSet for VFs and by openVfioDevice for the PF.
import { errnoName } from '../../../../protocol/errno.ts';
import { IrqIndex } from '../../../../protocol/vfio-user/commands.ts';
import { IrqSet, IrqSetFlag } from '../../../../protocol/vfio-user/messages.ts';
import { HostError } from '../../../device/physical-device.ts';
import { VfioRequest } from './abi.ts';
import type { VfioContainer } from './container.ts';
import type { VfioHandle } from './function.ts';
import { checkAnswers, type OpenShape, readFunctionShape } from './function-shape.ts';
import { groupPath, type OpeningContext, openDevice, openGroup } from './group.ts';
import type { KernelCalls } from './kernel-calls.ts';

export interface OpenRequest {
  readonly index: number;
  readonly bdf: string;
  readonly group: string;
  /** UUID that the PF and its VFs are opened with. */
  readonly token: string;
  readonly container: VfioContainer;
  /** The function has just appeared: its group's file may still be on its way. */
  readonly isNew: boolean;
  /** What the function looks like, where that is known: reading 4 KiB of config space takes milliseconds. */
  readonly known?: OpenShape | undefined;
  /** Called when the kernel asks for the function back. */
  readonly onReleaseRequested: () => void;
}

/** A function that this process holds. `close` gives it back, and resolves when the kernel has reset it. */
export interface OpenFunction {
  readonly index: number;
  readonly bdf: string;
  readonly group: string;
  readonly container: VfioContainer;
  readonly deviceFd: number;
  readonly opened: OpenShape;
  close(): Promise<void>;
}

/** Opens a function of the group in the container. Leaves nothing open when it fails. @throws HostError */
export async function openFunction(
  context: OpeningContext,
  request: OpenRequest,
): Promise<OpenFunction> {
  const { calls, folders } = context;
  const { index, bdf, group, token, container, isNew } = request;
  const groupFd = await openGroup(context, { group, bdf, isNew });
  let deviceFd = -1;
  try {
    await container.attach(groupFd, groupPath(folders, group));
    deviceFd = await openDevice(context, groupFd, bdf, token);
    const opened = request.known ?? readFunctionShape(calls, deviceFd, bdf);
    if (request.known !== undefined) {
      checkAnswers(calls, deviceFd, bdf);
    }
    const stopWatching = watchReleaseRequests(calls, deviceFd, bdf, request.onReleaseRequested);
    const close = async () => {
      stopWatching();
      await calls.close(deviceFd);
      await calls.close(groupFd);
    };
    return { index, bdf, group, container, deviceFd, opened, close };
  } catch (error) {
    if (deviceFd >= 0) {
      await calls.close(deviceFd);
    }
    await calls.close(groupFd);
    throw error;
  }
}

/** What the device thread needs of an open function. */
export function handleOf({ index, deviceFd, opened }: OpenFunction): VfioHandle {
  const { shape, regionOffsets } = opened;
  return { index, deviceFd, regionOffsets, shape };
}

// Without this eventfd the kernel waits in silence for a function that it was told to remove.
function watchReleaseRequests(
  calls: KernelCalls,
  deviceFd: number,
  bdf: string,
  onReleaseRequested: () => void,
): () => void {
  const eventFd = calls.createEventFd();
  const argument = new Uint8Array(IrqSet.size + 4);
  const flags = IrqSetFlag.dataEventFd | IrqSetFlag.actionTrigger;
  IrqSet.encode(
    { argsz: argument.length, flags, index: IrqIndex.req, start: 0, count: 1 },
    argument,
  );
  new DataView(argument.buffer).setInt32(IrqSet.size, eventFd, true);
  const stopWatching = calls.watchEventFd(eventFd, onReleaseRequested);
  const result = calls.ioctl(deviceFd, VfioRequest.deviceSetIrqs, argument);
  if (result >= 0) {
    return stopWatching;
  }
  stopWatching();
  throw new HostError(
    'VFIO_DEVICE_SET_IRQS',
    -result,
    bdf,
    `its release request cannot be watched (${errnoName(-result)})`,
  );
}
