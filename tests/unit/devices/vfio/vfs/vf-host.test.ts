import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { PF_INDEX, type PhysicalDevice } from '../../../../../backend/device/physical-device.ts';
import { openDeviceIn } from '../../../../../backend/devices/vfio/open-vfio-device.ts';
import { VfioRequest } from '../../../../../backend/devices/vfio/vfio/abi.ts';
import { Errno } from '../../../../../protocol/errno.ts';
import { ManualClock } from '../../../../fakes/manual-clock.ts';
import { FakeVfioHost, PF, TOTAL_VFS } from '../../../../fakes/vfio-host.ts';
import { SOON } from '../../../../patience.ts';

let host: FakeVfioHost;

beforeEach(() => {
  host = new FakeVfioHost();
});

afterEach(() => host.remove());

function open(
  container: 'shared' | 'per-function' = 'shared',
  mostGuestMemory = 2 ** 40,
): Promise<PhysicalDevice> {
  return openDeviceIn(host.context, {
    pf: PF,
    container,
    mostGuestMemory,
    log: host.context.log,
  });
}

/** The device, past the look at a VF that start-up takes. */
async function opened(container: 'shared' | 'per-function' = 'shared'): Promise<PhysicalDevice> {
  const device = await open(container);
  host.numVfsWrites.length = 0;
  host.ioctls.length = 0;
  return device;
}

function stateFile(): string | undefined {
  const path = join(host.folder, 'run', `${PF}.json`);
  return existsSync(path) ? readFileSync(path, 'utf8').trim() : undefined;
}

describe('start-up', () => {
  it('a PF is described with the look of one of its VFs, which is enabled for that only', async () => {
    const { description } = await open();
    expect(host.numVfsWrites).toEqual([1, 0]);
    expect(description).toMatchObject({ name: PF, totalVfs: TOTAL_VFS, vfDeviceId: 0x10ca });
    expect(description.leastMakingMilliseconds).toBe(100);
    expect(description.vfBars).toEqual([
      { index: 0, size: 0x4000, kind: 'memory64', prefetchable: true },
      { index: 3, size: 0x4000, kind: 'memory64', prefetchable: true },
    ]);
    expect(description.vf.bars.map(({ index, size }) => [index, size])).toEqual([
      [0, 0x4000],
      [3, 0x4000],
    ]);
  });

  it('a PF that does not exist is refused', async () => {
    const options = { pf: '0000:77:00.0', container: 'shared', log: host.context.log } as const;
    await expect(openDeviceIn(host.context, options)).rejects.toThrow('no such PCI function');
  });

  it.each([
    ['has no IOMMU group', () => host.unlink(`${host.functionFolder(PF)}/iommu_group`)],
    ['has no SR-IOV', () => host.unlink(`${host.functionFolder(PF)}/sriov_totalvfs`)],
    ['it has no driver, not vfio-pci', () => host.unlink(`${host.functionFolder(PF)}/driver`)],
    [
      'it is a virtual function',
      () => host.link(`${host.functionFolder(PF)}/physfn`, '../0000:02:00.0'),
    ],
    [
      'shares its IOMMU group 7 with 0000:01:00.1',
      () => host.addFunction('0000:01:00.1', '7', 'e1000e'),
    ],
    ['enable_sriov off', () => host.write('sys/module/vfio_pci/parameters/enable_sriov', 'N\n')],
    ['the device has fallen off the bus', () => Object.assign(host, { isOffTheBus: true })],
  ])('a PF that %s is refused and nothing is left behind', async (reason, break_) => {
    break_();
    const message = reason.replace(/^has no SR-IOV$/, 'no SR-IOV capability');
    await expect(open()).rejects.toThrow(message);
    expect(host.openFds).toBe(0);
    expect(host.numVfsWrites).toEqual([]);
  });

  it('a bridge in the group of the PF does no harm', async () => {
    const bridge = host.addFunction('0000:00:04.0', '7', 'pcieport');
    host.write(`${bridge}/class`, '0x060400\n');
    await open();
  });

  it('a PF that somebody holds is refused', async () => {
    host.heldGroups.add('7');
    await expect(open()).rejects.toMatchObject({ errno: Errno.EBUSY });
    expect(host.openFds).toBe(0);
  });

  it('a device that is busy for a moment is asked again', async () => {
    const request = VfioRequest.groupGetDeviceFd;
    host.failures.push({ request, bdf: PF, errno: Errno.EAGAIN, times: 3 });
    await open();
  });

  it('VFs that a killed predecessor noted are removed', async () => {
    host.setVfs(2);
    host.write(`run/${PF}.json`, '{"enabledVfs":2}');
    await open();
    expect(host.numVfsWrites).toEqual([0, 1, 0]);
    expect(stateFile()).toBeUndefined();
  });

  it('VFs of a predecessor that somebody holds are not touched', async () => {
    host.setVfs(2);
    host.write(`run/${PF}.json`, '{"enabledVfs":2}');
    host.heldGroups.add('21');
    await expect(open()).rejects.toThrow('VF 1 by');
    expect(host.numVfsWrites).toEqual([]);
  });

  it('VFs that nobody noted are not touched', async () => {
    host.setVfs(2);
    await expect(open()).rejects.toThrow('2 VFs are enabled, and not by this program');
    expect(host.numVfsWrites).toEqual([]);
  });

  it('a second backend for the PF is refused', async () => {
    await open();
    await expect(open()).rejects.toThrow('another backend serves this PF');
  });
});

