// Finds the emulator's fault in what a guest's kernel prints of its CPU; see "When the inner guest stands still" in README.md.

/** What a kernel's trace says of the entry of an interrupt; then of what was interrupted: code segment, and flags. */
const ENTRY = /\basm_(?:sysvec_\w+|common_interrupt)\+0x/;
const KERNEL_CODE = /\bRIP: 0010:/;
const FLAGS = /\bEFLAGS: ([0-9a-f]{8})\b/;
const INTERRUPT_FLAG = 0x200;
/** Lines between an entry and the flags: instruction pointer, code bytes, stack pointer. */
const FRAME_LINES = 4;

/** Whether an interrupt was delivered to a kernel that had interrupts disabled, which no correct processor does. */
export function showsUndueInterrupt(trace: string): boolean {
  const lines = trace.split('\n');
  return lines.some((line, index) => {
    if (!ENTRY.test(line)) {
      return false;
    }
    const frame = lines.slice(index + 1, index + 1 + FRAME_LINES).join('\n');
    const flags = FLAGS.exec(frame)?.[1];
    return KERNEL_CODE.test(frame) && flags !== undefined && !isEnabled(flags);
  });
}

function isEnabled(flags: string): boolean {
  return (Number.parseInt(flags, 16) & INTERRUPT_FLAG) !== 0;
}
