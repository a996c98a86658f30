// The PF as the guest sees it: the hardware's own config space, with the SR-IOV and ARI capabilities replaced by
// virtual ones, and function level resets carried out by the host. What its SR-IOV registers come to is the machine's.

import { IrqIndex } from '../../protocol/vfio-user/commands.ts';
import { BAR_COUNT, type BarShape, barAddressIn } from '../pci/bars.ts';
import { walkCapabilities } from '../pci/capability-chain.ts';
import { ConfigSpace, TableOwner } from '../pci/config-space.ts';
import { RegisterBlock } from '../pci/register-block.ts';
import { ARI, ARI_BYTES, ARI_VERSION } from '../pci/spec/ari.ts';
import { CapabilityId, ExtendedCapabilityId, PF_CAPABILITIES } from '../pci/spec/capability-ids.ts';
import { extendedHeader } from '../pci/spec/extended-header.ts';
import { HEADER } from '../pci/spec/header.ts';
import { POWER_MANAGEMENT } from '../pci/spec/power-management.ts';
import { SRIOV_BYTES } from '../pci/spec/sriov.ts';
import { SriovCapability, type SriovEvent } from '../sriov/capability.ts';
import type { Faults } from './faults.ts';
import { hardwareLayout, rangesOf } from './hardware-config.ts';
import type { Hold } from './hold.ts';
import type { Observers } from './observer.ts';
import type {
  DeviceDescription,
  DeviceFunction,
  Done,
  FunctionWires,
  HostError,
} from './physical-device.ts';
import { ServedFunction } from './served-function.ts';

/** Served from tables at the places of the hardware's own: ID to length in bytes. */
const VIRTUAL_CAPABILITIES: ReadonlyMap<number, number> = new Map<number, number>([
  [ExtendedCapabilityId.sriov, SRIOV_BYTES],
  [ExtendedCapabilityId.alternativeRoutingId, ARI_BYTES],
]);

export interface PfEvents {
  readonly observers?: Observers;
  readonly faults?: Faults | undefined;
  sriov(event: SriovEvent): void;
  /** The PF was reset, or its client has gone: VF Enable is 0 now, whatever it was. */
  vfsCleared(): void;
  failed(what: string, error: HostError): void;
}

export class PhysicalFunction extends ServedFunction {
  readonly sriov: SriovCapability;
  readonly #hardware: DeviceFunction;
  readonly #config: ConfigSpace;
  readonly #events: PfEvents;
  /** Resets that the host has not finished. */
  #resets = 0;
  #isHostBusy = false;
  readonly #held: Hold[] = [];
  /** Config bytes that decide whether BARs answer: Command, and the power state. */
  readonly #memorySwitches: readonly number[];

