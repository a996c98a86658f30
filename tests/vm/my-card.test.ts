// examples/my-card: the card and its driver for Linux, in a guest of stock QEMU, as its README has people try them.
import { appendFile, cp, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildModules } from '../lab/kernel-build.ts';
import { SriovGuest } from './sriov-guest.ts';

const CARD = fileURLToPath(new URL('../../examples/my-card', import.meta.url));
const VFS = 4;
/** A compiler is fetched the first time. */
const FETCH_TIMEOUT_MS = 600_000;

let folder: string;
let guest: SriovGuest;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'my-card-'));
  const [module] = await buildModules(CARD, folder);
  guest = await SriovGuest.boot({
    device: [`--device=${CARD}/my-card.ts`],
    modules: [module!],
  });
}, FETCH_TIMEOUT_MS);

afterAll(async () => {
  await guest?.end();
  await rm(folder, { recursive: true, force: true });
});

/** The file of a function that the driver made. */
function file(address: string, name: string): string {
  return `/sys/bus/pci/devices/${address}/${name}`;
}

/** What came by each vector; waits for `wanted`, since nobody else tells that an interrupt has come. */
async function expectInterrupts(address: string, wanted: string): Promise<void> {
  const read = `tr '\\n' ' ' < ${file(address, 'interrupts')}`;
  const isThere = `[ "$(${read})" = "${wanted} " ]`;
  const output = await guest.vm.check(
    `for try in $(seq 50); do ${isThere} && break; sleep 0.1; done; ${read}`,
  );
  expect(output.trim()).toBe(wanted);
}

it('does not compile with a mistake in it: what the compiler says is shown as it says it, with the file’s own path', async () => {
  const wrong = join(folder, 'wrong');
  await cp(CARD, wrong, { recursive: true });
  await appendFile(join(wrong, 'my_card.c'), 'static int wrong(void) { return missing; }\n');
  await expect(buildModules(wrong, folder)).rejects.toThrow(
    /^\S+\/wrong: it does not compile; mend what the compiler names\n(.*\n)*\S+\/wrong\/my_card\.c:\d+:\d+: error: 'missing'/,
  );
});

describe('the PF', () => {
  it('has a doorbell that counts, and raises an interrupt each time', async () => {
    const doorbell = file(guest.pf, 'doorbell');
    for (const count of [1, 2]) {
      expect(await guest.vm.check(`echo 7 > ${doorbell}; cat ${doorbell}`)).toBe(String(count));
      await expectInterrupts(guest.pf, `doorbell ${count} mailbox 0 dma 0`);
    }
  });

  it('sends itself a message', async () => {
    const mailbox = file(guest.pf, 'mailbox');
    expect(await guest.vm.check(`echo 0 0x1234 > ${mailbox}; cat ${mailbox}`)).toBe('0 0x00001234');
  });

  it('finds nobody in the mailbox of a VF that is not there', async () => {
    const { output } = await guest.vm.run(`echo 1 5 > ${file(guest.pf, 'mailbox')}`);
    expect(output).toContain('No such device or address');
  });

  it('copies guest memory', async () => {
    const dma = file(guest.pf, 'dma');
    expect(await guest.vm.check(`echo by way of the card > ${dma}; cat ${dma}`)).toBe(
      'by way of the card',
    );
    await expectInterrupts(guest.pf, 'doorbell 2 mailbox 1 dma 1');
  });
});

describe('its VFs', () => {
  beforeAll(async () => {
    await guest.setNumVfs(VFS);
  });

  it('each are bound by the same driver, as a function of their own', async () => {
    const log = await guest.vm.check('dmesg');
    const functions = [...log.matchAll(/my_card (\S+): function (\d) of the card/g)];
    expect(functions.map(([, address, number]) => `${address} ${number}`)).toEqual([
      `${guest.pf} 0`,
      ...Array.from({ length: VFS }, (_, vf) => `${guest.vf(vf)} ${vf + 1}`),
    ]);
  });

  it('each copy guest memory, and are told by an interrupt of their own', async () => {
    for (let vf = 0; vf < VFS; vf++) {
      const dma = file(guest.vf(vf), 'dma');
      expect(await guest.vm.check(`echo VF ${vf} > ${dma}; cat ${dma}`)).toBe(`VF ${vf}`);
      await expectInterrupts(guest.vf(vf), 'doorbell 0 mailbox 0 dma 1');
    }
  });

  it('hear from the PF, and answer', async () => {
    const [pf, last] = [file(guest.pf, 'mailbox'), file(guest.vf(VFS - 1), 'mailbox')];
    expect(await guest.vm.check(`echo ${VFS} 0xabcd > ${pf}; cat ${last}`)).toBe('0 0x0000abcd');
    expect(await guest.vm.check(`echo 0 99 > ${last}; cat ${pf}`)).toBe(`${VFS} 0x00000063`);
  });

  it('go, and come again', async () => {
    await guest.setNumVfs(0);
    expect(await guest.virtfns()).toEqual([]);
    await guest.setNumVfs(1);
    const dma = file(guest.vf(0), 'dma');
    expect(await guest.vm.check(`echo again > ${dma}; cat ${dma}`)).toBe('again');
  });

  it('go with the driver, of which nothing stays behind', async () => {
    await guest.vm.check('rmmod my_card');
    expect(await guest.virtfns()).toEqual([]);
    await guest.vm.check('load my_card');
    const dma = file(guest.pf, 'dma');
    expect(await guest.vm.check(`echo anew > ${dma}; cat ${dma}`)).toBe('anew');
  });
});

it('does what its README has people type', async () => {
  const readme = await readFile(join(CARD, 'README.md'), 'utf8');
  const typed = /```sh\n(cd \$PF\n[\s\S]*?)```/.exec(readme)![1]!.trim().split('\n');
  await guest.vm.check(`rmmod my_card && echo 1 > ${file(guest.pf, 'reset')} && load my_card`);
  const script = typed.map((line) => `${line}\necho =====\n`).join('');
  const output = await guest.vm.check(`PF=/sys/bus/pci/devices/${guest.pf}\nset -e\n${script}`);
  const printed = output.split('=====').map((each) => each.split(/\s+/).join(' '));
  const promises = typed.map((line) => /# prints ([^:,]+)/.exec(line)?.[1] ?? '');
  expect(promises.filter((promise) => promise !== '')).toHaveLength(6);
  for (const [at, promise] of promises.entries()) {
    expect(printed[at]).toContain(promise);
  }
});

it('neither the kernel nor QEMU had anything to complain of', async () => {
  const { output } = await guest.vm.run(
    "dmesg | grep -E 'my_card|WARNING:|BUG:|Call Trace' | grep -v 'of the card'",
  );
  // A module that is not of the kernel's own source says so.
  expect(output.trim()).toMatch(
    /^.*my_card: loading out-of-tree module taints kernel\.(\n.*module verification failed.*)?$/,
  );
  await guest.expectNoComplaints();
});
