// A carrier: a function that a stock QEMU hot-adds on a port of its own, to have its BARs laid over those of a VF's slot. The
// slot's accesses are trapped; a carrier's BARs are pieces of the VF's memory, and mapped. It has no capability (QEMU
// 11.1 aborts when a function with MSI-X is unplugged), and once QEMU has realised it no guest finds it.

import { WireError } from '../../protocol/errno.ts';
import { IrqIndex, RegionIndex } from '../../protocol/vfio-user/commands.ts';
import { barRegisterValue } from '../pci/bars.ts';
import { EXTENDED_CONFIG_BYTES, HEADER } from '../pci/spec/header.ts';
import { type CarrierPiece, piecesOf } from './carrier-pieces.ts';
import type { DeviceFunction, Done, FunctionShape } from './physical-device.ts';
import { ServedFunction, type SessionTraits } from './served-function.ts';
import type { VirtualFunction } from './virtual-function.ts';

/** Class code of what fits no class. */
const UNASSIGNED_CLASS = 0xff;
const IDS_END = HEADER.command.offset;

export class CarrierFunction extends ServedFunction {
  readonly pieces: readonly CarrierPiece[];
  readonly #vf: VirtualFunction;
  #command = 0;

  constructor(vf: VirtualFunction) {
    const pieces = piecesOf(vf.shape);
    super(`carrier${vf.index}`, carrierShape(vf.shape, pieces), { observers: vf.observers });
    this.pieces = pieces;
    this.#vf = vf;
  }

  /** @throws WireError ENODEV while the VF does not answer in memory: there is nothing to be mapped. */
  override attach(traits: SessionTraits): void {
    if (!this.#vf.decodes) {
      throw new WireError('ENODEV', 'its VF is not there', { path: this.name });
    }
    super.attach(traits);
    this.#vf.carrierAttached(true);
  }

  /** A VMM that maps nothing finds what the slot shows. */
  override readRegion(index: number, offset: number, into: Uint8Array): void {
    const piece = this.#pieceAt(index);
    if (piece !== undefined && offset + into.length <= piece.size) {
      this.#vf.readRegion(piece.vfBar, piece.offset + offset, into);
    } else {
      super.readRegion(index, offset, into);
    }
  }

  override writeRegion(index: number, offset: number, from: Uint8Array): void {
    const piece = this.#pieceAt(index);
    if (piece !== undefined && offset + from.length <= piece.size) {
      this.#vf.writeRegion(piece.vfBar, piece.offset + offset, from);
    } else {
      super.writeRegion(index, offset, from);
    }
  }

  override regionFile(index: number): { readonly fd: number; readonly offset: bigint } | undefined {
    const piece = this.#pieceAt(index);
    const file = piece && this.#vf.memoryFile(piece.vfBar);
    if (file !== undefined) {
      this.observers.mapped(this.#vf.name, piece!.vfBar);
    }
    return file && { fd: file.fd, offset: file.offset + BigInt(piece.offset) };
  }

  protected override get hardware(): DeviceFunction | undefined {
    return undefined;
  }

  protected override get decodesMemory(): boolean {
    return false;
  }

  /** What goes wrong goes wrong with its VF. */
  protected override get isThere(): boolean {
    return false;
  }

  protected override readConfig(offset: number, into: Uint8Array): void {
    for (let i = 0; i < into.length; i++) {
      const at = offset + i;
      into[i] =
        this.revealed && at < IDS_END ? 0xff : (this.#commandByte(at) ?? this.shape.config[at]!);
    }
  }

  protected override writeConfig(offset: number, from: Uint8Array): void {
    from.forEach((byte, i) => {
      const lane = offset + i - HEADER.command.offset;
      if (lane === 0 || lane === 1) {
        this.#command = (this.#command & ~(0xff << (8 * lane))) | (byte << (8 * lane));
      }
    });
  }

  protected override resetFunction(done: Done): void {
    this.#command = 0;
    done();
  }

  protected override clientGone(): void {
    this.#command = 0;
    this.#vf.carrierAttached(false);
  }

  protected override hostFailed(): void {}

  #pieceAt(index: number): CarrierPiece | undefined {
    return this.pieces.find(({ carrierBar }) => carrierBar === index);
  }

  #commandByte(at: number): number | undefined {
    const lane = at - HEADER.command.offset;
    return lane === 0 || lane === 1 ? (this.#command >>> (8 * lane)) & 0xff : undefined;
  }
}

function carrierShape(vf: FunctionShape, pieces: readonly CarrierPiece[]): FunctionShape {
  const bars = pieces.map(({ carrierBar, size }) => ({
    index: carrierBar,
    size,
    kind: 'memory64' as const,
    prefetchable: true,
  }));
  const config = new Uint8Array(EXTENDED_CONFIG_BYTES);
  config.set(vf.config.subarray(0, IDS_END));
  config[HEADER.baseClass.offset] = UNASSIGNED_CLASS;
  const subsystem = HEADER.subsystemVendorId.offset;
  config.set(vf.config.subarray(subsystem, subsystem + 4), subsystem);
  const view = new DataView(config.buffer);
  for (const bar of bars) {
    view.setUint32(HEADER.bar0.offset + 4 * bar.index, barRegisterValue(bar), true);
  }
  return {
    config,
    bars,
    regions: vf.regions.map(({ index }) => {
      const size =
        index === RegionIndex.config
          ? config.length
          : (bars.find((bar) => bar.index === index)?.size ?? 0);
      const isBar = index !== RegionIndex.config && size > 0;
      const mappable = isBar ? [{ offset: 0, size }] : [];
      return { index, size, readable: size > 0, writable: size > 0, mappable };
    }),
    // QEMU binds err and req only where they are; a carrier has no interrupt of any kind.
    irqs: vf.irqs.map((irq) => ({ ...irq, count: irq.index > IrqIndex.msix ? irq.count : 0 })),
  };
}
