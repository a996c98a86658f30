// A client of the installed package that shares memory with a device, for the virtual host.

/** `node map-memory.mjs SOCKET MEBIBYTES…`: maps pieces of memory one behind the other, and says of each how it went. */
export const MAP_MEMORY = `
const client = '/usr/lib/vfio-user-sriov/dist/vmm-glue/client';
const { VfioUserClient } = await import(client + '/client.js');
const { GuestMemory } = await import(client + '/memory.js');
const [socket, ...pieces] = process.argv.slice(2);
const device = await VfioUserClient.connect(socket);
let address = 0n;
for (const mebibytes of pieces) {
  const { fd, length } = new GuestMemory(Number(mebibytes) * 2 ** 20);
  const size = BigInt(length);
  const outcome = await device.mapDma({ address, size, fd }).then(
    () => 'mapped',
    (error) => error.message,
  );
  console.log(mebibytes + ' MiB: ' + outcome);
  address += size;
}
device.close();
`;
