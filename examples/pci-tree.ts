// Draws the PCI functions of a Linux guest as a tree, as `lspci -t` does, with what a person wants to know of each.
// Pure: the demo gets the facts from the guest's sysfs with PCI_FACTS.

/** Shell commands for the guest: a line for each function, its fields separated by `|`. */
export const PCI_FACTS = `cd /sys/bus/pci/devices
for f in *; do
  driver=$(readlink $f/driver); physfn=$(readlink $f/physfn)
  echo "$(readlink -f $f)|$(cut -c3- $f/vendor):$(cut -c3- $f/device)|$(cat $f/class)|\${driver##*/}|\${physfn##*/}"
done`;

interface PciNode {
  /** As Linux writes it: `0000:01:00.0`. */
  readonly address: string;
  readonly text: string;
  readonly children: PciNode[];
}

/** What a class code (`0x060400`) stands for, by its upper 16 bits: PCI Code and ID Assignment Specification 1.11. */
const CLASSES: Readonly<Record<string, string>> = {
  '0x0106': 'SATA controller',
  '0x0600': 'host bridge',
  '0x0601': 'ISA bridge',
  '0x0604': 'PCI bridge',
  '0x0c05': 'SMBus',
  '0x1200': 'processing accelerator',
};

/** The lines of the tree. `facts` is what PCI_FACTS printed. */
export function pciTree(facts: string): string[] {
  const roots: PciNode[] = [];
  const known = new Map<string, PciNode>();
  const lines = facts
    .trim()
    .split('\n')
    .map((line) => line.split('|'));
  // A bridge's path is the beginning of those behind it, so that it comes first.
  lines.sort(([one = ''], [other = '']) => (one < other ? -1 : 1));
  for (const [path = '', ids = '', classCode = '', driver = '', physfn = ''] of lines) {
    const parts = path.split('/');
    const address = parts.pop()!;
    const node = { address, text: describe(address, ids, classCode, driver, physfn), children: [] };
    known.set(address, node);
    (known.get(parts.pop()!)?.children ?? roots).push(node);
  }
  return draw(roots, '');
}

function describe(
  address: string,
  ids: string,
  classCode: string,
  driver: string,
  physfn: string,
): string {
  const what = CLASSES[classCode.slice(0, 6)] ?? classCode;
  const role = physfn === '' ? '' : `, virtual function of ${physfn.slice(5)}`;
  return `${address.slice(5)} ${ids} ${what}${role}${driver === '' ? '' : ` [${driver}]`}`;
}

function draw(nodes: readonly PciNode[], indent: string): string[] {
  return nodes.flatMap(({ text, children }, index) => {
    const isLast = index === nodes.length - 1;
    const below = draw(children, `${indent}${isLast ? '   ' : '│  '}`);
    return [`${indent}${isLast ? '└─' : '├─'} ${text}`, ...below];
  });
}
