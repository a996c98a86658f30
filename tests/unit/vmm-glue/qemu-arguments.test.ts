// What the launcher reads out of a user's QEMU command line, and what it refuses, with the fix in the message.
import { describe, expect, it } from 'vitest';
import { ErrnoNumber } from '../../../protocol/unix/libc.ts';
import { SyscallError } from '../../../protocol/unix/syscall-error.ts';
import { parseConfigFile } from '../../../vmm-glue/qemu/config-file.ts';
import {
  checkArguments as checkAll,
  parseSize,
  qmpArguments,
} from '../../../vmm-glue/qemu/qemu-arguments.ts';

const MIB = 2 ** 20;
const checkArguments = (args: readonly string[], text = '') => checkAll(args, () => text);
const words = (line: string): string[] => line.split(' ');
const SHARED = '-object memory-backend-memfd,id=m,size=512M,share=on -machine q35,memory-backend=m';

describe('guest RAM that is shared', () => {
  it.each([
    SHARED,
    '-M q35,memory-backend=m -object memory-backend-memfd,size=1G,id=m',
    '-machine q35 -machine memory-backend=m -object memory-backend-shm,id=m,size=1G',
    '-machine type=q35,memory-backend=m -object memory-backend-file,id=m,mem-path=/x,size=1G,share=on',
    '-machine pc-q35-10.0,memory-backend=m -object {"qom-type":"memory-backend-memfd","id":"m","size":1,"share":true}',
    '-M q35 -numa node,memdev=m -object memory-backend-memfd,id=m,size=1G,share=yes',
  ])('is accepted: %s', (line) => {
    expect(() => checkArguments(words(line))).not.toThrow();
  });
});

describe('guest RAM that is not shared', () => {
  it('is refused with the arguments to add, of the size that was asked for', () => {
    expect(() => checkArguments(words('-M q35 -m 2G'))).toThrow(
      'add -object memory-backend-memfd,id=ram0,size=2G,share=on -machine memory-backend=ram0',
    );
    expect(() => checkArguments(words('-M q35 -m 768'))).toThrow('size=768M');
    expect(() => checkArguments(words('-M q35'))).toThrow('size=128M');
  });

  it.each([
    ['memory-backend-memfd,id=m,size=1G,share=off', 'add share=on'],
    ['memory-backend-file,id=m,size=1G,mem-path=/x', 'add share=on'],
    ['memory-backend-ram,id=m,size=1G,share=on', 'replace it with -object memory-backend-memfd'],
    ['memory-backend-ram,id=m,size=1G', 'id=m,size=1G,share=on'],
  ])('is refused: %s', (object, fix) => {
    const line = `-machine q35,memory-backend=m -object ${object}`;
    expect(() => checkArguments(words(line))).toThrow(fix);
  });

  it('is refused when only one of two NUMA nodes is private', () => {
    const line =
      '-M q35 -object memory-backend-memfd,id=a,size=1G -object memory-backend-ram,id=b,size=1G ' +
      '-numa node,memdev=a -numa node,memdev=b';
    expect(() => checkArguments(words(line))).toThrow('guest RAM b');
  });
});

it.each([
  '-m 1G',
  '-machine pc',
  '-M pc-i440fx-9.0',
  '-machine accel=kvm',
  '-M microvm,pcie=on',
  '-M sbsa-ref',
])('refuses a machine that VFs cannot be placed in: %s', (line) => {
  expect(() => checkArguments(words(line))).toThrow('add -machine q35');
});

it.each(['-machine virt,iommu=smmuv3', '-device arm-smmuv3,primary-bus=pcie.0,id=s'])(
  'refuses an IOMMU that no vfio device can be behind: %s',
  (line) => {
    expect(() => checkArguments(words(`${SHARED} ${line}`))).toThrow('-device virtio-iommu-pci');
  },
);

it.each([
  ['pc-q35-9.0', 'q35'],
  ['virt-10.1', 'virt'],
])('knows what kind of machine %s is', (type, kind) => {
  expect(checkArguments(words(`${SHARED} -M ${type}`)).machine).toBe(kind);
});

it.each([
  ['-m 512', 512 * MIB],
  ['-m 2G', 2048 * MIB],
  ['-m size=1G,slots=2,maxmem=4G', 1024 * MIB],
  ['-m 512 -m 1G', 1024 * MIB],
  ['', 512 * MIB],
  ['-numa node,memdev=n -object memory-backend-memfd,id=n,size=1048576', 513 * MIB],
])('reads the RAM size of "%s"', (line, ramBytes) => {
  expect(checkArguments([...words(SHARED), ...words(line)]).ramBytes).toBe(ramBytes);
});

it('sees that the user wants to start the guest later', () => {
  expect(checkArguments([...words(SHARED), '-S']).startsPaused).toBe(true);
  expect(checkArguments(words(SHARED)).startsPaused).toBe(false);
});

it('reads sizes as QEMU does, and refuses others', () => {
  expect(['1', '1.5G', '64k', '10B', '1T'].map(parseSize)).toEqual([
    MIB,
    1536 * MIB,
    65536,
    10,
    2 ** 40,
  ]);
  expect(['', 'x', '-1', '1GG'].map(parseSize)).toEqual([
    undefined,
    undefined,
    undefined,
    undefined,
  ]);
});

