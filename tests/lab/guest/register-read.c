// Measures a 4-byte read of a PCI function's memory BAR: maps the sysfs file of the BAR, reads one register many
// times, prints nanoseconds for each. The function must not have a driver.
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: register-read RESOURCE-FILE OFFSET COUNT\n");
    return 2;
  }
  long offset = strtol(argv[2], NULL, 0);
  long count = strtol(argv[3], NULL, 0);
  int fd = open(argv[1], O_RDWR | O_SYNC);
  volatile uint8_t *bar = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, offset & ~4095L);
  if (fd < 0 || bar == MAP_FAILED) {
    perror(argv[1]);
    return 1;
  }
  struct timespec start, end;
  clock_gettime(CLOCK_MONOTONIC, &start);
  uint32_t value = 0;
  for (long i = 0; i < count; i++) value = *(volatile uint32_t *)(bar + offset % 4096);
  clock_gettime(CLOCK_MONOTONIC, &end);
  double nanoseconds = (end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec);
  printf("value 0x%08x, %.0f ns\n", value, nanoseconds / count);
  return 0;
}
