// What `serve --print-capabilities` prints: the answer of a vfio-user standard's "Backend Program Conventions", which name
// the option and leave the content to the backend.
import { KINDS } from '../devices/registry.ts';

/** `version` counts changes that a reader has to know of. */
export interface BackendCapabilities {
  readonly version: 1;
  readonly type: 'pci';
  /** Names of what it has beyond the standard. */
  readonly features: readonly string[];
  /** Values of --device; `vfio` is what --pf selects. */
  readonly devices: readonly string[];
}

export function backendCapabilities(): BackendCapabilities {
  return {
    version: 1,
    type: 'pci',
    features: ['sriov', 'sriov-hotplug', 'sriov-status', 'vf-sockets', 'socket-activation'],
    devices: Object.keys(KINDS),
  };
}
