// The device as a whole, on the device thread: the PF, its VFs, the SR-IOV machine between them, and the hot-plug
// channel; each socket of the backend leads to one endpoint of it.

import type { Clock, Timer } from '../../protocol/clock.ts';
import type { DeviceStatus } from '../../protocol/hotplug/status.ts';
import {
  DRAWN_OUT_MILLISECONDS,
  LONGEST_HOLD_MILLISECONDS,
  LONGEST_WAIT_FOR_HOST_MILLISECONDS,
} from '../../protocol/hotplug/timing.ts';
import { ROUTING_ID_SPACING } from '../../protocol/launch/routing-id-spacing.ts';
import type { Log } from '../../protocol/log.ts';
import { CarrierFunction } from '../device/carrier-function.ts';
import { countdown } from '../device/countdown.ts';
import type { Faults } from '../device/faults.ts';
import { Hold } from '../device/hold.ts';
import { Observers } from '../device/observer.ts';
import type {
  DeviceDescription,
  DeviceFunction,
  FunctionHandle,
  FunctionWires,
  HostError,
  HostLink,
} from '../device/physical-device.ts';
import { PhysicalFunction } from '../device/physical-function.ts';
import { VirtualFunction } from '../device/virtual-function.ts';
import type { SriovEvent } from '../sriov/capability.ts';
import { isBringingUp } from '../sriov/machine.ts';
import type { Limits, State } from '../sriov/states-and-events.ts';
import { HotplugChannel } from './channel.ts';
import type { Endpoint, FaultSwitch, PeerSession, TraceSwitch } from './endpoint.ts';
import { LentMemory } from './lent-memory.ts';
import { SriovRunner } from './runner.ts';
import { SlotsAhead } from './slots-ahead.ts';
import { deviceStatus } from './status.ts';
import { VfPlaces } from './vf-places.ts';

export interface SriovDeviceOptions {
  readonly description: DeviceDescription;
  readonly pf: FunctionHandle;
  readonly limits: Omit<Limits, 'totalVfs'>;
  readonly host: HostLink;
  readonly log: Log;
  readonly observers?: Observers;
  readonly tracing?: TraceSwitch;
  /** What goes wrong on purpose. */
  readonly faults?: Faults & FaultSwitch;
  /** `generation`: of the enable; 0 for the PF. */
  openFunction(handle: FunctionHandle, generation: number, wires: FunctionWires): DeviceFunction;
  readonly clock: Clock;
  connectVf(endpoint: Endpoint): { session: PeerSession; peerFd: number };
  vfSocketPath(vfIndex: number): string;
  /** Where the VF's carrier is served; undefined: nowhere. */
  carrierSocketPath?(vfIndex: number): string | undefined;
  /** For the status: everybody who is connected. */
  sessions(): readonly PeerSession[];
}

/** Linux writes a VF's Command anew within a few milliseconds of its reset. */
const SLOTS_QUIET_MILLISECONDS = 50;

const NO_PEER =
  'nobody is attached who can plug VFs into the VM; start `vfio-user-sriov attach-qemu`, or launch QEMU with `vfio-user-sriov qemu`';

export class SriovDevice {
  /** Whoever is added hears everything that happens from then on. */
  readonly observers: Observers;
  readonly pf: PhysicalFunction;
  readonly vfs: readonly VirtualFunction[];
  /** What a glue lays over the slots of VFs, one a VF; none where nothing of a VF may be mapped. */
  readonly carriers: readonly CarrierFunction[];
  readonly pfEndpoint: Endpoint;
  readonly channel: HotplugChannel;
  readonly #options: SriovDeviceOptions;
  readonly #lent = new LentMemory();
  readonly #places: VfPlaces;
  readonly #runner: SriovRunner;
  readonly #onDisabled: (() => void)[] = [];
  /** Slots with carriers were mapped anew. */
  #slotsChanged: Timer | undefined;
  #endsSoon = false;
  readonly #slotsAhead: SlotsAhead;

