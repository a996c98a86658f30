import { expect, it } from 'vitest';
import { casesOf } from '../../foreign/kselftest.ts';

it('has the cases of a kselftest with what each came to', () => {
  const output = `TAP version 13
1..3
#  RUN           bar.BAR0 ...
#            OK  bar.BAR0
ok 1 bar.BAR0
# test.c:126:INTX:Expected 0 (0) == ret (-28)
not ok 2 basic.INTX
#      SKIP      MSI-X33 is disabled
ok 3 basic.MSIX # SKIP MSI-X33 is disabled
# Totals: pass:1 fail:1 skip:1`;
  expect(casesOf(output)).toEqual([
    { name: 'bar.BAR0', outcome: 'ok', reason: '' },
    {
      name: 'basic.INTX',
      outcome: 'not ok',
      reason: '# test.c:126:INTX:Expected 0 (0) == ret (-28)',
    },
    { name: 'basic.MSIX', outcome: 'skipped', reason: 'MSI-X33 is disabled' },
  ]);
});
