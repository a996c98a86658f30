// Scenario: a VF in a message that nobody reads, of root's opener to an ordinary user. Its group is held, root's writer sees
// that and writes no 0, and the kernel is never asked for what it could not finish. `argv[2]`: the folder of their sockets.
import { strict as assert } from 'node:assert';
import {
  MESSAGE_VERSION,
  Operation,
  Request,
} from '../../../../backend/devices/vfio/privileged/messages.ts';
import {
  OPENER_SOCKET,
  PrivilegedHost,
} from '../../../../backend/devices/vfio/privileged/privileged-host.ts';
import { PciFunctionFolder } from '../../../../backend/devices/vfio/sysfs.ts';
import { Errno } from '../../../../protocol/errno.ts';
import { connectUnix } from '../../../../protocol/unix/fd-socket.ts';
import { closeFd } from '../../../../protocol/unix/libc.ts';
import { processClock } from '../../../../protocol/unix/process-clock.ts';
import { SocketBuffer } from '../../../../protocol/unix/socket-buffer.ts';
import { PF, readPf, step, until } from './scenario.ts';

const folder = process.argv[2]!;
const root = new PrivilegedHost(folder, processClock);
const numVfs = root.numVfs('sriov_numvfs');
assert.notEqual(process.getuid?.(), 0);

await step('the user may not write sriov_numvfs', () => {
  assert.equal(readPf('sriov_numvfs'), '0');
  assert.throws(() => process.setuid?.(0));
});
await step('root’s writer makes a VF', async () => assert.equal(await numVfs.write(1), 0));
const pf = new PciFunctionFolder('/sys', PF);
const vf = pf.sibling(pf.virtualFunctions()[0]!);
const group = vf.iommuGroup!;
await step('root’s opener leaves it to vfio-pci, which has it', async () => {
  await root.bindVf(group);
  await until('the VF is with vfio-pci', () => vf.driver === 'vfio-pci');
});

const buffer = new SocketBuffer(Request.size, 1);
const silent = connectUnix(`${folder}/${OPENER_SOCKET}`);
await step('a message with the VF is not read, and the VF is held', async () => {
  Request.encode(
    { version: MESSAGE_VERSION, operation: Operation.openGroup, argument: Number(group) },
    buffer.data,
  );
  buffer.send(silent, 0, Request.size);
  // The answer to a later question: that message is on its way.
  const again = await root.openGroup(group);
  assert.equal(again, -Errno.EBUSY);
});
await step('no 0 is written', async () => {
  assert.equal(await numVfs.write(0), Errno.EBUSY);
  // A write under way would block this read.
  assert.equal(readPf('sriov_numvfs'), '1');
});
await step('the message goes with its socket, and the VF with the 0', async () => {
  closeFd(silent);
  assert.equal(await numVfs.write(0), 0);
  assert.equal(readPf('sriov_numvfs'), '0');
});
