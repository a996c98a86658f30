// The groups of this system, by name and by number, as /etc/group lists them.
import { readFileSync } from 'node:fs';

const GROUP_FILE = '/etc/group';

/** A group of /etc/group. */
export interface Group {
  readonly name: string;
  readonly gid: number;
}

/** The group of that name; undefined where the file lists none. `file`: another /etc/group. */
export function groupNamed(name: string, file = GROUP_FILE): Group | undefined {
  return groupsOf(file).find((group) => group.name === name);
}

/** `kvm (64)` where the group has a name, else `64`. */
export function groupLabel(gid: number, file = GROUP_FILE): string {
  const name = groupsOf(file).find((group) => group.gid === gid)?.name;
  return name === undefined ? String(gid) : `${name} (${gid})`;
}

/** `name:password:gid:members` a line; group(5). */
function groupsOf(file: string): Group[] {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    return [];
  }
  return text.split('\n').flatMap((line) => {
    const [name = '', , gid = ''] = line.split(':');
    return name !== '' && /^\d+$/.test(gid) ? [{ name, gid: Number(gid) }] : [];
  });
}
