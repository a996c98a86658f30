// Takes out of a text what says who somebody is, or lets somebody in, and counts what was taken. Pure.
// A PCI address, a size and a register have none of these shapes.

export interface Redacted {
  readonly text: string;
  /** How often each kind of thing was taken out, those that were not there left out. */
  readonly removed: ReadonlyMap<string, number>;
}

interface Kind {
  readonly name: string;
  readonly pattern: RegExp;
  readonly stand: string;
}

const KINDS: readonly Kind[] = [
  {
    name: 'UUIDs (VF tokens, disks)',
    pattern: /\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b/gi,
    stand: '<UUID>',
  },
  {
    name: 'device serial numbers',
    pattern: /\b(?:[0-9a-f]{2}-){7}[0-9a-f]{2}\b/gi,
    stand: '<serial number>',
  },
  {
    name: 'MAC addresses',
    pattern: /\b(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}\b/gi,
    stand: '<MAC>',
  },
  {
    name: 'IPv4 addresses',
    pattern: /(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])/g,
    stand: '<IP>',
  },
  {
    name: 'IPv6 addresses',
    pattern:
      /(?<![\w:.])(?=[0-9a-f:]*(?:[0-9a-f]::|::[0-9a-f])|(?:[0-9a-f]{1,4}:){7})[0-9a-f:]{3,39}(?![\w:])/gi,
    stand: '<IP>',
  },
  { name: 'home folders', pattern: /\/home\/[^\s/:,;'"]+/g, stand: '/home/<user>' },
];

/** `names`: of this host and of this user. A name of less than 3 letters is one that other words have in them. */
export function redacted(text: string, names: readonly string[]): Redacted {
  const kinds = [
    ...KINDS,
    ...names
      .filter((name) => name.length >= 3 && name !== 'root' && name !== 'localhost')
      .map((name) => ({
        name: 'names of this host or user',
        pattern: new RegExp(`(?<![\\w-])${escaped(name)}(?![\\w-])`, 'g'),
        stand: '<name>',
      })),
  ];
  const removed = new Map<string, number>();
  let rest = text;
  for (const { name, pattern, stand } of kinds) {
    rest = rest.replace(pattern, () => {
      removed.set(name, (removed.get(name) ?? 0) + 1);
      return stand;
    });
  }
  return { text: rest, removed };
}

function escaped(name: string): string {
  return name.replace(/[\\^$.*+?()[\]{}|-]/g, '\\$&');
}
