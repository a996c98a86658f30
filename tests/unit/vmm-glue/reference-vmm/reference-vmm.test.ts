// The reference VMM where there is no backend; tests/protocol has it with one.
import { expect, it } from 'vitest';
import { ReferenceVmm } from '../../../../vmm-glue/reference-vmm/reference-vmm.ts';
import { openFds } from '../../protocol/unix/open-fds.ts';

it('keeps no guest memory where it reaches no backend, however often it tries', async () => {
  const before = openFds();
  for (let round = 0; round < 3; round++) {
    await expect(ReferenceVmm.start({ pf: '/nowhere/pf.sock' })).rejects.toThrow('ENOENT');
  }
  expect(openFds()).toBe(before);
});
