#!/usr/bin/env node
// A program that looks like `vfio-user-sriov serve` to the launcher: makes its socket, prints the ready line, grants
// the glue its hot-plug channel and announces nothing. FAKE_BACKEND_EXIT makes it end at once with that status;
// FAKE_BACKEND_SILENT makes it never say that it is ready, --vf-bar-bytes sets the size of its VF BAR;
// FAKE_BACKEND_NOTES is a file for its pid and arguments, to which it adds how it was ended.
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:net';

const args = process.argv.slice(2);
const env = process.env;
const option = (name) => args.find((each) => each.startsWith(`${name}=`))?.slice(name.length + 1);
const note = (endedBy) => {
  if (env.FAKE_BACKEND_NOTES === undefined) {
    return;
  }
  writeFileSync(env.FAKE_BACKEND_NOTES, JSON.stringify({ pid: process.pid, args, endedBy }));
};

if (env.FAKE_BACKEND_EXIT !== undefined) {
  process.exit(Number(env.FAKE_BACKEND_EXIT));
}

const HEADER_BYTES = 16;
const IS_REPLY = 1;
const socketPath = option('--socket-path');
createServer((socket) => {
  socket.on('error', () => {});
  socket.once('data', (request) => {
    const body = Buffer.concat([
      request.subarray(HEADER_BYTES, HEADER_BYTES + 4),
      Buffer.from('{"capabilities":{"sriov_hotplug":{"version":1}}}\0'),
    ]);
    const header = Buffer.from(request.subarray(0, HEADER_BYTES));
    header.writeUInt32LE(HEADER_BYTES + body.length, 4);
    header.writeUInt32LE(IS_REPLY, 8);
    socket.write(Buffer.concat([header, body]));
  });
}).listen(socketPath, () => {
  note();
  if (env.FAKE_BACKEND_SILENT !== undefined) {
    return;
  }
  console.log(
    `ready socket=${socketPath} vf-sockets=${option('--vf-sockets')} total-vfs=2 vf-bars=0:${option('--vf-bar-bytes') ?? 16384}:64p`,
  );
});

process.on('SIGTERM', () => {
  note('SIGTERM');
  process.exit(0);
});
