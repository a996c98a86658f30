/** The smallest page, in bytes: what memory is mapped in, over vfio-user and by VFIO, and the least that a VF BAR has. */
export const PAGE_BYTES = 4096;
