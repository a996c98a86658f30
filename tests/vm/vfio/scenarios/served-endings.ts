// Scenarios, by name in `argv[2]`: how backend and VMM part, in order or not. Each ends with the host as it was.
import { strict as assert } from 'node:assert';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { IrqIndex } from '../../../../protocol/vfio-user/commands.ts';
import { Interrupt } from '../../../../vmm-glue/client/interrupts.ts';
import { GuestMemory } from '../../../../vmm-glue/client/memory.ts';
import { ReferenceVmm } from '../../../../vmm-glue/reference-vmm/reference-vmm.ts';
import { BackendProcess } from './backend-process.ts';
import { PF, PF_FOLDER, readPf, step, until } from './scenario.ts';

const SOCKET = '/tmp/endings.sock';
/** Written by `probe`: each start is spared a look at a VF. */
const PROFILE = '--profile=/tmp/igb.json';
const start = () => step('the backend starts', () => BackendProcess.start(SOCKET, [PROFILE]));
const boot = () => step('a VM boots', () => ReferenceVmm.start({ pf: SOCKET }));

async function expectGone(backend: BackendProcess): Promise<void> {
  await backend.reaches('disabled');
  assert.equal(readPf('sriov_numvfs'), '0');
}

async function expectWorks(): Promise<void> {
  const vmm = await ReferenceVmm.start({ pf: SOCKET });
  await vmm.enableVfs(2);
  assert.equal(readPf('sriov_numvfs'), '2');
  await vmm.disableVfs();
  await vmm.close();
}

