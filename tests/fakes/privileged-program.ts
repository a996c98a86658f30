// What runs as root on a host, on the made-up host of a test, and a backend that asks it: each a process of its own.
//   privileged-program.js opener|writer FOLDER SOCKET USER    until it is killed; prints `ready`
//   privileged-program.js backend FOLDER SOCKETS GROUP        opens the group of a VF, prints `open`, and keeps it
import { openerOf } from '../../backend/devices/vfio/privileged/opener.ts';
import { PrivilegedHost } from '../../backend/devices/vfio/privileged/privileged-host.ts';
import { RequestServer } from '../../backend/devices/vfio/privileged/request-server.ts';
import { writerOf } from '../../backend/devices/vfio/privileged/writer.ts';
import { describeHolder } from '../../backend/devices/vfio/readiness/holders.ts';
import { PciFunctionFolder } from '../../backend/devices/vfio/sysfs.ts';
import { bindVf } from '../../backend/devices/vfio/vfs/bind-vf.ts';
import { directNumVfs } from '../../backend/devices/vfio/vfs/numvfs-writer.ts';
import { SILENT } from '../../protocol/log.ts';
import { listenUnix } from '../../protocol/unix/listener.ts';
import { processClock } from '../../protocol/unix/process-clock.ts';
import { exclusiveCalls } from './exclusive-calls.ts';
import { foldersIn, PF } from './vfio-host.ts';

const [role, folder = '', socket = '', last = ''] = process.argv.slice(2);
if (role === 'backend') {
  const fd = await new PrivilegedHost(socket, processClock).openGroup(last);
  console.log(fd < 0 ? `errno ${-fd}` : 'open');
  setInterval(() => {}, 1_000);
} else {
  const folders = foldersIn(folder);
  const pf = new PciFunctionFolder(folders.sysfs, PF);
  const context = {
    calls: exclusiveCalls(),
    folders,
    clock: processClock,
    bindVf,
    holderOf: async (group: string) => describeHolder(group, folders.proc),
  };
  const numVfs = directNumVfs(pf.attributePath('sriov_numvfs'), processClock);
  new RequestServer({
    listener: listenUnix(socket).fd,
    users: [Number(last)],
    handlers: role === 'opener' ? openerOf(context, pf) : writerOf(context, pf, numVfs),
    clock: processClock,
    log: SILENT,
  });
  console.log('ready');
}
