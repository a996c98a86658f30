// What a guest sees when something goes wrong with its device on purpose, and how it is asked for: by a client, by `fault`,
// and by `serve --fault`.
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Errno } from '../../protocol/errno.ts';
import { HotplugCommand } from '../../protocol/hotplug/commands.ts';
import { IrqIndex } from '../../protocol/vfio-user/commands.ts';
import type { VfioUserClient } from '../../vmm-glue/client/client.ts';
import { Interrupt } from '../../vmm-glue/client/interrupts.ts';
import { LoopbackDriver } from '../../vmm-glue/reference-vmm/loopback-driver.ts';
import type { PciFunction } from '../../vmm-glue/reference-vmm/pci-function.ts';
import type { ReferenceVmm } from '../../vmm-glue/reference-vmm/reference-vmm.ts';
import { Backend, expectSoon } from './backend.ts';
import { reachPhase, startVmm, statusOf } from './hotplug-guest.ts';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const PF_IDS = 0x0053_1d0f;
const ALL_ONES = 0xffff_ffff;
const At = { ids: 0, command: 4, deviceStatus: 0x70 + 0x0a, aer: 0x150 } as const;
const Aer = { uncorrectableStatus: At.aer + 4, correctableStatus: At.aer + 0x10 } as const;

let backend: Backend;
let vmm: ReferenceVmm;
let operator: VfioUserClient;

beforeAll(async () => {
  backend = await Backend.start('--total-vfs=3');
});
beforeEach(async () => {
  vmm = await startVmm(backend);
  operator = await backend.connect({ capabilities: { sriov_status: { version: 1 } } });
});
afterEach(async () => {
  await operator.faults({ clear: 0 });
  await vmm.close();
  await backend.disconnect();
  await reachPhase(backend, 'disabled');
});
afterAll(() => backend.stop());

async function arm(rule: string): Promise<void> {
  expect(await operator.faults({ add: rule })).toMatchObject({ refusal: null });
}

async function firedOf(rule: string): Promise<number | undefined> {
  const { faults } = await operator.faults();
  return faults.find((each) => each.rule === rule)?.fired;
}

const ids = (of: PciFunction): Promise<number> => of.config.read(At.ids, 4);

async function enabledVf(): Promise<PciFunction> {
  const [vf] = await vmm.enableVfs(1);
  await vf!.setBusMaster(true);
  return vf!;
}

describe('making VFs', () => {
  it('fails as hardware fails, and works again once it is cleared', async () => {
    await arm('vf-enable:fail');
    await expect(vmm.enableVfs(2)).rejects.toThrow('EIO in Linux');
    expect((await statusOf(backend)).failure).toContain('the fault vf-enable:fail was asked for');
    await reachPhase(backend, 'disabled');
    await operator.faults({ clear: 1 });
    await operator.faults({ clear: 0 });
    expect(await vmm.enableVfs(2)).toHaveLength(2);
  });

  it('takes its time', async () => {
    await arm('vf-enable:delay=120ms');
    const began = performance.now();
    await vmm.enableVfs(1);
    expect(performance.now() - began).toBeGreaterThanOrEqual(115);
  });

  it('leaves one of them absent: all-ones, upon which Linux gives the others up, too', async () => {
    await arm('vf=1:absent');
    await expect(vmm.enableVfs(3)).rejects.toThrow('VF 1: it reads all ones');
    await reachPhase(backend, 'disabled');
    expect(await vmm.enableVfs(1)).toHaveLength(1);
  });
});

describe('a function level reset', () => {
  it('of the PF hangs: all-ones for as long as anybody looks', async () => {
    await arm('flr:hang@function=pf');
    await expect(vmm.pf.functionLevelReset(async () => {})).rejects.toThrow('it is not ready');
    expect(await ids(vmm.pf)).toBe(ALL_ONES);
    await operator.faults({ clear: 0 });
    await expectSoon(() => ids(vmm.pf), PF_IDS);
  });

  it('of the PF that hangs is over when the VMM resets it', async () => {
    await arm('flr:hang');
    await expect(vmm.pf.functionLevelReset(async () => {})).rejects.toThrow('it is not ready');
    await vmm.pf.client.reset();
    expect(await ids(vmm.pf)).toBe(PF_IDS);
  });

  it('of a VF takes its time', async () => {
    const vf = await enabledVf();
    await arm('flr:delay=150ms@function=vf0');
    const began = performance.now();
    await vf.functionLevelReset(() => new Promise((resolve) => setTimeout(resolve, 10)));
    expect(performance.now() - began).toBeGreaterThanOrEqual(145);
    expect(await firedOf('flr:delay=150ms@function=vf0')).toBe(1);
  });
});

describe('config space', () => {
  it('reads all-ones when its reads have been counted', async () => {
    await arm('config-read:all-ones@after=2,times=1,function=pf');
    const reads = [];
    for (let read = 0; read < 4; read++) {
      reads.push(await ids(vmm.pf));
    }
    expect(reads).toEqual([PF_IDS, PF_IDS, ALL_ONES, PF_IDS]);
  });

  it.each([
    ['correctable', Aer.correctableStatus, 0x1, 0x1],
    ['nonfatal', Aer.uncorrectableStatus, 0x4000, 0x2],
    ['fatal', Aer.uncorrectableStatus, 0x4_0000, 0x4],
  ])('shows a %s error, until ones are written to its bits', async (severity, at, bit, status) => {
    await arm(`aer:${severity}@function=pf`);
    const error = new Interrupt();
    await vmm.pf.client.bindInterrupts(IrqIndex.err, 0, [error]);
    try {
      expect(await vmm.pf.config.read(at, 4)).toBe(bit);
      expect((await vmm.pf.config.read(At.deviceStatus, 2)) & 0xf).toBe(status);
      // A VMM that plugs VFs by itself hears of what is not correctable.
      expect(error.drain()).toBe(severity === 'correctable' ? 0n : 1n);
      await vmm.pf.config.write(at, 4, bit);
      await vmm.pf.config.write(At.deviceStatus, 2, status);
      expect(await vmm.pf.config.read(at, 4)).toBe(0);
      expect((await vmm.pf.config.read(At.deviceStatus, 2)) & 0xf).toBe(0);
    } finally {
      error.close();
    }
  });
});