describe('making VFs', () => {
  it('all VFs are opened with the token that the PF was opened with', async () => {
    const device = await opened();
    const handles = await device.createVfs(3);
    expect(handles.map(({ index }) => index)).toEqual([0, 1, 2]);
    expect(host.numVfsWrites).toEqual([3]);
    expect(stateFile()).toBe('{"version":1,"enabledVfs":3}');
  });

  it('a write that the kernel refuses leaves nothing behind and says why', async () => {
    const device = await opened();
    host.numVfsErrors.push(Errno.ENOMEM);
    await expect(device.createVfs(2)).rejects.toThrow('not enough address space or bus numbers');
    expect(stateFile()).toBeUndefined();
  });

  it('a write that takes the kernel 10 s is waited for, and the log says so meanwhile', async () => {
    const clock = new ManualClock();
    host.clock = clock;
    const device = await opened();
    host.numVfsDelay = 10_000;
    const created = device.createVfs(2);
    await vi.waitFor(() => expect(host.numVfsWrites.at(-1)).toBe(2), SOON);
    clock.elapse(9_999);
    const message = 'the kernel has not finished writing sriov_numvfs yet';
    expect(host.log.filter((line) => line.message === message)).toHaveLength(3);
    clock.elapse(1);
    expect(await created).toHaveLength(2);
  });

  it('one VF of four that cannot be opened takes all of them away again', async () => {
    const device = await opened();
    const before = host.openFds;
    const request = VfioRequest.groupGetDeviceFd;
    host.failures.push({ request, bdf: host.vfBdf(2), errno: Errno.EIO, times: 1 });
    await expect(device.createVfs(4)).rejects.toThrow('does not answer');
    expect(host.numVfsWrites).toEqual([4, 0]);
    expect(host.openFds).toBe(before);
  });

  it('a VF of another PF is not touched', async () => {
    const device = await opened();
    host.vfOwner = '0000:02:00.0';
    const open = host.ioctls.length;
    await expect(device.createVfs(1)).rejects.toThrow('is no VF of 0000:01:00.0');
    expect(host.ioctls.slice(open)).toEqual([]);
  });

  it('a VF that shares its group is refused', async () => {
    const device = await opened();
    host.addFunction('0000:03:00.0', '20');
    await expect(device.createVfs(1)).rejects.toThrow('shares its IOMMU group 20 with');
    expect(host.numVfsWrites).toEqual([1, 0]);
  });

  it('VFs that are held after a failure stay, and that is said', async () => {
    const device = await opened();
    const request = VfioRequest.groupGetDeviceFd;
    host.failures.push({ request, bdf: host.vfBdf(0), errno: Errno.EIO, times: 1 });
    host.heldGroups.add('21');
    await expect(device.createVfs(2)).rejects.toMatchObject({ name: 'HostError' });
    expect(host.numVfsWrites).toEqual([2]);
    expect(host.log.map(({ message }) => message)).toContain(
      'VFs stay on the host after a failed enable: they are held',
    );
  });
});