const endings: Record<string, () => Promise<void>> = {
  async 'vmm-leaves'() {
    const backend = await start();
    const vmm = await boot();
    await step('VFs are enabled', () => vmm.enableVfs(2));
    await step('the VMM leaves with VFs enabled, and they go', async () => {
      await vmm.close();
      await expectGone(backend);
    });
    await step('the next VMM works', expectWorks);
    await backend.end();
  },

  async 'vmm-killed'() {
    const backend = await start();
    const program = fileURLToPath(new URL('./vmm-until-killed.js', import.meta.url));
    const vmm = spawn(process.execPath, [program, SOCKET, '3'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await step('a VM in another process enables VFs', () => once(vmm.stdout!, 'data'));
    assert.equal(readPf('sriov_numvfs'), '3');
    await step('it is killed, and the VFs go', async () => {
      vmm.kill('SIGKILL');
      await expectGone(backend);
    });
    await step('the next VMM works', expectWorks);
    await backend.end();
  },

  async 'vmm-keeps-vfs'() {
    const backend = await start();
    const vmm = await boot();
    await step('VFs are enabled', () => vmm.enableVfs(2));
    vmm.unplugManners = 'lie';
    await step(
      'a VMM that keeps mapping VFs has them quarantined, not the host stuck',
      async () => {
        await vmm.disableVfs();
        const { quarantine } = await backend.reaches('quarantined');
        assert.deepEqual(
          quarantine.map(({ vfIndex }) => vfIndex),
          [0, 1],
        );
        assert.match(quarantine[0]!.holder, new RegExp(`pid ${process.pid} `));
        assert.equal(readPf('sriov_numvfs'), '2');
      },
    );
    await step('the next enable fails as hardware does', async () => {
      vmm.unplugManners = 'release';
      await assert.rejects(vmm.enableVfs(1), /EIO/);
    });
    await step('when it lets go, the VFs go', async () => {
      await vmm.releaseVfs();
      await expectGone(backend);
    });
    await step('VFs can be enabled again', () => vmm.enableVfs(2));
    await vmm.close();
    await backend.end();
  },

  async 'backend-terminated'() {
    const backend = await start();
    const vmm = await boot();
    await step('VFs are enabled', () => vmm.enableVfs(2));
    await step('SIGTERM: the VFs go, and the backend ends with 0', async () => {
      assert.equal(await backend.end('SIGTERM'), 0);
      assert.equal(readPf('sriov_numvfs'), '0');
    });
    vmm.kill();
    const next = await start();
    await step('the next backend works', expectWorks);
    await next.end();
  },

  async 'backend-killed'() {
    const backend = await start();
    const vmm = await boot();
    await step('VFs are enabled', () => vmm.enableVfs(2));
    // As a stock QEMU, which keeps a device whose server has gone.
    vmm.unplugManners = 'ignore';
    await step('the backend is killed; the VMM lives and holds PF and VFs', async () => {
      await backend.end('SIGKILL');
      assert.equal(readPf('sriov_numvfs'), '2');
    });
    await step('the next start names the VMM and touches nothing', async () => {
      await assert.rejects(BackendProcess.start(SOCKET), (error: Error) => {
        console.log(error.message);
        assert.match(error.message, new RegExp(`pid ${process.pid} \\(`));
        assert.ok(!error.message.includes('    at '), 'no stack for a person');
        return true;
      });
      assert.equal(readPf('sriov_numvfs'), '2');
    });
    vmm.kill();
    const next = await start();
    await next.logs(/removed the VFs that a predecessor left/);
    await step('once the VMM has gone, the next backend cleans up and works', expectWorks);
    await next.end();
  },

  async 'backend-killed-idle'() {
    const backend = await start();
    const vmm = await boot();
    await step('the backend is killed; the VMM lives and holds the PF by its mapping', () =>
      backend.end('SIGKILL'),
    );
    await step('the next start names the VMM', () =>
      assert.rejects(BackendProcess.start(SOCKET), new RegExp(`in use by pid ${process.pid} \\(`)),
    );
    vmm.kill();
    const next = await start();
    await step('once the VMM has gone, the next backend works', expectWorks);
    await next.end();
  },

  async 'pf-unbound'() {
    const backend = await start();
    const vmm = await boot();
    await step('VFs are enabled', () => vmm.enableVfs(1));
    const request = new Interrupt();
    await vmm.pf.client.bindInterrupts(IrqIndex.req, 0, [request]);
    const unbound = writeFile(`${PF_FOLDER}/driver/unbind`, PF);
    await step('the wish of the kernel to have the PF back reaches the VMM', () => request.next());
    await step('the VMM lets go, the backend ends, and the PF leaves its driver', async () => {
      await vmm.close();
      assert.equal(await backend.ended(), 0);
      await unbound;
      assert.ok(!existsSync(`${PF_FOLDER}/driver`));
    });
    await writeFile('/sys/bus/pci/drivers_probe', PF);
    await until('the PF is back', () => existsSync(`${PF_FOLDER}/driver`));
  },

  async 'enable-fails'() {
    const backend = await start();
    const vmm = await boot();
    await step('the kernel refuses VFs, and the guest sees it fail', async () => {
      await writeFile('/sys/module/vfio_pci/parameters/enable_sriov', '0');
      await assert.rejects(vmm.enableVfs(2), /EIO/);
      await backend.reaches('disabled');
      await backend.logs(/enable_sriov off.*prepare --pf=0000:01:00.0/);
      assert.equal(readPf('sriov_numvfs'), '0');
      await writeFile('/sys/module/vfio_pci/parameters/enable_sriov', '1');
    });
    await step('when the cause is mended, VFs can be enabled', () => vmm.enableVfs(2));
    await vmm.close();
    await backend.end();
  },

  // Something else takes the place of the file of a VF's group before the kernel makes it: that VF cannot be opened.
  async 'vf-fails'() {
    const backend = await start();
    const vmm = await boot();
    await step('4 VFs are enabled', () => vmm.enableVfs(4));
    const group = basename(readlinkSync(`${PF_FOLDER}/virtfn2/iommu_group`));
    await vmm.disableVfs();
    await backend.reaches('disabled');
    execFileSync('mknod', [`/dev/vfio/${group}`, 'c', '1', '3']);
    await step('one of four VFs fails to open, and the guest sees the enable fail', () =>
      assert.rejects(vmm.enableVfs(4), /EIO/),
    );
    await step('the other three are given back, and the log names cause and VF', async () => {
      await backend.reaches('disabled');
      assert.equal(readPf('sriov_numvfs'), '0');
      const held = readlinks(`/proc/${backend.pid}/fd`).filter((to) => to.includes('vfio-device'));
      assert.equal(held.length, 1, 'only the PF is open');
      await backend.logs(new RegExp(`/dev/vfio/${group}`));
      console.log(
        backend.log
          .split('\n')
          .filter((line) => line.includes(group))
          .join('\n'),
      );
    });
    rmSync(`/dev/vfio/${group}`);
    await step('when the cause is mended, VFs can be enabled', () => vmm.enableVfs(4));
    await vmm.close();
    await backend.end();
  },

  async 'map-differs'() {
    const backend = await start();
    const vmm = await boot();
    const [vf] = await step('a VF is enabled', () => vmm.enableVfs(1));
    const address = BigInt(vmm.memory.length);
    const memory = new GuestMemory(0x1_0000);
    await step('memory that only an open VF sees is refused, with the fix', async () => {
      const map = { address, size: BigInt(memory.length), fd: memory.fd };
      await assert.rejects(vf!.client.mapDma(map), /EINVAL/);
      await backend.logs(/--container=per-function/);
      const { vfs } = await backend.status();
      assert.match(vfs[0]!.failedMaps.join(), /--container=per-function/);
    });
    await vmm.close();
    await expectGone(backend);
    await step('the next VMM works', expectWorks);
    await backend.end();
  },
};

function readlinks(folder: string): string[] {
  return readdirSync(folder).map((name) => readlinkSync(`${folder}/${name}`));
}

const name = process.argv[2]!;
await endings[name]!();
await step('the host is as before', () => assert.equal(readPf('sriov_numvfs'), '0'));
process.exit(0);