describe('DMA and interrupts', () => {
  it('DMA fails as often as it is to', async () => {
    const vf = await enabledVf();
    const driver = new LoopbackDriver(vf);
    const job = { source: 0x1000n, destination: 0x2000n, length: 16, vector: 0 };
    await arm('dma:error@every=4');
    await driver.copy(job);
    await expect(driver.copy(job)).rejects.toThrow('DMA failed');
    expect(await firedOf('dma:error@every=4')).toBe(1);
  });

  it('a vector is lost, and only that one', async () => {
    const vf = await enabledVf();
    const driver = new LoopbackDriver(vf);
    const interrupts = await vf.enableMsix();
    await arm('msix:lost@vector=3');
    await driver.ring(3);
    await driver.ring(1);
    expect(await interrupts[1]!.next()).toBe(1n);
    expect(interrupts[3]!.drain()).toBe(0n);
    expect(await firedOf('msix:lost@vector=3')).toBe(1);
  });

  it('one comes that nobody raised', async () => {
    const vf = await enabledVf();
    const interrupts = await vf.enableMsix();
    await arm('msix:spurious=5ms@vector=2,times=1,function=vf0');
    expect(await interrupts[2]!.next()).toBe(1n);
  });
});

it('a card that is pulled out answers nothing, and raises and moves nothing', async () => {
  const vf = await enabledVf();
  const interrupts = await vf.enableMsix();
  await arm('surprise-removal');
  expect([await ids(vmm.pf), await vf.config.read(At.command, 2)]).toEqual([ALL_ONES, 0xffff]);
  expect(await vf.readRegister(0, 0)).toBe(ALL_ONES);
  await new LoopbackDriver(vf).ring(1);
  expect(interrupts[1]!.drain()).toBe(0n);
  await operator.faults({ clear: 0 });
  expect(await ids(vmm.pf)).toBe(PF_IDS);
  expect((await new LoopbackDriver(vf).probe()).functionNumber).toBe(1);
});

describe('asking for it', () => {
  function cli(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
    return new Promise((resolve) => {
      execFile(process.execPath, [CLI, ...args], { timeout: 20_000 }, (error, stdout, stderr) => {
        resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr });
      });
    });
  }

  it('`fault` adds, lists and clears, and `status` shows it', async () => {
    const at = `--socket-path=${backend.socketPath}`;
    const added = await cli('fault', 'add', 'flr:hang', at);
    expect(added.stdout).toMatch(/^\d+ {2}flr:hang {2}fired 0 times\n$/);
    expect((await cli('status', at)).stdout).toMatch(/[├└]─ fault \d+: flr:hang, fired 0 times\n/);
    const [id] = added.stdout.split(' ');
    expect(await cli('fault', 'clear', id!, at)).toMatchObject({ code: 0, stdout: '', stderr: '' });
    expect(await cli('fault', 'list', at)).toEqual({
      code: 0,
      stdout: '',
      stderr: 'no fault is armed\n',
    });
    expect(await cli('fault', 'clear', id!, at)).toMatchObject({
      code: 2,
      stderr: `vfio-user-sriov: fault clear: no fault has the number ${id}; see \`fault list\`\n`,
    });
  });

  it('what is no rule is shown with its place', async () => {
    const place = '  dma:error@evry=100\n            ^\n';
    const { code, stderr } = await cli(
      'fault',
      'add',
      'dma:error@evry=100',
      `--socket-path=${backend.socketPath}`,
    );
    expect([code, stderr]).toEqual([
      2,
      `vfio-user-sriov: fault add: dma:error has no condition "evry"; choose one of after, every, times, function\n${place}`,
    ]);
    const serve = await cli(
      'serve',
      '--loopback',
      `--socket-path=${backend.socketPath}.2`,
      '--fault=dma:error@evry=100',
    );
    expect(serve.code).toBe(2);
    expect(serve.stderr).toContain(
      `vfio-user-sriov: --fault: dma:error has no condition "evry"; choose one of after, every, times, function\n${place}`,
    );
  });

  it('several can be there from the start', async () => {
    const other = await Backend.start('--fault=flr:hang', '--fault=dma:error@after=5');
    try {
      const client = await other.connect({ capabilities: { sriov_status: { version: 1 } } });
      expect((await client.faults()).faults.map(({ rule }) => rule)).toEqual([
        'flr:hang',
        'dma:error@after=5',
      ]);
    } finally {
      await other.stop();
    }
  });

  it.each(['', '[]x', '{"add":7}', '{"clear":1.5}', '{"add":"flr:hang","clear":1}'])(
    'a body that is no request is refused: %s',
    async (body) => {
      const call = operator.call(HotplugCommand.faults, new TextEncoder().encode(body));
      await expect(call).rejects.toMatchObject({ errno: Errno.EINVAL });
    },
  );

  it('is for those who may observe', async () => {
    await expect(vmm.pf.client.faults()).rejects.toMatchObject({ errno: Errno.EPERM });
  });
});
