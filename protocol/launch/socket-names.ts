// The names of the sockets on which a backend serves the slots of its VFs, and how long a socket's path may be. Pure.

/** Bytes of a unix socket's path: sun_path of unix(7), without the NUL that ends it. */
export const MAX_SOCKET_PATH_BYTES = 107;

/** The socket of the slot of VF `vfIndex`, in the folder that `serve --vf-sockets` names. */
export function vfSocketPath(folder: string, vfIndex: number): string {
  return `${folder.replace(/\/+$/, '')}/vf${vfIndex}.sock`;
}

/** The socket of the carrier of VF `vfIndex`, in the same folder. */
export function carrierSocketPath(folder: string, vfIndex: number): string {
  return `${folder.replace(/\/+$/, '')}/carrier${vfIndex}.sock`;
}

/** Whether Linux takes `path` for a socket. */
export function isSocketPath(path: string): boolean {
  return new TextEncoder().encode(path).length <= MAX_SOCKET_PATH_BYTES && !path.includes('\0');
}
