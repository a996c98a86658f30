// SET_IRQS, DEVICE_RESET and DEVICE_FEATURE: what changes the function as a whole.

import { WireError } from '../../../protocol/errno.ts';
import { peerFileKind } from '../../../protocol/unix/peer-file.ts';
import {
  DeviceFeature,
  FeatureFlag,
  IrqSet,
  IrqSetFlag,
} from '../../../protocol/vfio-user/messages.ts';
import type { IrqRequest } from '../../device/physical-device.ts';
import type { Request } from '../handler.ts';
import type { Session } from '../session.ts';
import { answerWhenDone, EMPTY } from './replies.ts';

export function deviceSetIrqs(session: Session, request: Request): number {
  const { argsz, flags, index, start, count } = IrqSet.decode(request.body);
  if (argsz < IrqSet.size) {
    throw new WireError('EINVAL', `argsz is ${argsz}`, { call: 'DEVICE_SET_IRQS' });
  }
  const known = IrqSetFlag.dataGroup | IrqSetFlag.actionGroup;
  if (flags & ~known) {
    throw new WireError('EINVAL', `flags 0x${flags.toString(16)}`, { call: 'DEVICE_SET_IRQS' });
  }
  session.endpoint.function.irq(index);
  for (const fd of request.fds) {
    if (peerFileKind(fd) !== 'eventfd') {
      throw new WireError('EINVAL', 'an fd that is no eventfd', {
        call: 'DEVICE_SET_IRQS',
        path: `index ${index}`,
      });
    }
  }
  const irqs: IrqRequest = {
    index,
    start,
    count,
    flags,
    ...(flags & IrqSetFlag.dataBool
      ? { bools: [...request.body.subarray(IrqSet.size, IrqSet.size + count)].map(Boolean) }
      : {}),
    eventFds: request.takeFds(),
  };
  session.endpoint.function.setIrqs(irqs);
  return 0;
}

export function deviceReset(session: Session): number {
  warnOfPrivateMemory(session);
  return answerWhenDone(session, EMPTY, (done) => session.endpoint.function.reset(done));
}

/** QEMU resets a device when all of RAM is mapped and before the guest runs: the time to say that none can be reached. */
function warnOfPrivateMemory(session: Session): void {
  const { windows } = session.endpoint.function.memory;
  const isPf = session.endpoint.hotplug !== undefined;
  if (!isPf || session.warnedOfPrivateMemory || windows.size === 0 || windows.hasFiles) {
    return;
  }
  session.warnedOfPrivateMemory = true;
  session.log.warn(
    'the guest memory came without a file: no device can reach it, so DMA will not work. Start QEMU with ' +
      '-object memory-backend-memfd,id=ram0,size=…,share=on -machine memory-backend=ram0',
  );
}

/** No feature is offered: as Linux's VFIO says it, ENOTTY; EINVAL where the request itself makes no sense. */
export function deviceFeature(_session: Session, { body }: Request): number {
  const { argsz, flags } = DeviceFeature.decode(body);
  const actions = FeatureFlag.get | FeatureFlag.set | FeatureFlag.probe;
  if (argsz < DeviceFeature.size || (flags & actions) === 0 || flags & ~(actions | 0xffff)) {
    throw new WireError('EINVAL', `argsz ${argsz} flags 0x${flags.toString(16)}`, {
      call: 'DEVICE_FEATURE',
    });
  }
  throw new WireError('ENOTTY', `device feature ${flags & FeatureFlag.featureMask} is not offered`);
}
