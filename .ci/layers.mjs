// Who may import whom, and who is pure: the one table behind the linter's lists. A folder imports itself and what its row
// says, and nothing else; a row with rooms covers the folders in it as well. `npm run lint` fails where .ci/biome-layers.json,
// which biome.json extends, is not what the table gives, or where a source folder has no row; `--write` writes it.
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

const SYSTEM = ['node:*', 'node:*/*'];
const SHELL = [...SYSTEM, 'commander'];
/** Time is a port in these: no folder of theirs takes Node's timers, by import or as globals (nor its clocks: lint/clocks.grit). */
const CLOCKED = ['protocol', 'backend', 'vmm-glue'];
const TAKE_A_CLOCK = 'Take a Clock (protocol/clock.ts), so that a test lets the time pass.';
const TIMERS = { group: ['node:timers', 'node:timers/*'], message: TAKE_A_CLOCK };
const CLOCK_GLOBALS = {
  setTimeout: TAKE_A_CLOCK,
  setInterval: TAKE_A_CLOCK,
  setImmediate: TAKE_A_CLOCK,
  performance: TAKE_A_CLOCK,
};
/** What a row that is `pure` has none of besides. */
const IMPURE_GLOBALS = {
  Date: TAKE_A_CLOCK,
  process: 'This folder is pure: values come in as arguments.',
  console: 'This folder is pure: take a Log (protocol/log.ts).',
};

/** `folder/*` is the files of a folder without its rooms, `devices/*` (as a row) each folder there, by itself. */
const LAYERS = [
  // What both sides share. Pure but for unix/, the only importer of koffi, and logging/, the only one of pino.
  { folder: 'protocol', pure: true, mayImport: ['node:util'] },
  {
    folder: 'protocol/vfio-user',
    pure: true,
    mayImport: ['protocol/*', 'protocol/hotplug/commands.ts'],
  },
  {
    folder: 'protocol/hotplug',
    pure: true,
    mayImport: ['protocol/*', 'protocol/vfio-user', 'protocol/launch', 'protobufjs/*'],
  },
  { folder: 'protocol/launch', pure: true, mayImport: ['protocol/*'] },
  { folder: 'protocol/trace', pure: true, mayImport: ['protocol/*'] },
  { folder: 'protocol/unix', mayImport: ['protocol/*', 'protocol/launch', ...SYSTEM, 'koffi'] },
  {
    folder: 'protocol/logging',
    mayImport: ['protocol/*', 'protocol/unix', ...SHELL, 'pino', 'pino-pretty'],
  },

  // Pure: no clock, no log, no I/O.
  { folder: 'backend/pci', rooms: true, pure: true, mayImport: ['protocol/little-endian.ts'] },
  { folder: 'backend/sriov', pure: true, mayImport: ['backend/pci'] },

  {
    folder: 'backend/device',
    pure: true,
    mayImport: ['backend/pci', 'backend/sriov', 'protocol'],
  },
  // The kinds of device: each stands on the port and never on another kind.
  {
    folder: 'backend/devices',
    mayImport: ['backend/device', 'backend/pci', 'protocol', 'commander', ...SYSTEM],
  },
  {
    folder: 'backend/devices/*',
    rooms: true,
    mayImport: [
      'backend/device/physical-device.ts',
      'backend/device/faults.ts',
      'backend/devices/kind.ts',
      'backend/devices/device-profile.ts',
      'backend/devices/option-values.ts',
      'backend/devices/kit',
      'backend/sriov/vf-geometry.ts',
      'backend/pci',
      'protocol',
      'commander',
      ...SYSTEM,
    ],
  },
  // The one kind that loads code: a card of somebody's own.
  {
    folder: 'backend/devices/module',
    mayImport: [
      'backend/device/physical-device.ts',
      'backend/devices/kind.ts',
      'backend/devices/kit',
      'protocol',
      'esbuild',
      ...SYSTEM,
    ],
  },
  // What goes wrong on purpose: pure but for the clock and the log that it is given.
  {
    folder: 'backend/faults',
    pure: true,
    mayImport: [
      'backend/device/faults.ts',
      'backend/device/physical-device.ts',
      'backend/pci',
      'protocol/*',
      'protocol/hotplug/status.ts',
    ],
  },
  {
    folder: 'backend/hotplug',
    pure: true,
    mayImport: ['backend/device', 'backend/sriov', 'backend/pci', 'protocol'],
  },
  {
    folder: 'backend/server',
    rooms: true,
    mayImport: [
      'backend/hotplug',
      'backend/device',
      'backend/sriov',
      'backend/pci',
      'backend/thread/event-loop.ts',
      'protocol',
      ...SYSTEM,
    ],
  },
  // What a backend says to systemd, and is handed by it.
  { folder: 'backend/service', mayImport: ['protocol'] },
  {
    folder: 'backend/thread',
    mayImport: [
      'backend/server',
      'backend/hotplug',
      'backend/trace',
      'backend/metrics',
      'backend/devices',
      'backend/faults',
      'backend/device',
      'backend/sriov',
      'backend/pci',
      'protocol',
      ...SYSTEM,
    ],
  },
  {
    folder: 'backend/trace',
    mayImport: ['backend/device', 'backend/pci', 'protocol', ...SYSTEM],
  },
  // Counts on the device thread, answers scrapes on the main thread.
  {
    folder: 'backend/metrics',
    mayImport: ['backend/device', 'protocol', 'prom-client', ...SYSTEM],
  },
  // What goes into a bug report: text, and what the kernel says.
  { folder: 'backend/report', mayImport: ['protocol', 'node:*', 'node:*/*'] },
  { folder: 'backend/commands', mayImport: ['backend', 'protocol', ...SHELL] },

  // The VMM's side never imports the backend, nor the backend it.
  { folder: 'vmm-glue/client', mayImport: ['protocol', ...SYSTEM] },
  { folder: 'vmm-glue/reference-vmm', mayImport: ['vmm-glue/client', 'protocol', ...SYSTEM] },
  // Knows a VMM as a port, and does no I/O.
  {
    folder: 'vmm-glue/choreography',
    pure: true,
    mayImport: ['vmm-glue/client/hotplug.ts', 'protocol/*', 'protocol/hotplug'],
  },
  {
    folder: 'vmm-glue/qemu',
    mayImport: ['vmm-glue/choreography', 'vmm-glue/client', 'protocol', ...SYSTEM],
  },
  // `status` shows what a recording that is being made says of the guest's driver.
  {
    folder: 'vmm-glue/commands',
    mayImport: [
      'vmm-glue',
      'vmm-glue/trace/explain',
      'vmm-glue/trace/reading',
      'protocol',
      ...SHELL,
    ],
  },

  // What reads traces: names registers by the backend's tables, and asks backends as any client does.
  {
    folder: 'vmm-glue/trace',
    rooms: true,
    mayImport: ['backend/pci', 'protocol', 'vmm-glue/client', 'protobufjs/*', ...SHELL],
  },

  // Man pages and completion are made of what the commands say of themselves.
  { folder: 'packaging/generate', mayImport: ['../../commands.ts', ...SHELL] },

  // Examples use the command line and vmm-glue's public API.
  // A card of one's own stands on the package's public entries alone.
  { folder: 'examples/my-card', mayImport: ['vfio-user-sriov/device', 'vfio-user-sriov/device/*'] },
  {
    folder: 'examples',
    mayImport: [
      'vmm-glue/client',
      'vmm-glue/reference-vmm',
      'protocol/hotplug/status.ts',
      ...SYSTEM,
    ],
  },
];