describe('RAM that is added to shared RAM', () => {
  const BIG = `${SHARED} -m 512M,slots=2,maxmem=4G`;

  it.each([
    'pc-dimm,memdev=d',
    '{"driver":"pc-dimm","memdev":"d"}',
    'virtio-mem-pci,memdev=d,id=v',
  ])('is refused where it is private: -device %s', (device) => {
    const line = `${BIG} -object memory-backend-ram,id=d,size=1G -device ${device}`;
    expect(() => checkArguments(words(line))).toThrow('guest RAM d is a memory-backend-ram');
  });

  it('is accepted where it is shared, and does not stand for the RAM that it is added to', () => {
    const dimm = '-object memory-backend-memfd,id=d,size=1G -device pc-dimm,memdev=d';
    expect(() => checkArguments(words(`${BIG} ${dimm}`))).not.toThrow();
    expect(() => checkArguments(words(`-M q35 -m 1G ${dimm}`))).toThrow('guest RAM is not shared');
  });

  it('may be private where it is no RAM of the guest’s', () => {
    const line = `${BIG} -object memory-backend-ram,id=d,size=1G -device ivshmem-plain,memdev=d`;
    expect(() => checkArguments(words(line))).not.toThrow();
  });
});

it.each([
  ['', { cpu: undefined, isEmulated: true }],
  ['-cpu max,phys-bits=46', { cpu: 'max,phys-bits=46', isEmulated: true }],
  ['-accel kvm -cpu host', { cpu: 'host', isEmulated: false }],
  ['-accel tcg,thread=multi', { cpu: undefined, isEmulated: true }],
  ['-enable-kvm', { cpu: undefined, isEmulated: false }],
  ['-machine q35,accel=kvm:tcg', { cpu: undefined, isEmulated: false }],
])('reads the processor out of "%s"', (line, cpu) => {
  expect(checkArguments(words(`${SHARED} ${line}`.trim())).cpu).toEqual(cpu);
});

describe('options that a launched QEMU cannot have', () => {
  it.each([
    ['-daemonize', 'run the launcher itself in the background'],
    ['--daemonize', 'run the launcher itself in the background'],
    ['--preconfig', '-S starts a guest paused'],
    ['-incoming defer', 'let the guest boot'],
    ['-loadvm before', 'let the guest boot'],
    ['-only-migratable', 'leave it out'],
    ['-icount shift=auto,rr=replay,rrfile=x', 'leave out its rr='],
    ['-help', 'run QEMU by itself'],
    ['-version', 'run QEMU by itself'],
  ])('are refused with what to do: %s', (line, fix) => {
    expect(() => checkArguments(words(`${line} ${SHARED}`))).toThrow(fix);
  });

  it.each([
    '-S',
    '-snapshot',
    '-nodefaults',
    '-pidfile /run/qemu.pid',
    '-no-reboot',
    '-no-shutdown',
    '-icount shift=auto',
    '-sandbox on,spawn=deny',
    '-run-with chroot=/var/empty,user=nobody',
    '-qmp unix:/run/mine.sock,server=on,wait=off',
  ])('are not all others: %s', (line) => {
    expect(() => checkArguments(words(`${line} ${SHARED}`))).not.toThrow();
  });
});

it('doubles the commas of a path, which end a value in QEMU', () => {
  expect(qmpArguments('/tmp/a,b/qmp.sock')).toEqual([
    '-qmp',
    'unix:/tmp/a,,b/qmp.sock,server=on,wait=off',
  ]);
});

describe('a configuration file', () => {
  const MACHINE = `# comment
[machine]
  type = "q35"
  memory-backend = "m"

[object "m"]
  qom-type = "memory-backend-memfd"
  share = "on"
  size = "512M"

[memory]
  size = "512M"
`;

  it('is seen through like the command line', () => {
    expect(checkArguments(['-readconfig', 'vm.cfg'], MACHINE).ramBytes).toBe(512 * MIB);
    const open = MACHINE.replace('"on"', '"off"');
    expect(() => checkArguments(['-readconfig', 'vm.cfg'], open)).toThrow('guest RAM m');
    const old = MACHINE.replace('"q35"', '"pc"');
    expect(() => checkArguments(['-readconfig', 'vm.cfg'], old)).toThrow('add -machine q35');
  });

  it('says what it says in its place, so that what comes later counts', () => {
    const line = ['-M', 'pc', '-readconfig', 'vm.cfg', '-m', '1G'];
    expect(checkArguments(line, MACHINE).ramBytes).toBe(1024 * MIB);
  });

  it('keeps the commas of its values', () => {
    const text = '[drive "d,1"]\nfile = "a,b"\nnonsense\n[x\n';
    expect(parseConfigFile(text)).toEqual([{ name: 'drive', value: 'id=d,,1,file=a,,b' }]);
  });

  it('is named with its path where it cannot be read', () => {
    const unreadable = (): string => {
      throw new SyscallError('open', ErrnoNumber.ENOENT, 'vm.cfg');
    };
    expect(() => checkAll(['-readconfig', 'vm.cfg'], unreadable)).toThrow(
      /^QEMU's option -readconfig: open vm.cfg: no such file.*; name a file that can be read/,
    );
  });
});
