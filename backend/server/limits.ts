// How much a client may send.

/** Data of one access or message, as VERSION announces it. */
export const MAX_DATA_BYTES = 1 << 20;
/** A message with its header and data: as large as this, or the session ends. */
export const MAX_MESSAGE_BYTES = MAX_DATA_BYTES + 4096;
/** Before a client has said who it is. */
export const MAX_GREETING_BYTES = 64 * 1024;
/** How long a client that connected may take for a VERSION that is accepted. A VMM sends it at once. */
export const MAX_SILENCE_MILLISECONDS = 30_000;
/** Fds in one message: more than we announce, because Cloud Hypervisor sends 16 whatever the server says. */
export const MAX_FDS = 64;