const TREES = ['protocol', 'backend', 'vmm-glue', 'examples', 'packaging', 'tests'];
const GENERATED = new URL('./biome-layers.json', import.meta.url);
const CHECKED = TREES.filter((tree) => tree !== 'tests');

const text = `${JSON.stringify({ overrides: LAYERS.flatMap(overridesOf) }, null, 2)}\n`;
if (process.argv[2] === '--write') {
  writeFileSync(GENERATED, text);
} else if (text !== readFileSync(GENERATED, 'utf8')) {
  fail('.ci/biome-layers.json is not what the table in .ci/layers.mjs gives: npm run format');
}
for (const folder of foldersWithoutARow()) {
  fail(`${folder} has no row in the table of .ci/layers.mjs: say there what it may import`);
}

function overridesOf(layer) {
  return layer.rooms === true
    ? [overrideOf(layer, 0), overrideOf(layer, 1)]
    : [overrideOf(layer, 0)];
}

/** The override for the files `depth` folders below a layer's own: Biome sees an import as it is written. */
function overrideOf({ folder, mayImport, pure = false }, depth) {
  const own = ['./**', ...Array.from({ length: depth }, (_, i) => `${'../'.repeat(i + 1)}**`)];
  const above = `${'../'.repeat(depth + 1)}**`;
  const allowed = mayImport.map((target) => specifierOf(folder, depth, target));
  const what = mayImport.length === 0 ? 'nothing else' : `only ${mayImport.join(', ')}`;
  const message = `${folder} imports itself and ${what} (.ci/layers.mjs).`;
  const group = ['**', ...own.map((pattern) => `!${pattern}`), above];
  const isClocked = CLOCKED.includes(folder.split('/')[0]);
  const patterns = [
    { group: [...group, ...allowed.map((pattern) => `!${pattern}`)], message },
    ...(isClocked ? [TIMERS] : []),
  ];
  const noRestrictedImports = { level: 'error', options: { patterns } };
  const deniedGlobals = { ...CLOCK_GLOBALS, ...(pure ? IMPURE_GLOBALS : {}) };
  const noRestrictedGlobals = { level: 'error', options: { deniedGlobals } };
  return {
    includes: [`${folder}${'/*'.repeat(depth)}/*.ts`],
    linter: {
      rules: {
        style: { noRestrictedImports, ...(isClocked ? { noRestrictedGlobals } : {}) },
      },
    },
  };
}

/** How a file `depth` folders below `folder` writes an import of `target`. */
function specifierOf(folder, depth, target) {
  const to = target.split('/');
  if (!TREES.includes(to[0])) {
    return target;
  }
  const from = folder.split('/');
  let shared = 0;
  while (shared < from.length && from[shared] === to[shared]) {
    shared += 1;
  }
  const path = [...Array(from.length - shared + depth).fill('..'), ...to.slice(shared)].join('/');
  return /\.ts$|\/\*$/.test(target) ? path : `${path}/**`;
}

function foldersWithoutARow() {
  const files = execFileSync('git', ['ls-files', '--', ...CHECKED], { encoding: 'utf8' }).split(
    '\n',
  );
  const folders = new Set(files.filter((file) => file.endsWith('.ts')).map(dirname));
  const covered = LAYERS.map(({ folder, rooms }) => {
    const pattern = folder.replaceAll('*', '[^/]+') + (rooms === true ? '(/[^/]+)?' : '');
    return new RegExp(`^${pattern}$`);
  });
  return [...folders].filter((folder) => !covered.some((pattern) => pattern.test(folder)));
}

function fail(message) {
  console.error(message);
  process.exitCode = 1;
}
