// The options of `--device=nvme`.
import { InvalidArgumentError } from 'commander';
import { parseBytes } from '../../../protocol/launch/option-values.ts';
import { PROFILE_OPTION } from '../device-profile.ts';
import type { KindOption } from '../kind.ts';
import { BLOCK_BYTES } from './storage.ts';

const LARGEST_NAMESPACE = 2 ** 44;
const LONGEST_SERIAL = 20;

export const NVME_OPTIONS: readonly KindOption[] = [
  {
    flags: '--namespace <file>',
    description:
      'keep the PF’s blocks in this file; with ,split the VFs’ too, in equal parts of it',
  },
  {
    flags: '--namespace-size <bytes>',
    description: 'size of each namespace in RAM, such as 1G (default: 64M)',
    parse: namespaceSize,
  },
  {
    flags: '--nvme-vfs <state>',
    description:
      'how VFs come up: online, or offline until the PF’s driver gives them resources (default: online)',
    choices: ['online', 'offline'],
  },
  {
    flags: '--serial <text>',
    description: 'serial number, which also names the namespaces (default: another each time)',
    parse: serialNumber,
  },
  PROFILE_OPTION,
];

function namespaceSize(text: string): number {
  const size = parseBytes(text);
  if (size === undefined || size < 4096 || size > LARGEST_NAMESPACE || size % BLOCK_BYTES !== 0) {
    throw new InvalidArgumentError('It must be whole blocks of 512 bytes, 4K to 16384G, like 64M.');
  }
  return size;
}

function serialNumber(text: string): string {
  if (!/^[\x21-\x7e]+$/.test(text) || text.length > LONGEST_SERIAL) {
    throw new InvalidArgumentError(`It must be 1 to ${LONGEST_SERIAL} printable characters.`);
  }
  return text;
}