describe('letting go', () => {
  it('sriov_numvfs is not written while somebody holds a VF', async () => {
    const device = await opened();
    await device.createVfs(2);
    host.numVfsWrites.length = 0;
    const held = device.releaseVfs();
    host.heldGroups.add('21');
    expect(await held).toEqual([{ vfIndex: 1, holder: expect.any(String) }]);
    await expect(device.destroyVfs()).rejects.toMatchObject({ errno: Errno.EBUSY });
    expect(host.numVfsWrites).toEqual([]);

    host.heldGroups.clear();
    expect(await device.releaseVfs()).toEqual([]);
    await device.destroyVfs();
    expect(host.numVfsWrites).toEqual([0]);
    expect(stateFile()).toBeUndefined();
  });

  it('VFs that are open here cannot be removed', async () => {
    const device = await opened();
    await device.createVfs(1);
    await expect(device.destroyVfs()).rejects.toThrow('destroyVfs before releaseVfs');
    expect(host.numVfsWrites).toEqual([1]);
  });

  it('close removes the VFs and every file', async () => {
    const device = await opened();
    await device.createVfs(2);
    await device.close();
    expect(host.numVfsWrites).toEqual([2, 0]);
    expect(host.openFds).toBe(0);
    expect(host.eventFds.size).toBe(0);
    await device.close();
  });

  it('close leaves VFs that are held, noted for the next start', async () => {
    const device = await opened();
    await device.createVfs(2);
    const closed = device.close();
    host.heldGroups.add('20');
    await closed;
    expect(host.numVfsWrites).toEqual([2]);
    expect(stateFile()).toBe('{"version":1,"enabledVfs":2}');
    expect(host.openFds).toBe(0);
  });

  it('the wish of the kernel to have a function back names that function', async () => {
    const device = await opened();
    const asked: number[] = [];
    device.onReleaseRequested((index) => asked.push(index));
    await device.createVfs(2);
    for (const fd of host.eventFds.keys()) {
      host.askBack(fd);
    }
    expect(asked.sort()).toEqual([PF_INDEX, 0, 1].sort());
  });
});

describe('a PF that is unbound', () => {
  /** What the kernel does: it removes the VFs, then asks for the PF. */
  function unbind(pfRequest: number): void {
    host.isUnbinding = true;
    host.setVfs(0);
    host.askBack(pfRequest);
  }

  it('is given back although the removal of its VFs cannot be written', async () => {
    const device = await opened();
    const [pfRequest] = host.eventFds.keys();
    await device.createVfs(2);
    await device.releaseVfs();
    unbind(pfRequest!);
    await device.destroyVfs();
    await device.close();
    expect(host.openFds).toBe(0);
  });

  it('is given back although VFs were to be made', async () => {
    const device = await opened();
    const [pfRequest] = host.eventFds.keys();
    unbind(pfRequest!);
    await expect(device.createVfs(2)).rejects.toThrow('the kernel asks for the PF back');
    await device.close();
    expect(host.openFds).toBe(0);
  });
});

describe('resets', () => {
  it('the reset of the PF waits for VFs that are being made', async () => {
    const device = await opened();
    await Promise.all([device.createVfs(1), device.resetFunction(PF_INDEX)]);
    const requests = host.ioctls.filter(({ bdf }) => bdf !== undefined);
    expect(requests.at(-1)).toEqual({ request: VfioRequest.deviceReset, bdf: PF });
  });

  it('a reset is tried again while the kernel has the device locked', async () => {
    const device = await opened();
    host.failures.push({ request: VfioRequest.deviceReset, errno: Errno.EAGAIN, times: 2 });
    await device.resetFunction(PF_INDEX);
    expect(host.ioctls.filter(({ request }) => request === VfioRequest.deviceReset)).toHaveLength(
      3,
    );
  });

  it('a slot whose VF is not there has nothing to reset', async () => {
    const device = await opened();
    await device.resetFunction(3);
    expect(host.ioctls).toEqual([]);
  });

  it('a device that cannot be reset says so', async () => {
    const device = await opened();
    host.failures.push({ request: VfioRequest.deviceReset, errno: Errno.ENOTTY, times: 1 });
    await expect(device.resetFunction(PF_INDEX)).rejects.toThrow('cannot be reset by itself');
  });
});

