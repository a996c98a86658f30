import { afterEach, beforeEach, expect, it } from 'vitest';
import { withRoot } from '../../../../../backend/devices/vfio/linux-context.ts';
import { openDeviceIn } from '../../../../../backend/devices/vfio/open-vfio-device.ts';
import {
  decodeReply,
  encodeReply,
  Operation,
  REPLY_BYTES,
} from '../../../../../backend/devices/vfio/privileged/messages.ts';
import { openerOf } from '../../../../../backend/devices/vfio/privileged/opener.ts';
import type {
  Answer,
  Handlers,
} from '../../../../../backend/devices/vfio/privileged/request-server.ts';
import { writerOf } from '../../../../../backend/devices/vfio/privileged/writer.ts';
import { PciFunctionFolder } from '../../../../../backend/devices/vfio/sysfs.ts';
import { Errno } from '../../../../../protocol/errno.ts';
import { tryLock } from '../../../../../protocol/unix/flock.ts';
import { makeGate } from '../../../../fakes/gate.ts';
import { FakeVfioHost, PF } from '../../../../fakes/vfio-host.ts';

let host: FakeVfioHost;
let pf: PciFunctionFolder;
let opener: Handlers;

beforeEach(() => {
  host = new FakeVfioHost();
  pf = new PciFunctionFolder(host.context.folders.sysfs, PF);
  opener = openerOf(host.context, pf);
});
afterEach(() => host.remove());

const writer = (write: (count: number) => Promise<number>) =>
  writerOf(host.context, pf, { read: async () => host.enabled, write, close: () => {} });

/** What is replied, once. */
async function answer(handlers: Handlers, operation: Operation, argument: number): Promise<Answer> {
  const answers: Answer[] = [];
  await handlers[operation]!(argument, (given) => answers.push(given));
  expect(answers).toHaveLength(1);
  return answers[0]!;
}

it('no group is opened between the look at the VFs and the 0', async () => {
  host.setVfs(1);
  const order: string[] = [];
  const gate = makeGate();
  const slow = writer(async () => {
    await gate.opened;
    order.push('0 written');
    host.setVfs(0);
    return 0;
  });
  const opened = async () => {
    const given = await answer(opener, Operation.openGroup, 20);
    order.push('asked for the VF');
    return given;
  };
  const answers = Promise.all([answer(slow, Operation.writeNumVfs, 0), opened()]);
  for (let turn = 0; turn < 20; turn++) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  gate.open();
  const [zero, group] = await answers;
  expect(order).toEqual(['0 written', 'asked for the VF']);
  expect(zero).toEqual({ errno: 0 });
  expect(group).toEqual({ errno: Errno.ENODEV });
});

it('a group that is handed over is the asker’s alone before the writer looks who holds it', async () => {
  host.setVfs(1);
  let isWriterKeptOut: boolean | undefined;
  await opener[Operation.openGroup]!(20, ({ fd }) => {
    isWriterKeptOut = tryLock(`${host.context.folders.state}/${PF}.vfs.lock`) === undefined;
    void host.calls.close(fd!);
  });
  expect(isWriterKeptOut).toBe(true);
});

it('where a VF cannot be looked at, no 0 is written', async () => {
  host.setVfs(2);
  const counts: number[] = [];
  const calls = { ...host.calls, open: async () => -Errno.EMFILE };
  const blind = writerOf({ ...host.context, calls }, pf, {
    read: async () => 2,
    write: async (count) => {
      counts.push(count);
      return 0;
    },
    close: () => {},
  });
  expect(await answer(blind, Operation.writeNumVfs, 0)).toEqual({ errno: Errno.EMFILE });
  expect(counts).toEqual([]);
});

it('a VF that shares its group, says to be another PF’s, or is not with vfio-pci is not opened', async () => {
  host.setVfs(1);
  host.addFunction('0000:01:00.1', '20', 'e1000e');
  expect(await answer(opener, Operation.openGroup, 20)).toEqual({ errno: Errno.EPERM });
  host.vfOwner = '0000:09:00.0';
  host.setVfs(2);
  expect(await answer(opener, Operation.openGroup, 21)).toEqual({ errno: Errno.ENODEV });
  host.vfOwner = PF;
  host.vfDriver = 'igbvf';
  host.setVfs(3);
  expect(await answer(opener, Operation.openGroup, 22)).toEqual({ errno: Errno.ENOENT });
  expect(host.openFds).toBe(0);
});

it('a VF is taken from another driver, and never from vfio-pci', async () => {
  const bound: string[] = [];
  const binding = openerOf(
    { ...host.context, bindVf: async ({ bdf }) => void bound.push(bdf) },
    pf,
  );
  host.setVfs(1);
  expect(await answer(binding, Operation.bindVf, 20)).toEqual({ errno: 0 });
  expect(bound).toEqual([]);
  host.vfDriver = 'igbvf';
  host.setVfs(1);
  expect(await answer(binding, Operation.bindVf, 20)).toEqual({ errno: 0 });
  expect(bound).toEqual([host.vfBdf(0)]);
});

it('a text that is longer than a reply is cut off at a whole character', () => {
  const bytes = new Uint8Array(REPLY_BYTES);
  const reply = { version: 1, operation: 3, errno: 0, value: 7 };
  encodeReply({ ...reply, text: `x${'é'.repeat(100)}` }, bytes);
  expect(decodeReply(bytes)).toEqual({ ...reply, text: `x${'é'.repeat(57)}` });
});

it('a backend whose user may open the PF alone asks root for its VFs, and for nothing else', async () => {
  const asked: string[] = [];
  const { context } = host;
  const isVf = (path: string) => /\/2\d$/.test(path);
  const calls = {
    ...context.calls,
    open: async (path: string) => (isVf(path) ? -Errno.EACCES : context.calls.open(path)),
  };
  const root = {
    openGroup: async (group: string) => {
      asked.push(group);
      return context.calls.open(`${context.folders.dev}/vfio/${group}`);
    },
    bindVf: async () => {},
    holderOf: async (group: string) => `the holder of ${group}`,
    numVfs: context.startWriter,
  };
  const device = await openDeviceIn(withRoot({ ...context, calls }, root), {
    pf: PF,
    container: 'shared',
    log: context.log,
  });
  asked.length = 0;
  await device.createVfs(2);
  expect(asked.sort()).toEqual(['20', '21']);
  host.heldGroups.add('21');
  expect(await device.releaseVfs()).toEqual([{ vfIndex: 1, holder: 'the holder of 21' }]);
  host.heldGroups.clear();
  await device.destroyVfs();
  await device.close();
  expect(host.openFds).toBe(0);
});

it('a VF that the kernel did not give to vfio-pci is given to it by root', async () => {
  const { context } = host;
  host.vfDriver = 'igbvf';
  const bound: string[] = [];
  const root = {
    openGroup: async () => -Errno.EACCES,
    bindVf: async (group: string) => {
      bound.push(group);
      host.link(`${host.functionFolder(host.vfBdf(0))}/driver`, '../../drivers/vfio-pci');
    },
    holderOf: async () => '',
    numVfs: context.startWriter,
  };
  const device = await openDeviceIn(withRoot(context, root), {
    pf: PF,
    container: 'shared',
    log: context.log,
  });
  expect(bound).toEqual(['20']);
  await device.close();
});
