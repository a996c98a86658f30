// Node's own calls on files, with what the kernel refuses in the form of all calls here.
import { ErrnoNumber } from './libc.ts';
import { SyscallError } from './syscall-error.ts';

/** `fixes`: what helps, by the errno's name. @throws SyscallError */
export function onFile<T>(
  call: string,
  path: string,
  perform: () => T,
  fixes: Readonly<Record<string, string>> = {},
): T {
  try {
    return perform();
  } catch (error) {
    const { errno = -ErrnoNumber.EIO, code = '' } = error as NodeJS.ErrnoException;
    throw new SyscallError(call, -errno, path, fixes[code]);
  }
}
