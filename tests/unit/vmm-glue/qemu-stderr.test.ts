// What QEMU says passes through, but for its warning of functions at device numbers above 0 behind a root port.
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { expect, it } from 'vitest';
import { withoutUnfounded } from '../../../vmm-glue/qemu/qemu-stderr.ts';

const WARNING =
  'qemu-system-x86_64: -device {"driver":"vfio-user-pci","id":"sriov-pf0-vf7","addr":"1.0"}: warning: PCI: slot 1 is ' +
  'not valid for vfio-user-pci, parent device only allows plugging into slot 0.\n';

async function filtered(chunks: readonly string[]): Promise<{ output: string; told: number }> {
  let told = 0;
  const filter = withoutUnfounded(() => {
    told++;
  });
  const output = await text(
    Readable.from(
      chunks.map((chunk) => Buffer.from(chunk)),
      { objectMode: false },
    ).pipe(filter),
  );
  return { output, told };
}

it('leaves out the unfounded warning, wherever the pieces are cut, and tells it once', async () => {
  const all = `first\n${WARNING}${WARNING}last\n`;
  for (const cut of [1, 6, 40, 250, all.length - 2]) {
    expect(await filtered([all.slice(0, cut), all.slice(cut)])).toEqual({
      output: 'first\nlast\n',
      told: 1,
    });
  }
});

it('leaves the same warning about another device alone', async () => {
  const about = WARNING.replaceAll('vfio-user-pci', 'e1000e');
  expect(await filtered([about])).toEqual({ output: about, told: 0 });
});

it('passes on a last line that does not end', async () => {
  expect(await filtered(['qemu: cannot'])).toEqual({ output: 'qemu: cannot', told: 0 });
});
