// System calls on libuv's pool that bring their errno back. The C library leaves errno on the pool's thread, where nobody
// can read it afterwards; the kernel itself returns -errno, so these few instructions call the kernel. Used by ioctlAsync.
import koffi, { type KoffiFunc } from 'koffi';

/** `invoke(number, a, b, c)` gives the kernel's own result; `ioctl` is that call's number on this machine. */
export interface DirectSyscall {
  readonly invoke: KoffiFunc<
    (number: number, a: number | bigint, b: number | bigint, c: number | bigint) => number
  >;
  readonly ioctl: number;
}

interface Machine {
  readonly code: readonly number[];
  readonly ioctl: number;
}

const machines: Partial<Record<string, Machine>> = {
  // mov rax,rdi; mov rdi,rsi; mov rsi,rdx; mov rdx,rcx; syscall; ret
  x64: {
    code: [
      0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0x48, 0x89, 0xd6, 0x48, 0x89, 0xca, 0x0f, 0x05, 0xc3,
    ],
    ioctl: 16,
  },
  // mov x8,x0; mov x0,x1; mov x1,x2; mov x2,x3; svc #0; ret
  arm64: {
    code: [
      0xe8, 0x03, 0x00, 0xaa, 0xe0, 0x03, 0x01, 0xaa, 0xe1, 0x03, 0x02, 0xaa, 0xe2, 0x03, 0x03,
      0xaa, 0x01, 0x00, 0x00, 0xd4, 0xc0, 0x03, 0x5f, 0xd6,
    ],
    ioctl: 29,
  },
};

let isMade = false;
let made: DirectSyscall | undefined;

/** undefined on other machines and where `makeExecutable` cannot: the caller then makes the call on its own thread. */
export function directSyscall(
  makeExecutable: (code: readonly number[]) => bigint | undefined,
): DirectSyscall | undefined {
  if (isMade) {
    return made;
  }
  isMade = true;
  const machine = machines[process.arch];
  const address = machine === undefined ? undefined : makeExecutable(machine.code);
  if (machine === undefined || address === undefined) {
    return undefined;
  }
  const prototype = koffi.proto(
    'int64_t directSyscall(int64_t number, int64_t a, int64_t b, int64_t c)',
  );
  made = {
    invoke: koffi.decode(address, prototype) as DirectSyscall['invoke'],
    ioctl: machine.ioctl,
  };
  return made;
}