describe('guest memory', () => {
  const window = {
    address: 0x10_0000n,
    size: 0x4000_0000n,
    fd: 5,
    fileOffset: 0n,
    readable: true,
    writable: true,
  };

  it('a large window is mapped in chunks that end at multiples of 1 GiB', async () => {
    const device = await opened();
    await device.mapDma(PF_INDEX, window);
    expect(host.mapped).toEqual([
      { iova: 0x10_0000n, size: 0x3ff0_0000n },
      { iova: 0x4000_0000n, size: 0x10_0000n },
    ]);
    await device.unmapDma(PF_INDEX, window);
    expect(host.mapped).toEqual([]);
  });

  it('nothing of a window stays mapped when a later chunk fails', async () => {
    const device = await opened();
    host.mapped.push({ iova: 0x4000_0000n, size: 0x1000n });
    await expect(device.mapDma(PF_INDEX, window)).rejects.toMatchObject({ errno: Errno.EEXIST });
    expect(host.mapped).toEqual([{ iova: 0x4000_0000n, size: 0x1000n }]);
  });

  it('VFs are refused while a map has failed, until it is taken back', async () => {
    const device = await opened();
    host.failures.push({ request: VfioRequest.iommuMapDma, errno: Errno.ENOMEM, times: 1 });
    await expect(device.mapDma(PF_INDEX, window)).rejects.toThrow('RLIMIT_MEMLOCK');
    await expect(device.createVfs(1)).rejects.toMatchObject({ errno: Errno.ENOMEM });
    expect(host.numVfsWrites).toEqual([]);
    await device.unmapDma(PF_INDEX, window);
    await device.createVfs(1);
  });

  it('in a shared container a VF only confirms what the PF has', async () => {
    const device = await opened();
    await device.createVfs(1);
    await device.mapDma(PF_INDEX, window);
    const before = host.mapped.length;
    await device.mapDma(0, window);
    expect(host.mapped).toHaveLength(before);
    const other = { ...window, address: 0n, size: 0x1000n };
    await expect(device.mapDma(0, other)).rejects.toThrow('--container=per-function');
  });

  it('with containers of their own, a VF gets its windows when it is opened', async () => {
    const device = await opened('per-function');
    await device.mapDma(0, window);
    expect(host.mapped).toEqual([]);
    await device.createVfs(1);
    expect(host.mapped.map(({ size }) => size)).toEqual([0x3ff0_0000n, 0x10_0000n]);
  });

  it('a VF whose client sees other memory than the PF gets a container of its own', async () => {
    const device = await opened();
    await device.mapDma(0, { ...window, size: 0x1000n });
    const containersBefore = host.ioctls.filter(({ request }) => request === VfioRequest.setIommu);
    await device.createVfs(2);
    const containers = host.ioctls.filter(({ request }) => request === VfioRequest.setIommu);
    expect(containers.length - containersBefore.length).toBe(1);
    expect(host.mapped).toEqual([{ iova: 0x10_0000n, size: 0x1000n }]);
  });

  it('a VF whose memory the kernel does not map in its own container is closed and taken away', async () => {
    const device = await opened('per-function');
    const before = host.openFds;
    host.failures.push({ request: VfioRequest.iommuMapDma, errno: Errno.ENOMEM, times: 1 });
    await device.expectMemory([{ index: 1, windows: [window] }]);
    await expect(device.createVfs(2)).rejects.toMatchObject({ errno: Errno.ENOMEM });
    expect(host.numVfsWrites).toEqual([2, 0]);
    expect(host.openFds).toBe(before);
  });

  it('of VFs that were not made is forgotten', async () => {
    const device = await opened();
    await device.expectMemory([{ index: 0, windows: [{ ...window, address: 0x4000n }] }]);
    host.numVfsErrors.push(Errno.ENOMEM);
    await expect(device.createVfs(1)).rejects.toMatchObject({ errno: Errno.ENOMEM });
    const containers = (): number =>
      host.ioctls.filter(({ request }) => request === VfioRequest.setIommu).length;
    const before = containers();
    await device.createVfs(1);
    expect(containers()).toBe(before);
  });

  it('beyond what may be pinned is refused, for all functions together', async () => {
    const device = await open('per-function', Number(window.size));
    await device.createVfs(1);
    const page = { ...window, address: 0n, size: 0x1000n, fd: 6 };
    await device.mapDma(0, page);
    await expect(device.mapDma(PF_INDEX, window)).rejects.toThrow('raise --max-guest-memory');
    expect(host.mapped).toEqual([{ iova: 0n, size: 0x1000n }]);
    await device.releaseVfs();
    await device.unmapDma(PF_INDEX, window);
    await device.mapDma(PF_INDEX, window);
  });

  it('a window that nobody mapped cannot be unmapped', async () => {
    const device = await opened();
    await expect(device.unmapDma(PF_INDEX, window)).rejects.toMatchObject({ errno: Errno.ENOENT });
  });
});
