// Whether a guest's processor is one that has no room for big BARs: AMD's with 40 address bits. Just below 2^40 such a
// processor has a range of its own (HyperTransport's), and there is where SeaBIOS puts the 64-bit windows of PCI; Linux
// takes none of it. Pure.
import { isOn } from './qemu-boolean.ts';

export interface CpuRequest {
  /** The value of `-cpu`; undefined where it is not given. */
  readonly cpu: string | undefined;
  /** QEMU emulates the processor, with no help of the host's. */
  readonly isEmulated: boolean;
}

const AMD_MODELS = /^(EPYC|Opteron|phenom|athlon)/;
/** TCG gives these AMD's name. */
const AMD_WHEN_EMULATED = /^(max|base|qemu64|qemu32|kvm64|kvm32)(-v\d+)?$/;
const DEFAULT_MODEL = 'qemu64';
const FORTY_BITS = '40';

/** The model's name where it is such a processor, else undefined. */
export function amdWithFortyBits({ cpu, isEmulated }: CpuRequest): string | undefined {
  const [model = DEFAULT_MODEL, ...parts] = (cpu ?? DEFAULT_MODEL).split(',');
  const properties = new Map(
    parts.map((part) => {
      const [key, value = 'on'] = part.split('=');
      return [key, value];
    }),
  );
  const isAmd = AMD_MODELS.test(model) || (isEmulated && AMD_WHEN_EMULATED.test(model));
  const isOtherVendor = ![undefined, 'AuthenticAMD'].includes(properties.get('vendor'));
  const isWider =
    ![undefined, '0', FORTY_BITS].includes(properties.get('phys-bits')) ||
    isOn(properties.get('host-phys-bits'));
  return isAmd && !isOtherVendor && !isWider ? model : undefined;
}
