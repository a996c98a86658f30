// A VMM to be killed: boots on the socket `argv[2]`, enables `argv[3]` VFs, says READY and goes on running.
import { ReferenceVmm } from '../../../../vmm-glue/reference-vmm/reference-vmm.ts';

const [socket, count] = process.argv.slice(2);
const vmm = await ReferenceVmm.start({ pf: socket! });
const vfs = await vmm.enableVfs(Number(count));
for (const vf of vfs) {
  await vf.enableMsix();
}
console.log('READY');
setInterval(() => {}, 1_000);