  constructor(options: SriovDeviceOptions) {
    this.#options = options;
    this.observers = options.observers ?? new Observers();
    const { description } = options;
    this.pf = new PhysicalFunction(
      description,
      ROUTING_ID_SPACING,
      (wires) => options.openFunction(options.pf, 0, wires),
      {
        observers: this.observers,
        faults: options.faults,
        sriov: (event) => this.#sriov(event),
        vfsCleared: () => this.#runner.dispatch({ type: 'vfEnableCleared', reason: 'pfReset' }),
        failed: (what, error) => this.#failed(what, error),
      },
    );
    this.vfs = Array.from({ length: description.totalVfs }, (_, index) => this.#makeVf(index));
    const carriers = this.vfs.map((vf) => new CarrierFunction(vf));
    this.carriers = carriers.filter(({ pieces }) => pieces.length > 0);
    this.#places = new VfPlaces({
      description,
      pf: this.pf,
      vfs: this.vfs,
      carriers: this.carriers,
      carrierSocketPath: (index) => options.carrierSocketPath?.(index),
    });
    this.#slotsAhead = new SlotsAhead({
      clock: options.clock,
      arePlaceable: () => this.channel.role === 'glue' && this.#arePlaceable,
      arePlaced: () => this.#places.arePlaced,
      tellGlue: () => this.channel.slotsMoved(),
    });
    this.channel = new HotplugChannel({
      clock: options.clock,
      observers: this.observers,
      leastMakingMilliseconds: options.description.leastMakingMilliseconds,
      describeVf: (index) => this.#places.describe(index),
      glueAttached: () => this.#slotsAhead.glueAttached(),
      slots: (asked) => (this.#arePlaceable ? this.#places.slots(asked) : []),
      isPlaced: (index) => this.vfs[index]!.isPlaced,
      connectVf: (index) => options.connectVf(this.vfEndpoint(index, true)),
      vfSocketPath: options.vfSocketPath,
      plugging: (index) => this.vfs[index]!.beginPlacement(),
      event: (event) => this.#runner.dispatch(event),
      log: options.log,
    });
    this.#runner = new SriovRunner({
      host: this.#watchedHost(),
      observers: this.observers,
      peer: this.channel,
      vfs: {
        handMemoryToHost: (count, done) => this.#handMemoryToHost(count, done),
        bringUp: (handles, generation, done) => this.#bringUp(handles, generation, done),
        activate: (count) => {
          for (const vf of this.vfs.slice(0, count)) {
            vf.activate();
          }
        },
        deactivate: () => {
          for (const vf of this.vfs) {
            vf.deactivate();
          }
        },
        takeDown: (unmapped) => this.#takeDown(unmapped),
      },
      limits: { ...options.limits, totalVfs: description.totalVfs },
      clock: options.clock,
      report: (level, text) => options.log[level](text),
      phaseChanged: (state) => this.#phaseChanged(state),
    });
    this.pfEndpoint = {
      function: this.pf,
      native: false,
      hotplug: this.channel,
      status: () => JSON.stringify(this.status()),
      tracing: options.tracing,
      faults: options.faults,
    };
  }

  /** `native`: the connection that VfPlug hands over; else a slot's own socket. */
  vfEndpoint(index: number, native: boolean): Endpoint {
    return { function: this.vfs[index]!, native };
  }

  /** The host's kernel asks for a VF back. */
  vfLost(vfIndex: number): void {
    this.#runner.dispatch({ type: 'vfLost', vfIndex });
  }

  /** Takes the VFs away; `done` when the host has none left, or keeps those that somebody holds. */
  shutDown(done: () => void): void {
    this.#endsSoon = true;
    this.#onDisabled.push(done);
    this.#runner.dispatch({ type: 'vfEnableCleared', reason: 'shuttingDown' });
    this.#phaseChanged(this.#runner.state);
  }

  /** While the host writes sriov_numvfs its kernel blocks the PF's config space: it is answered from a shadow then. */
  #watchedHost(): HostLink {
    const { host, clock } = this.#options;
    return {
      request: (name, args, done) => {
        const writesNumVfs = name === 'createVfs' || name === 'destroyVfs';
        let patience: Timer | undefined;
        if (writesNumVfs) {
          this.pf.hostBusy(true);
          patience = clock.after(LONGEST_WAIT_FOR_HOST_MILLISECONDS, () =>
            this.pf.releaseAnswers(),
          );
        }
        host.request(name, args, (error, reply) => {
          patience?.cancel();
          if (writesNumVfs) {
            this.pf.hostBusy(false);
          }
          if (name === 'createVfs') {
            this.#lent.takeBack();
          }
          done(error, reply);
        });
      },
    };
  }

  #sriov(event: SriovEvent): void {
    const { log } = this.#options;
    switch (event.type) {
      case 'vfEnableSet': {
        this.#enable(event.numVfs);
        break;
      }
      case 'vfEnableCleared':
        this.#runner.dispatch({ type: 'vfEnableCleared', reason: 'guestDisabled' });
        break;
      case 'vfMemorySpaceEnable':
        for (const vf of this.vfs) {
          vf.memorySpaceChanged();
        }
        this.#followMemorySpace();
        break;
      case 'numVfsRefused':
        // The machine refuses as many, and keeps why for whoever asks.
        this.#runner.dispatch({ type: 'vfEnableSet', numVfs: event.value });
        break;
      default:
        log.debug(event.type, { ...event });
        this.#slotsAhead.changed();
    }
  }

  /** A guest may move VF BARs while VF Memory Space Enable is off: what is laid over slots comes back where the VFs are now. */
  #followMemorySpace(): void {
    const { state } = this.#runner;
    if (this.pf.sriov.vfMemorySpaceEnable && state.phase === 'enabled') {
      this.channel.followVfBars(state.lastGeneration, state.count, () => this.#tellMemorySpace());
    } else {
      this.#tellMemorySpace();
    }
  }

  #tellMemorySpace(): void {
    const { state } = this.#runner;
    if (this.pf.sriov.vfEnable && state.phase === 'enabled') {
      this.channel.memorySpace({
        generation: state.lastGeneration,
        enabled: this.pf.sriov.vfMemorySpaceEnable,
        silentVfs: this.vfs
          .filter(({ hasCarrier, isSlotSilent }) => hasCarrier && isSlotSilent)
          .map(({ index }) => index),
      });
    }
  }

  /** A reset of a VF has the guest unmap a slot and map it again: each is told once it is quiet. */
  #slotChanged(): void {
    this.#slotsChanged?.cancel();
    this.#slotsChanged = this.#options.clock.after(SLOTS_QUIET_MILLISECONDS, () =>
      this.#followMemorySpace(),
    );
  }

  /**
   * The guest looks for its VFs 100 ms after its write is answered. So that it is paused by then, however busy the
   * machine is, the answer waits until the glue has answered EnableBegin: it has asked QEMU to stop the guest, which QEMU
   * does as soon as it has the answer, or it knows that VFs take long, and asks later.
   */
  #enable(numVfs: number): void {
    const obstacle = this.#obstacle();
    const hold = this.pf.holdAnswer();
    this.#runner.dispatch({
      type: 'vfEnableSet',
      numVfs,
      ...(obstacle === undefined ? {} : { obstacle }),
    });
    this.#holdForGlue(hold, LONGEST_HOLD_MILLISECONDS);
  }

  /** Ends the hold when the glue says that the guest is paused or will be, or nothing like that is on its way. */
  #holdForGlue(hold: Hold, longestMilliseconds: number): void {
    const patience = this.#options.clock.after(longestMilliseconds, () => hold.release());
    this.channel.whenPauseIsPromised(() => {
      patience.cancel();
      hold.release();
    });
  }

  /**
   * A look of the guest at a VF that is not up yet: a glue that has not answered is waited for, and one that has is having
   * the guest stopped just now, which needs QEMU to be free between two looks.
   */
  #drawOut(): Hold {
    const hold = new Hold();
    const { patienceMilliseconds } = this.channel;
    if (patienceMilliseconds > 0) {
      this.#holdForGlue(hold, patienceMilliseconds);
    } else {
      this.#options.clock.after(DRAWN_OUT_MILLISECONDS, () => hold.release());
    }
    return hold;
  }

  /** Why no VF could work, whatever the host did. */
  #obstacle(): string | undefined {
    if (this.#endsSoon) {
      return 'the backend is shutting down';
    }
    const [failedMap] = [this.pf, ...this.vfs].flatMap(({ memory }) => memory.failedMaps.sentences);
    if (failedMap !== undefined) {
      return failedMap;
    }
    return this.channel.attached ? undefined : NO_PEER;
  }

  #makeVf(index: number): VirtualFunction {
    const { pf } = this;
    const isGuestToBePaused = (): boolean =>
      this.channel.isPauseExpected && isBringingUp(this.#runner.state);
    return new VirtualFunction(index, this.#options.description.vf, {
      observers: this.observers,
      faults: this.#options.faults,
      expects: (vfIndex) => pf.sriov.vfEnable && vfIndex < pf.sriov.numVfs,
      get vfMemorySpaceEnable() {
        return pf.sriov.vfMemorySpaceEnable;
      },
      get isGuestToBePaused() {
        return isGuestToBePaused();
      },
      drawOut: () => this.#drawOut(),
      slotChanged: () => this.#slotChanged(),
      slotLost: () => this.#slotsAhead.changed(),
      failed: (what, error) => this.#failed(what, error),
    });
  }

  #handMemoryToHost(count: number, done: (error?: Error) => void): void {
    const failed = (error: HostError): void => this.#failed('guest memory for the VFs', error);
    this.#lent.handOver(this.vfs.slice(0, count), this.#options.host, this.#later, failed, done);
  }

  readonly #later = (rest: () => void): void => void this.#options.clock.after(0, rest);

  #bringUp(handles: readonly FunctionHandle[], generation: number, done: () => void): void {
    const oneIsUp = countdown(handles.length, done);
    for (const [index, handle] of handles.entries()) {
      this.vfs[index]!.bringUp(
        generation,
        (wires) => this.#options.openFunction(handle, generation, wires),
        this.#later,
        oneIsUp,
      );
    }
  }

  #takeDown(unmapped: () => void): void {
    const oneIsUnmapped = countdown(this.vfs.length, unmapped);
    for (const vf of this.vfs) {
      vf.takeDown();
      vf.whenUnmapped(oneIsUnmapped);
    }
  }

  /** VFs are off, and the guest has given each of their BARs an address. */
  get #arePlaceable(): boolean {
    const isOff = !this.pf.sriov.vfEnable && this.#runner.state.phase === 'disabled';
    return isOff && this.#places.haveAddresses;
  }

  #phaseChanged(state: State): void {
    this.#options.log.debug(`SR-IOV: ${state.phase}`, { ...state });
    if (state.phase !== 'disabled' && state.phase !== 'quarantined') {
      return;
    }
    for (const done of this.#onDisabled.splice(0)) {
      done();
    }
    this.#slotsAhead.changed();
  }

  #failed(what: string, error: HostError): void {
    this.#options.log.error(`${what} failed: ${error.message}`);
  }

  /** How everything is just now. */
  status(): DeviceStatus {
    return deviceStatus({
      description: this.#options.description,
      state: this.#runner.state,
      pf: this.pf,
      vfs: this.vfs,
      hotplugRole: this.channel.role,
      whyTrapped: (vfIndex) => this.channel.whyTrapped(vfIndex, this.#runner.state.lastGeneration),
      hasCarriers: this.#places.hasCarriers,
      sessions: this.#options.sessions(),
      trace: this.#options.tracing?.state,
      faults: this.#options.faults?.status,
    });
  }
}
