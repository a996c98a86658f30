// QEMU's configuration files (-readconfig) as the options of a command line, so that a launcher sees through both. Pure.

/** An option of QEMU's: its name without dashes, and its value. */
export interface QemuOption {
  readonly name: string;
  readonly value: string;
}

/** Groups that are called otherwise on a command line. */
const OPTION_OF_GROUP: Readonly<Record<string, string>> = { memory: 'm' };

/** What a file says, in its order. What is no line of such a file says nothing, and is QEMU's to refuse. */
export function parseConfigFile(text: string): QemuOption[] {
  const groups: { name: string; properties: string[] }[] = [];
  for (const line of text.split('\n')) {
    const [, group, id] = /^\s*\[\s*([\w-]+)(?:\s+"([^"]*)")?\s*\]/.exec(line) ?? [];
    if (group !== undefined) {
      groups.push({ name: group, properties: id === undefined ? [] : [property('id', id)] });
      continue;
    }
    const [, key, value] = /^\s*([\w.-]+)\s*=\s*"([^"]*)"/.exec(line) ?? [];
    if (key !== undefined) {
      groups.at(-1)?.properties.push(property(key, value!));
    }
  }
  return groups.map(({ name, properties }) => ({
    name: OPTION_OF_GROUP[name] ?? name,
    value: properties.join(','),
  }));
}

function property(key: string, value: string): string {
  return `${key}=${value.replaceAll(',', ',,')}`;
}
