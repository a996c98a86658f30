// Giving a VF to vfio-pci, where the kernel did not: with autoprobing off, or another driver that was quicker.
import type { PciFunctionFolder } from '../sysfs.ts';

/** Through driver_override, never new_id: that would take every device of this kind. Rejects with the system's error. */
export async function bindVf(vf: PciFunctionFolder): Promise<void> {
  await vf.write('driver_override', 'vfio-pci');
  await vf.unbindDriver();
  await vf.probeDriver();
}
