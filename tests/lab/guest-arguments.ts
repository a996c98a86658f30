// The QEMU arguments that every guest of the lab shares: software emulation unless told otherwise, shared memory, no
// default devices.
import type { Processor } from './lab.ts';

/**
 * Paravirtual EOI off, because a software-emulated host may deliver an interrupt that KVM has injected twice, up to the
 * guest's next exit; that way an exit comes before the handler's work. See tests/nested/README.md.
 */
const KVM_CPU = 'host,kvm-pv-eoi=off';

/** What differs from guest to guest. */
export interface GuestArgumentOptions {
  /** With `initrd`, what QEMU boots; without them, the firmware boots what it finds on a disk. */
  readonly kernel?: string;
  readonly initrd?: string;
  /** x86_64 by default. */
  readonly processor?: Processor;
  readonly memoryMegabytes?: number;
  /** 1 by default. */
  readonly cpus?: number;
  /** Its memory is in pages of 2 MiB, which the host must have. */
  readonly hugePages?: boolean;
  /** 'kvm' for a guest inside a virtual host, where the software emulation of the outer VM offers it. */
  readonly accelerator?: 'tcg' | 'kvm';
  /** More machine properties: 'kernel-irqchip=split'. */
  readonly machineProperties?: readonly string[];
  /** More kernel parameters. */
  readonly append?: readonly string[];
}

/**
 * Page tables of four levels, because a guest's guest walks two of them at once. Memory is not cleared and copied by instructions
 * for bytes, which are emulated one by one: that takes three times as long.
 */
const EMULATED_CPU = 'max,la57=off,erms=off,fsrm=off';

const MACHINES = {
  x86_64: {
    machine: ['q35'],
    cpu: EMULATED_CPU,
    // Linux's test of its timer ends in a panic where the machine around the VM is too busy for ticks.
    parameters: ['console=ttyS0', 'no_timer_check'],
  },
  // A processor without pointer authentication, which is slow to emulate; a GIC that takes MSIs.
  aarch64: {
    machine: ['virt', 'gic-version=3'],
    cpu: 'cortex-a57',
    parameters: ['console=ttyAMA0'],
  },
} as const;

/** What every guest's kernel is told, and `more`. */
export function kernelParameters(
  more: readonly string[] = [],
  processor: Processor = 'x86_64',
): string {
  return [...MACHINES[processor].parameters, 'quiet', ...more].join(' ');
}

/** QEMU arguments for a guest, in a q35 or the virt of its processor; add devices behind them. */
export function guestArguments(options: GuestArgumentOptions): string[] {
  const size = `${options.memoryMegabytes ?? 256}M`;
  const pages = options.hugePages === true ? ',hugetlb=on,hugetlbsize=2M' : '';
  const accelerator = options.accelerator ?? 'tcg';
  const { processor = 'x86_64' } = options;
  const { cpu, ...kind } = MACHINES[processor];
  const machine = [...kind.machine, 'memory-backend=ram0', ...(options.machineProperties ?? [])];
  const { kernel, initrd } = options;
  const boot =
    kernel === undefined || initrd === undefined
      ? []
      : [
          '-kernel',
          kernel,
          '-initrd',
          initrd,
          '-append',
          kernelParameters(options.append, processor),
        ];
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none'],
    ...['-accel', accelerator, '-cpu', accelerator === 'kvm' ? KVM_CPU : cpu],
    ...['-smp', String(options.cpus ?? 1)],
    // A device in another process reaches the guest's memory only if it is shared.
    ...['-object', `memory-backend-memfd,id=ram0,size=${size},share=on${pages}`],
    ...['-machine', machine.join(',')],
    ...boot,
  ];
}