  /** `open` makes the hardware's half, once the wires exist that it raises interrupts through. */
  constructor(
    description: DeviceDescription,
    spacing: { readonly firstVfOffset: number; readonly vfStride: number },
    open: (wires: FunctionWires) => DeviceFunction,
    events: PfEvents,
  ) {
    super('pf', description.pf, events);
    this.#events = events;
    this.#hardware = open(this.wires());
    this.sriov = new SriovCapability({
      totalVfs: description.totalVfs,
      vfDeviceId: description.vfDeviceId,
      vfBars: description.vfBars,
      // The PF is function 0 of its device in every topology that we build: no dependency.
      functionDependencyLink: 0,
      ...spacing,
    });
    this.#config = this.#composeConfig();
    this.#memorySwitches = [
      HEADER.command.offset,
      ...walkCapabilities(description.pf.config)
        .filter(({ id }) => id === CapabilityId.powerManagement)
        .map(({ offset }) => offset + POWER_MANAGEMENT.controlStatus.offset),
    ];
  }

  /** Config space as it is, whoever asks; what the hardware had at first where it does not answer just now. */
  configSnapshot(): Uint8Array {
    if (this.#resets > 0) {
      return this.shape.config;
    }
    const image = new Uint8Array(this.#config.size);
    this.#config.read(0, image.length, image);
    return image;
  }

  /** Where the guest has put a BAR; 0: nowhere. */
  barAddress(bar: BarShape): bigint {
    const registers = new Uint8Array(4 * BAR_COUNT);
    this.readConfig(HEADER.bar0.offset, registers);
    return barAddressIn(registers, bar);
  }

  /** The host is writing sriov_numvfs, or has finished. */
  hostBusy(busy: boolean): void {
    this.#hardware.hostBusy(busy);
    this.#isHostBusy = busy;
    if (!busy) {
      this.releaseAnswers();
    }
  }

  /** The answers to writes that the hardware has not had yet are kept back no longer. */
  releaseAnswers(): void {
    for (const hold of this.#held.splice(0)) {
      hold.release();
    }
  }

  /** Nothing is asked of it any more. */
  close(): void {
    this.#hardware.close();
  }

  /** The host's kernel wants the PF back: the VMM is asked to let go of it. */
  releaseRequested(): void {
    this.interrupts.raise(IrqIndex.req, 0);
  }

  protected override get hardware(): DeviceFunction {
    return this.#hardware;
  }

  protected override get isThere(): boolean {
    return this.revealed;
  }

  protected override get decodesMemory(): boolean {
    return this.#resets === 0;
  }

  protected override readConfig(offset: number, into: Uint8Array): void {
    if (this.#resets > 0) {
      into.fill(0xff);
    } else {
      this.#config.read(offset, into.length, into);
    }
  }

  protected override writeConfig(offset: number, from: Uint8Array): void {
    if (this.#resets > 0) {
      return;
    }
    this.#config.write(offset, from);
    if (this.#isHostBusy && this.#switchesMemory(offset, from.length)) {
      this.#held.push(this.holdAnswer());
    }
  }

  protected override resetFunction(done: Done): void {
    this.#beginReset();
    this.#resetHardware(done);
  }

  #functionLevelReset(): void {
    this.observers.reset(this.name, 'function');
    this.#beginReset();
    this.faults.delayReset(() => this.#resetHardware(() => {}));
  }

  #beginReset(): void {
    this.#clearVfs();
    this.#resets++;
  }

  #resetHardware(done: Done): void {
    this.#hardware.reset((error) => {
      this.#resets--;
      if (error !== undefined) {
        this.hostFailed('reset of the PF', error);
      }
      done(error);
    });
  }

  protected override clientGone(): void {
    this.#clearVfs();
  }

  protected override hostFailed(what: string, error: HostError): void {
    this.#events.failed(what, error);
  }

  /**
   * While the host is busy, writes reach the hardware later. Of these the VMM must not hear too early: it maps BARs
   * into the guest at once, and a guest that touches one whose memory the kernel still has switched off is ended.
   */
  #switchesMemory(offset: number, length: number): boolean {
    return this.#memorySwitches.some((at) => offset <= at && at < offset + length);
  }

  #clearVfs(): void {
    this.sriov.reset();
    this.#events.vfsCleared();
  }

  #composeConfig(): ConfigSpace {
    const layout = hardwareLayout(
      this.shape.config,
      PF_CAPABILITIES,
      rangesOf(this.shape.config, VIRTUAL_CAPABILITIES),
      {
        read: (offset, length) => this.#hardware.readConfig(offset, length),
        write: (offset, length, value) => this.#hardware.writeConfig(offset, length, value),
      },
      () => this.#functionLevelReset(),
    );
    const owners = [...layout.owners];
    layout.extended.forEach(({ id, offset }, position) => {
      const next = layout.extended[position + 1]?.offset ?? 0;
      if (id === ExtendedCapabilityId.sriov) {
        this.sriov.setNextPointer(next);
        owners.push(
          this.sriov.owner(offset, (events) => {
            for (const event of events) {
              this.#events.sriov(event);
            }
          }),
        );
      } else if (id === ExtendedCapabilityId.alternativeRoutingId) {
        const header = extendedHeader(id, ARI_VERSION, next);
        const block = RegisterBlock.of(ARI, { length: ARI_BYTES, reset: { header } });
        owners.push(new TableOwner(offset, block));
      }
    });
    return new ConfigSpace(this.shape.config.length, owners);
  }
}
