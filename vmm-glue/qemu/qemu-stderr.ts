// What QEMU says on standard error, without the lines that would mislead: behind a root port it warns of each function
// at a device number above 0, because it does not see at launch that the PF has ARI. The guest does, and reaches them.
import { Transform } from 'node:stream';

const LINE_FEED = 0x0a;
/** hw/pci/pci.c, QEMU 10.1 to 11.1. */
const UNFOUNDED =
  /"driver": ?"vfio-user-pci".* warning: PCI: slot \d+ is not valid for vfio-user-pci, parent device only allows plugging into slot 0\.?$/;

/** Whether a line of QEMU's is to be left out. */
export function isUnfounded(line: string): boolean {
  return UNFOUNDED.test(line);
}

/** Passes on all but unfounded lines; `leftOut` is called once, at the first of them. */
export function withoutUnfounded(leftOut: () => void): Transform {
  let rest = Buffer.alloc(0);
  let isTold = false;
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      rest = Buffer.concat([rest, chunk]);
      for (let end = rest.indexOf(LINE_FEED); end !== -1; end = rest.indexOf(LINE_FEED)) {
        const line = rest.subarray(0, end);
        if (!isUnfounded(line.toString())) {
          this.push(rest.subarray(0, end + 1));
        } else if (!isTold) {
          isTold = true;
          leftOut();
        }
        rest = rest.subarray(end + 1);
      }
      done();
    },
    flush(done) {
      done(null, rest);
    },
  });
}
