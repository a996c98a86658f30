// What tells the emulator's fault, on which a story is told again, from what is ours, on which it is not.
import { describe, expect, it } from 'vitest';
import { showsUndueInterrupt } from '../../nested/inside/undue-interrupt.ts';

/** Lines of a trace as Debian's 6.12 prints it: `entry`, in kernel code that ran with `flags`. */
function trace(entry: string, flags: string, codeSegment = '0010'): string {
  return [
    '[  124.482638]  sysvec_apic_timer_interrupt+0x6c/0x90',
    '[  124.482688]  </IRQ>',
    '[  124.482692]  <TASK>',
    `[  124.482695]  ${entry}`,
    `[  124.482712] RIP: ${codeSegment}:__hrtimer_run_queues+0x0/0x240`,
    '[  124.482731] Code: 83 e1 04 75 b2 be 01 00 00 00 48 89 c7 e9 38 55 01 00 0f 0b eb 85',
    `[  124.482741] RSP: 0000:ff7dbd3280603ec8 EFLAGS: ${flags}`,
    '[  124.482749] RAX: 18ea8233bf8e615a RBX: 0000000000000002 RCX: 000000000000000f',
  ].join('\n');
}

const TIMER = 'asm_sysvec_apic_timer_interrupt+0x1a/0x20';

describe('an interrupt that came although interrupts were disabled', () => {
  it.each([
    ['within the handler of another', TIMER, '00010006'],
    ['at the entry of another', TIMER, '00010097'],
    ["from a device's vector", 'asm_common_interrupt+0x26/0x40', '00010046'],
    ['from the hypervisor', 'asm_sysvec_kvm_asyncpf_interrupt+0x1a/0x20', '00000002'],
  ])('%s', (_where, entry, flags) => {
    expect(showsUndueInterrupt(trace(entry, flags))).toBe(true);
  });

  it('anywhere in a trace', () => {
    const text = [trace(TIMER, '00000246'), trace(TIMER, '00010006'), 'end trace'].join('\n');
    expect(showsUndueInterrupt(text)).toBe(true);
  });
});

describe('what every processor does is not mistaken for it:', () => {
  it.each([
    ['an interrupt of a kernel that had them enabled', trace(TIMER, '00000246')],
    ['one of a program', trace(TIMER, '00010046', '0033')],
    ['an exception where they are disabled', trace('asm_exc_page_fault+0x26/0x30', '00010087')],
    ['an NMI where they are disabled', trace('end_repeat_nmi+0xf/0x53', '00010002')],
    ['a trace that breaks off', `${TIMER}\nRIP: 0010:error_entry+0x10/0x170`],
    ['a guest that said nothing', ''],
  ])('%s', (_what, text) => {
    expect(showsUndueInterrupt(text)).toBe(false);
  });
});
