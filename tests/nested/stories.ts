// The stories: what each is about, which cards its host has, and how much of it is told by default and in full.
/** How the guest reaches VFs, as `--vf-memory` has it. */
export const VF_MEMORY = ['trapped', 'mapped'] as const;
export type VfMemory = (typeof VF_MEMORY)[number];

export interface Story {
  readonly name: string;
  readonly title: string;
  readonly cards: readonly string[];
  readonly memoryMegabytes: number;
  /** Rounds or points, where it has some. */
  readonly count: { readonly usual: number; readonly full: number };
  /** For one telling, in milliseconds; twice that where VFs are mapped, because a guest with an expander bus boots longer. */
  readonly limit: { readonly usual: number; readonly full: number };
  /** Told with these; the long form tells it with each. */
  readonly vfMemory: VfMemory;
  /** Whether it measures, and so is not told beside another. */
  readonly measures?: boolean;
}

const MINUTE = 60_000;
const NO_ROUNDS = { usual: 1, full: 1 };

/** An igb whose network has an echo service: what is sent to 10.0.2.100, port 7, comes back. */
function igb(index: number): string[] {
  const echo = 'guestfwd=tcp:10.0.2.100:7-cmd:cat';
  return [
    ...['-netdev', `user,id=net${index},restrict=on,${echo}`],
    ...[
      '-device',
      `pcie-root-port,id=rp${index},chassis=${index + 1},slot=${index + 1},addr=${index + 4}`,
    ],
    ...['-device', `igb,bus=rp${index},netdev=net${index},mac=52:54:00:12:34:5${index}`],
  ];
}

/** An NVMe controller with 4 VFs, whose queues and interrupts its PF may hand out; the disk is `FOLDER/nvme.img`. */
const NVME: readonly string[] = [
  ...['-drive', 'file=FOLDER/nvme.img,if=none,id=disk,format=raw'],
  ...['-device', 'pcie-root-port,id=rp0,chassis=1,slot=1,addr=4'],
  ...['-device', 'nvme-subsys,id=subsystem'],
  ...[
    '-device',
    'nvme,id=nvme,serial=S1,bus=rp0,subsys=subsystem,max_ioqpairs=10,msix_qsize=11,sriov_max_vfs=4,sriov_vq_flexible=8,sriov_vi_flexible=8',
  ],
  ...['-device', 'nvme-ns,drive=disk,bus=nvme,nsid=1,shared=on'],
];

/** The longest first among those that are told side by side. */
export const STORIES: readonly Story[] = [
  {
    name: 'igb',
    title: "An unmodified guest's igb enables VFs on the host's card, and igbvf uses them",
    cards: igb(0),
    memoryMegabytes: 1024,
    vfMemory: 'mapped',
    count: NO_ROUNDS,
    measures: true,
    limit: { usual: 9 * MINUTE, full: 9 * MINUTE },
  },
  {
    name: 'deaths',
    title: 'QEMU, backend, launcher and glue are killed with VFs in use',
    cards: igb(0),
    memoryMegabytes: 1024,
    vfMemory: 'trapped',
    // A point for each of those that can die.
    count: { usual: 4, full: 30 },
    limit: { usual: 20 * MINUTE, full: 120 * MINUTE },
  },
  {
    name: 'misbehaviour',
    title: 'The PF driver misbehaves on purpose',
    cards: igb(0),
    memoryMegabytes: 1024,
    vfMemory: 'trapped',
    count: NO_ROUNDS,
    limit: { usual: 20 * MINUTE, full: 20 * MINUTE },
  },
  {
    name: 'developer-day',
    title: "A driver developer's day",
    cards: igb(0),
    memoryMegabytes: 1024,
    vfMemory: 'trapped',
    count: { usual: 3, full: 20 },
    limit: { usual: 10 * MINUTE, full: 25 * MINUTE },
  },
  {
    name: 'two-pfs',
    title: 'A second PF for the same VM, enabled at the same moment',
    cards: [...igb(0), ...igb(1)],
    memoryMegabytes: 1536,
    vfMemory: 'trapped',
    count: NO_ROUNDS,
    limit: { usual: 9 * MINUTE, full: 9 * MINUTE },
  },
  {
    name: 'nvme',
    title: "The guest's nvme brings VFs of an NVMe controller online and does I/O through one",
    cards: NVME,
    memoryMegabytes: 1024,
    vfMemory: 'trapped',
    count: NO_ROUNDS,
    limit: { usual: 7 * MINUTE, full: 7 * MINUTE },
  },
];
