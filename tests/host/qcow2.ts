// An empty disk image, as `qemu-img create -f qcow2` makes it (QEMU's docs/interop/qcow2.rst, version 2).

const CLUSTER_BITS = 16;
const CLUSTER = 1 << CLUSTER_BITS;
/** By cluster. */
const REFCOUNT_TABLE = 1;
const REFCOUNT_BLOCK = 2;
const L1_TABLE = 3;
const CLUSTERS = 4;

/** The file of a disk of `bytes`, at most 512 MiB, which is what one entry of the L1 table has room for. */
export function emptyQcow2(bytes: number): Buffer {
  const file = Buffer.alloc(CLUSTERS * CLUSTER);
  file.write('QFI\xfb', 0, 'latin1');
  file.writeUInt32BE(2, 4);
  file.writeUInt32BE(CLUSTER_BITS, 20);
  file.writeBigUInt64BE(BigInt(bytes), 24);
  file.writeUInt32BE(1, 36);
  file.writeBigUInt64BE(BigInt(L1_TABLE * CLUSTER), 40);
  file.writeBigUInt64BE(BigInt(REFCOUNT_TABLE * CLUSTER), 48);
  file.writeUInt32BE(1, 56);
  file.writeBigUInt64BE(BigInt(REFCOUNT_BLOCK * CLUSTER), REFCOUNT_TABLE * CLUSTER);
  for (let cluster = 0; cluster < CLUSTERS; cluster++) {
    file.writeUInt16BE(1, REFCOUNT_BLOCK * CLUSTER + 2 * cluster);
  }
  return file;
}
