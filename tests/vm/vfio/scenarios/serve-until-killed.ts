// A backend to be killed: opens the PF, makes `argv[2]` VFs, says READY and waits. Gives back what the kernel asks for.
import { PF_INDEX } from '../../../../backend/device/physical-device.ts';
import { openPf, step } from './scenario.ts';

const device = await step('the PF is opened', () => openPf());
const count = Number(process.argv[2] ?? 1);
if (count > 0) {
  await step('VFs are made', () => device.createVfs(count));
}
let isReleasing = false;
device.onReleaseRequested(async (index) => {
  console.log(`the kernel asks for ${index === PF_INDEX ? 'the PF' : `VF ${index}`}`);
  if (isReleasing) {
    return;
  }
  isReleasing = true;
  if (index === PF_INDEX) {
    await device.close();
    console.log('CLOSED');
    process.exit(0);
  }
  await device.releaseVfs();
  isReleasing = false;
  console.log('RELEASED');
});
console.log('READY');
setInterval(() => {}, 1_000);
