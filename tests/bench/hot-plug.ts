// Native hot-plug: from VfPlug to the first answered config read on the VF, all of 63 VFs at once, what each costs, and
// how soon the status is told while the host makes VFs.

import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { VfioUserClient } from '../../vmm-glue/client/client.ts';
import type { VfPlugEvent } from '../../vmm-glue/client/hotplug.ts';
import { UnixTransport } from '../../vmm-glue/client/unix-transport.ts';
import { type Figure, median, rounded } from './figure.ts';
import { residentKibibytes, startBackend } from './server-process.ts';

const CONFIG_REGION = 7;
const SRIOV = 0x110;
const CONTROL = SRIOV + 0x08;
const NUM_VFS = SRIOV + 0x10;
const VF_ENABLE_AND_MEMORY = 0x09;
const MANY = 63;
const BUSY_MILLISECONDS = 5000;
const STATUS_QUESTIONS = 50;

interface Round {
  /** Milliseconds from each VfPlug to the answer of the first read on that VF. */
  readonly plugToRead: readonly number[];
  /** Milliseconds from the write of VF Enable to the last of those answers. */
  readonly all: number;
  readonly backendKibibytes: number;
}

/** Figures plug-to-read, its baseline, enable-63, memory-per-vf and status-while-busy. */
export async function measureHotPlug(folder: string, rounds: number): Promise<Figure[]> {
  const path = join(folder, 'hot-plug.sock');
  const backend = await startBackend(path, [`--total-vfs=${MANY}`]);
  try {
    const pf = await VfioUserClient.connect(path, {
      capabilities: {
        sriov_hotplug: { version: 1, role: 'vmm' },
        sriov_status: { version: 1 },
      },
    });
    await pf.reset();
    const baseline = await connectToRead(path, rounds);
    const single: Round[] = [];
    const many: Round[] = [];
    await enableOnce(pf, MANY, backend.pid);
    const idle = residentKibibytes(backend.pid).total;
    for (let i = 0; i < rounds; i++) {
      single.push(await enableOnce(pf, 1, backend.pid));
      many.push(await enableOnce(pf, MANY, backend.pid));
    }
    pf.close();
    const perVf = median(many.map(({ backendKibibytes }) => backendKibibytes - idle)) / MANY / 1024;
    return [
      {
        figure: 'plug-to-read',
        value: rounded(median(single.flatMap(({ plugToRead }) => plugToRead))),
        unit: 'ms',
        limit: 2,
        details: { rounds },
      },
      {
        figure: 'plug-to-read-baseline',
        value: rounded(baseline),
        unit: 'ms',
        details: { rounds },
      },
      {
        figure: 'enable-63',
        value: rounded(median(many.map(({ all }) => all))),
        unit: 'ms',
        limit: 150,
        details: { all: many.map(({ all }) => rounded(all)) },
      },
      {
        figure: 'memory-per-vf',
        value: rounded(Math.max(0, perVf)),
        unit: 'MiB',
        limit: 1,
        details: { vfs: MANY, idleMebibytes: rounded(idle / 1024) },
      },
      {
        figure: 'status-while-busy',
        value: rounded(await statusWhileBusy(folder)),
        unit: 'ms',
        limit: 100,
        details: { worstOf: STATUS_QUESTIONS },
      },
    ];
  } finally {
    await backend.stop();
  }
}

/** The same steps without hot-plug: connect to a socket that is there, negotiate, read once. Milliseconds. */
async function connectToRead(path: string, rounds: number): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < rounds; i++) {
    const began = performance.now();
    const client = await VfioUserClient.connect(path, {
      capabilities: { sriov_status: { version: 1 } },
    });
    await client.getStatus();
    times.push(performance.now() - began);
    client.close();
  }
  return median(times);
}

/** The longest of many answers, each over a connection of its own, while the host has not made the VFs yet. */
async function statusWhileBusy(folder: string): Promise<number> {
  const path = join(folder, 'busy.sock');
  const backend = await startBackend(path, [`--enable-delay=${BUSY_MILLISECONDS}`]);
  try {
    const pf = await VfioUserClient.connect(path, {
      capabilities: { sriov_hotplug: { version: 1, role: 'vmm' } },
    });
    await pf.reset();
    await write16(pf, NUM_VFS, 1);
    await write16(pf, CONTROL, VF_ENABLE_AND_MEMORY);
    let longest = 0;
    for (let i = 0; i < STATUS_QUESTIONS; i++) {
      const began = performance.now();
      const observer = await VfioUserClient.connect(path, {
        capabilities: { sriov_status: { version: 1 } },
      });
      const { phase } = await observer.getStatus();
      longest = Math.max(longest, performance.now() - began);
      observer.close();
      if (phase !== 'creating') {
        throw new Error(`status-while-busy: the host is not busy: ${phase}`);
      }
    }
    pf.close();
    return longest;
  } finally {
    await backend.stop();
  }
}

async function enableOnce(pf: VfioUserClient, count: number, pid: number): Promise<Round> {
  const vfs: VfioUserClient[] = [];
  const plugToRead: number[] = [];
  const began = performance.now();
  let all = 0;
  const attach = async (event: VfPlugEvent): Promise<void> => {
    const plugged = performance.now();
    const vf = await VfioUserClient.over(new UnixTransport(event.takeFd()!));
    await vf.readRegion(CONFIG_REGION, 0, 4);
    plugToRead.push(performance.now() - plugged);
    vfs.push(vf);
    all = performance.now() - began;
    event.done();
  };
  await write16(pf, NUM_VFS, count);
  await write16(pf, CONTROL, VF_ENABLE_AND_MEMORY);
  const attached: Promise<void>[] = [];
  for await (const event of pf.hotplugEvents()) {
    if (event.kind === 'vfPlug') {
      attached.push(attach(event));
    } else if (event.kind === 'enableBegin') {
      event.done();
    } else if (event.kind === 'enableEnd') {
      break;
    }
  }
  await Promise.all(attached);
  const backendKibibytes = residentKibibytes(pid).total;
  await disable(pf, vfs);
  return { plugToRead, all, backendKibibytes };
}

async function disable(pf: VfioUserClient, vfs: readonly VfioUserClient[]): Promise<void> {
  await write16(pf, CONTROL, 0);
  let left = vfs.length;
  for await (const event of pf.hotplugEvents()) {
    if (event.kind !== 'vfUnplug') {
      continue;
    }
    vfs[event.message.vfIndex]?.close();
    event.done();
    left--;
    if (left === 0) {
      break;
    }
  }
  // The host removes the VFs behind the last answer.
  while ((await pf.getStatus()).phase !== 'disabled') {
    await sleep(1);
  }
}

async function write16(client: VfioUserClient, offset: number, value: number): Promise<void> {
  await client.writeRegion(CONFIG_REGION, offset, Uint8Array.of(value & 0xff, value >> 8));
}
