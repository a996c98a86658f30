// What not to do, for comparison: a process that holds a VF and itself writes the 0 to sriov_numvfs. It waits for itself
// for ever. Run it in a VM that may die.
import { writeFileSync } from 'node:fs';
import { openPf, PF_FOLDER } from './scenario.ts';

const device = await openPf();
await device.createVfs(1);
console.log('READY');
writeFileSync(`${PF_FOLDER}/sriov_numvfs`, '0');
console.log('SURVIVED');
