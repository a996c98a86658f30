// How the glue gets hold of a QEMU and its backends, and when it says that it cannot.
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { programName } from '../../../protocol/unix/program-version.ts';
import { HeaderFlag } from '../../../protocol/vfio-user/messages.ts';
import { encodeVersion } from '../../../protocol/vfio-user/version.ts';
import { QemuGlue } from '../../../vmm-glue/qemu/glue.ts';
import { FakeBackend } from '../../fakes/hotplug-backend.ts';
import { ManualClock } from '../../fakes/manual-clock.ts';
import { GlueRig, LOG, PF } from './glue-rig.ts';

let rig: GlueRig;

/** What a backend answers that names itself. */
function versionReply(request: Buffer, program: string): Buffer {
  const body = encodeVersion(0, 0, { sriov_hotplug: { version: 1, program } });
  const header = Buffer.alloc(16);
  request.copy(header, 0, 0, 4);
  header.writeUInt32LE(header.length + body.length, 4);
  header.writeUInt32LE(HeaderFlag.reply, 8);
  return Buffer.concat([header, body]);
}

beforeEach(async () => {
  rig = await GlueRig.start();
});

afterEach(() => rig.end());

it('waits for a QEMU that greets while it is still making its devices', async () => {
  const clock = new ManualClock();
  rig.qemu.react('qmp_capabilities', { first: () => clock.elapse(700) });
  await rig.attach({ commandMilliseconds: 500, clock });
  expect(rig.qemu.isRunning).toBe(true);
});

it('connects to its backends when everything else is ready: they count on it from then on', async () => {
  const seen: string[][] = [];
  await rig.attach({
    connectBackend: async () => {
      seen.push([...rig.qemu.commands]);
      return rig.backend;
    },
  });
  // The last of the warm-up.
  expect(seen).toEqual([expect.arrayContaining(['i /w 0xcf8'])]);
  expect(seen[0]!.at(-1)).toBe('i /w 0xcf8');
});

describe('attaching is refused', () => {
  it('when another glue serves this QEMU', async () => {
    await rig.attach();
    await expect(
      QemuGlue.start({
        qmpPath: rig.qemu.path,
        socketPaths: [PF],
        log: LOG,
        connectBackend: async () => new FakeBackend(),
      }),
    ).rejects.toThrow('another glue already serves this QEMU');
  });

  it('when a backend is of another version of this program, with both names', async () => {
    const path = join(rig.folder, 'other.sock');
    const server = createServer((socket) => {
      socket.once('data', (request) =>
        socket.write(versionReply(request, 'vfio-user-sriov 9.9.9')),
      );
    }).listen(path);
    rig.qemu.functions = [{ id: 'sriov-pf0', bus: 1, devfn: 0, socketPath: path }];
    await expect(
      QemuGlue.start({ qmpPath: rig.qemu.path, socketPaths: [path], log: LOG }),
    ).rejects.toThrow(
      `backend at ${path}: it is vfio-user-sriov 9.9.9, and this glue ${programName()}`,
    );
    server.close();
  });

  it('when there is no QEMU', async () => {
    const start = (qmpPath: string) => QemuGlue.start({ qmpPath, socketPaths: [PF], log: LOG });
    await expect(start(join(rig.folder, 'none'))).rejects.toThrow('no such socket');
    await expect(start('/nowhere/qmp')).rejects.toThrow('QMP socket /nowhere/qmp');
  });

  it('when QEMU does not have the backend’s PF', async () => {
    rig.qemu.functions = [];
    await expect(rig.attach()).rejects.toThrow('qemu-args');
  });

  it('when nobody serves the backend’s socket', async () => {
    await expect(
      QemuGlue.start({ qmpPath: rig.qemu.path, socketPaths: [join(rig.folder, 'none')], log: LOG }),
    ).rejects.toThrow(/QEMU has no vfio-user-pci device/);
    rig.qemu.functions[0] = { ...rig.qemu.functions[0]!, socketPath: join(rig.folder, 'none') };
    await expect(
      QemuGlue.start({ qmpPath: rig.qemu.path, socketPaths: [join(rig.folder, 'none')], log: LOG }),
    ).rejects.toThrow(/backend at .*none: .*vfio-user-sriov serve/);
  });
});
