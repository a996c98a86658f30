#!/usr/bin/env node
// A program that looks like qemu-system-x86_64 to the launcher: tells a version and its devices, else serves the QMP
// socket it is given and runs until it is told to quit. Told by its environment: FAKE_QEMU_VERSION, FAKE_QEMU_HELP, FAKE_QEMU_DEVICES,
// FAKE_QEMU_DEVICES_FAIL (says that and fails), FAKE_QEMU_SLOW (does not answer questions), FAKE_QEMU_MUTE (nothing on its
// QMP socket), FAKE_QEMU_EMPTY (says that it has no devices), FAKE_QEMU_EXIT (a status to end with once the guest runs), FAKE_QEMU_NOTES (a file for its pid and arguments,
// and how many are at its QMP socket), FAKE_QEMU_HANGS_UP (does not say what devices it has, and lets go of its QMP socket some time
// before it ends).
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:net';

const args = process.argv.slice(2);
const env = process.env;

if (env.FAKE_QEMU_SLOW !== undefined && args.length <= 2) {
  await new Promise((resolve) => setTimeout(resolve, 60_000));
}
if (args[0] === '--help') {
  console.log(`QEMU emulator version ${env.FAKE_QEMU_VERSION ?? '11.1.3'}`);
  console.log(env.FAKE_QEMU_HELP ?? '-run-with [async-teardown=on|off][,exit-with-parent=on|off]');
  process.exit(0);
}
if (args[0] === '-device' && args[1] === 'help') {
  if (env.FAKE_QEMU_DEVICES_FAIL !== undefined) {
    console.error(env.FAKE_QEMU_DEVICES_FAIL);
    process.exit(127);
  }
  console.log(env.FAKE_QEMU_DEVICES ?? 'name "vfio-user-pci", bus PCI');
  process.exit(0);
}

const devices = args.filter((each) => each.startsWith('{')).map((each) => JSON.parse(each));
let isRunning = !args.includes('-S');
const monitors = new Set();
let isAsked = false;
const note = () => {
  if (env.FAKE_QEMU_NOTES === undefined) {
    return;
  }
  writeFileSync(
    env.FAKE_QEMU_NOTES,
    JSON.stringify({ pid: process.pid, args, isRunning, monitors: monitors.size, isAsked }),
  );
};

const answers = {
  'query-status': () => ({ running: isRunning, status: isRunning ? 'running' : 'prelaunch' }),
  cont: () => {
    isRunning = true;
    note();
    if (env.FAKE_QEMU_EXIT !== undefined) {
      setTimeout(() => process.exit(Number(env.FAKE_QEMU_EXIT)), 20);
    }
    return {};
  },
  'query-target': () => ({ arch: 'x86_64' }),
  'qom-list': ({ path }) => {
    if (path !== '/machine/peripheral' || env.FAKE_QEMU_EMPTY !== undefined) {
      return [];
    }
    return devices.map(({ id, driver }) => ({ name: id, type: `child<${driver}>` }));
  },
  'human-monitor-command': () => 'portl[0x0cf8] = 0x00000000\r\n',
  'qom-get': ({ property }) => (property === 'addr' ? 0 : '/machine/q35/pcie.0'),
};

// A doubled comma is one of the path; a single one ends it.
const qmp = /^unix:((?:[^,]|,,)*)/.exec(args[args.indexOf('-qmp') + 1])[1].replaceAll(',,', ',');
createServer((socket) => {
  socket.on('error', () => {});
  monitors.add(socket);
  note();
  socket.on('close', () => monitors.delete(socket));
  if (env.FAKE_QEMU_MUTE !== undefined) {
    return;
  }
  socket.write('{"QMP": {}}\n');
  let text = '';
  socket.on('data', (chunk) => {
    text += chunk;
    const lines = text.split('\n');
    text = lines.pop();
    for (const line of lines) {
      const { execute, id, arguments: values } = JSON.parse(line);
      if (execute === 'qom-list' && env.FAKE_QEMU_HANGS_UP !== undefined) {
        isAsked = true;
        note();
        return;
      }
      socket.write(`${JSON.stringify({ id, return: answers[execute]?.(values ?? {}) ?? {} })}\n`);
    }
  });
}).listen(qmp, note);

process.on('SIGTERM', () => {
  note();
  if (env.FAKE_QEMU_HANGS_UP === undefined) {
    process.exit(0);
  }
  for (const socket of monitors) {
    socket.destroy();
  }
  setTimeout(() => process.exit(0), 200);
});
process.on('SIGINT', () => process.exit(3));
