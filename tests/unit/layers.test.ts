// What the linter makes of the table in .ci/layers.mjs, asked in a small tree with the project's own configuration.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { expect, it } from 'vitest';

const BIOME = join(process.cwd(), 'node_modules/.bin/biome');

/** The imports that the linter refuses, as `file: specifier`. */
function refused(imports: Record<string, readonly string[]>): string[] {
  const write = (specifier: string): string => `export * from '${specifier}';`;
  return complaints('noRestrictedImports', imports, write);
}

/** What the rule says of these files, each item a line of code that `write` makes of it, as `file: item`. */
function complaints(
  rule: string,
  items: Record<string, readonly string[]>,
  write: (item: string) => string,
): string[] {
  const tree = mkdtempSync(join(tmpdir(), 'layers-'));
  try {
    cpSync('biome.json', join(tree, 'biome.json'));
    cpSync('.ci', join(tree, '.ci'), { recursive: true });
    for (const [file, lines] of Object.entries(items)) {
      mkdirSync(dirname(join(tree, file)), { recursive: true });
      writeFileSync(join(tree, file), lines.map((item) => `${write(item)}\n`).join(''));
    }
    const options = ['--vcs-enabled=false', '--reporter=github', '--max-diagnostics=none'];
    const { stdout } = spawnSync(BIOME, ['lint', ...options, '.'], { cwd: tree, encoding: 'utf8' });
    const found = [...stdout.matchAll(new RegExp(`${rule},file=([^,]+),line=(\\d+),`, 'g'))];
    return found
      .map(([, path = '', line]) => ({ file: relative(tree, path), line: Number(line) }))
      .map(({ file, line }) => `${file}: ${items[file]?.[line - 1]}`)
      .sort();
  } finally {
    rmSync(tree, { recursive: true });
  }
}

it('a folder imports what its row says, and nothing else', () => {
  expect(
    refused({
      'protocol/hotplug/x.ts': ['../errno.ts', 'protobufjs/light.js', '../unix/libc.ts'],
      'protocol/unix/x.ts': ['koffi', 'node:os', '../errno.ts', '../../backend/pci/bdf.ts'],
      'backend/pci/spec/x.ts': ['./sriov.ts', '../registers.ts', '../../sriov/machine.ts'],
      'backend/sriov/x.ts': ['./y.ts', '../pci/bdf.ts', '../device/x.ts', 'node:fs', 'pino'],
      'backend/server/x.ts': ['../device/x.ts', '../devices/vfio/sysfs.ts', 'koffi', 'node:fs'],
      'backend/commands/x.ts': ['commander', '../server/x.ts', '../../vmm-glue/qemu/qmp.ts'],
      'vmm-glue/qemu/x.ts': [
        '../client/x.ts',
        '../../protocol/unix/flock.ts',
        '../../backend/x.ts',
      ],
      'examples/x.ts': ['../vmm-glue/client/client.ts', '../backend/x.ts', '../protocol/errno.ts'],
    }),
  ).toMatchInlineSnapshot(`
    [
      "backend/pci/spec/x.ts: ../../sriov/machine.ts",
      "backend/server/x.ts: ../devices/vfio/sysfs.ts",
      "backend/server/x.ts: koffi",
      "backend/sriov/x.ts: ../device/x.ts",
      "backend/sriov/x.ts: node:fs",
      "backend/sriov/x.ts: pino",
      "examples/x.ts: ../backend/x.ts",
      "examples/x.ts: ../protocol/errno.ts",
      "protocol/hotplug/x.ts: ../unix/libc.ts",
      "protocol/unix/x.ts: ../../backend/pci/bdf.ts",
      "vmm-glue/qemu/x.ts: ../../backend/x.ts",
    ]
  `);
});

it('what stands on a clock takes no timers of Node’s', () => {
  expect(
    refused({
      'backend/server/x.ts': ['node:timers/promises', 'node:net'],
      'protocol/unix/x.ts': ['node:timers'],
      'vmm-glue/trace/commands/x.ts': ['node:timers/promises', 'node:fs'],
      'examples/x.ts': ['node:timers/promises'],
    }),
  ).toEqual([
    'backend/server/x.ts: node:timers/promises',
    'protocol/unix/x.ts: node:timers',
    'vmm-glue/trace/commands/x.ts: node:timers/promises',
  ]);
});

it('a kind of device imports its own rooms and the port, but no other kind', () => {
  expect(
    refused({
      'backend/devices/loopback/x.ts': ['../../device/physical-device.ts', '../vfio/sysfs.ts'],
      'backend/devices/vfio/dma/x.ts': [
        '../sysfs.ts',
        '../vfio/abi.ts',
        '../../../pci/bdf.ts',
        '../../../device/physical-function.ts',
        '../../loopback/device.ts',
      ],
    }),
  ).toMatchInlineSnapshot(`
    [
      "backend/devices/loopback/x.ts: ../vfio/sysfs.ts",
      "backend/devices/vfio/dma/x.ts: ../../../device/physical-function.ts",
      "backend/devices/vfio/dma/x.ts: ../../loopback/device.ts",
    ]
  `);
});

it('pure folders have no clock, no log and no process', () => {
  const code = [
    'performance',
    'Date',
    'process',
    'console',
    'setTimeout',
    'setImmediate',
    'Buffer',
  ];
  const impure = code.slice(0, -1);
  const pure = [
    'backend/pci/spec/x.ts',
    'backend/sriov/x.ts',
    'protocol/x.ts',
    'protocol/hotplug/x.ts',
  ];
  const files = Object.fromEntries([...pure, 'examples/x.ts'].map((file) => [file, code]));
  const write = (name: string): string => `export const its${name} = ${name};`;
  expect(complaints('noRestrictedGlobals', files, write)).toEqual(
    pure.flatMap((file) => impure.map((name) => `${file}: ${name}`)).sort(),
  );
});

it('no folder of the product has timers or a clock of its own', () => {
  const denied = ['performance', 'setImmediate', 'setInterval', 'setTimeout'];
  const code = [...denied, 'process'];
  const clocked = ['backend/devices/vfio/dma/x.ts', 'protocol/unix/x.ts', 'vmm-glue/qemu/x.ts'];
  const files = Object.fromEntries([...clocked, 'examples/x.ts'].map((file) => [file, code]));
  const write = (name: string): string => `export const its${name} = ${name};`;
  expect(complaints('noRestrictedGlobals', files, write)).toEqual(
    clocked.flatMap((file) => denied.map((name) => `${file}: ${name}`)),
  );
});

it('the process’s clock is a default, or what a command puts in', () => {
  const hardWired = [
    'its = Date.now()',
    'its = pause(processClock, 1)',
    'its = process.hrtime.bigint()',
    'its = processClock.now()',
    'its = { clock: backgroundClock }',
  ];
  const replaceable = [
    'its = given.clock ?? processClock',
    'its = (clock = processClock) => clock',
  ];
  const clocked = ['backend/metrics/x.ts', 'protocol/logging/x.ts', 'vmm-glue/client/x.ts'];
  const others = ['backend/commands/x.ts', 'protocol/unix/process-clock.ts', 'tests/unit/x.ts'];
  const files = Object.fromEntries(
    [...clocked, ...others].map((file) => [file, [...hardWired, ...replaceable]]),
  );
  expect(complaints('plugin', files, (code) => `export const ${code};`)).toEqual(
    clocked.flatMap((file) => hardWired.map((code) => `${file}: ${code}`)),
  );
});
