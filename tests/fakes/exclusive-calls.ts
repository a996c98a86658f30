// Linux's calls, with files that are open once, as VFIO's groups are: the lock on one is its open file's, so that whoever has a
// copy of the fd keeps it open, and so does a message that has it and that nobody has read.
import { type KernelCalls, linuxCalls } from '../../backend/devices/vfio/vfio/kernel-calls.ts';
import { Errno } from '../../protocol/errno.ts';
import { isLockedByAnother } from '../../protocol/unix/flock.ts';

export function exclusiveCalls(): KernelCalls {
  const calls = linuxCalls();
  return {
    ...calls,
    async open(path) {
      const fd = await calls.open(path);
      if (fd < 0 || !isLockedByAnother(fd)) {
        return fd;
      }
      await calls.close(fd);
      return -Errno.EBUSY;
    },
  };
}
