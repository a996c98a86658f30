// Shell functions of the nested guest, in a file of its initramfs: inside/guest-driver.ts has the commands that use them.

export const GUEST_FUNCTIONS = {
  path: '/lab/functions',
  content: `
PF=/sys/bus/pci/devices/0000:01:00.0
pf_if() { ls $PF/net; }
vf_if() { ls $PF/virtfn$1/net; }
# wait_for SECONDS COMMAND...
wait_for() {
  n=$(($1 * 10)); shift
  until "$@" >/dev/null 2>&1; do
    n=$((n - 1)); [ $n -gt 0 ] || { echo "not in time: $*"; return 1; }
    sleep 0.1
  done
}
has_link() { [ "$(cat /sys/class/net/$1/carrier)" = 1 ]; }
# milliseconds since the boot
now() { awk '{ printf "%d", $1 * 1000 }' /proc/uptime; }
`,
} as const;

/** Where the guest has the writes that `randomWrites` made. */
export const RANDOM_WRITES = '/lab/random-writes';
const WRITES_PER_LINE = 200;
const SRIOV_BYTES = 0x40;
const WIDTHS = [
  { letter: 'b', bytes: 1 },
  { letter: 'w', bytes: 2 },
  { letter: 'l', bytes: 4 },
] as const;

/** `count` random writes to the SR-IOV capability as arguments of setpci, many to a line; `random` gives 0 to below. */
export function randomWrites(count: number, random: (below: number) => number): string {
  let text = '';
  for (let i = 0; i < count; i++) {
    const { letter, bytes } = WIDTHS[random(WIDTHS.length)]!;
    const offset = bytes * random(SRIOV_BYTES / bytes);
    // Small values hit the bits that do something more often.
    const value = random(random(2) === 0 ? 16 : 2 ** (8 * bytes));
    const isLast = i % WRITES_PER_LINE === WRITES_PER_LINE - 1;
    text += `ECAP_SRIOV+${offset.toString(16)}.${letter}=${value.toString(16)}${isLast ? '\n' : ' '}`;
  }
  return text;
}
