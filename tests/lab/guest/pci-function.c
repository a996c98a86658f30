/*
 * Touches one PCI function from inside a guest, for the VM tests and the demo. Statically linked, runs beside busybox.
 *
 *   pci-function bar ADDRESS OFFSET [VALUE]          32-bit access to BAR 0, mapped from sysfs; no driver needed
 *   pci-function time ADDRESS OFFSET READS           nanoseconds that a 32-bit read of BAR 0 takes
 *   pci-function config ADDRESS OFFSET BYTES [VALUE] access to config space through sysfs
 *   pci-function memory PHYSICAL [VALUE]             32-bit access to bus memory through /dev/mem
 *   pci-function watch PHYSICAL FILE                 the same, for as long as there is FILE: prints each value that is new
 *   pci-function enable ADDRESS CAPABILITY NUMVFS WAIT [PHYSICAL]  behind the kernel's back: see enable_and_disable()
 *   pci-function drive ADDRESS STEP...               as a user of the guest's vfio-pci, with an IOMMU: see drive()
 *
 * ADDRESS is 0000:01:00.0; numbers are decimal, 0x or 0. Reads print 0x and hexadecimal digits. Every failure is one
 * line on standard error and exit status 1.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#ifdef __x86_64__
#include <sys/io.h>
#endif
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Registers of the loopback device: backend/devices/loopback/registers.ts. */
enum {
    DOORBELL = 0x10,
    DMA_SOURCE = 0x20,
    DMA_DESTINATION = 0x28,
    DMA_LENGTH = 0x30,
    DMA_VECTOR = 0x34,
    DMA_START = 0x38,
    DMA_STATUS = 0x3c,
    DMA_DONE = 1,
};

enum {
    PAGE = 4096,
    MOST_VECTORS = 64,
    READS_AT_ONCE = 1000,
    BUFFER_BYTES = 4 << 20,
    GUARD_BYTES = 64,
    COMMAND = 0x04,
    BUS_MASTER_ENABLE = 0x4,
    CLASS = 0x08,
    CONFIG_ADDRESS = 0xcf8,
    CONFIG_DATA = 0xcfc,
    INTERRUPT_MILLISECONDS = 5000,
    SILENCE_MILLISECONDS = 50,
};

static const uint32_t CONFIG_ENABLE = 0x80000000;

/* In the SR-IOV capability. */
enum {
    CONTROL = 0x08,
    VF_ENABLE = 0x1,
    VF_MEMORY_SPACE_ENABLE = 0x8,
    NUM_VFS = 0x10,
    FIRST_VF_OFFSET = 0x14,
    VF_STRIDE = 0x16,
};

/* Where the buffer is for the device: unlike any address that it has for the guest's processors. */
static const uint64_t IOVA = 0x20000000;

static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "pci-function: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    exit(1);
}

static uint64_t number(const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 0);
    if (*text == 0 || *end != 0)
        fail("%s is no number", text);
    return value;
}

static int open_sysfs(const char *address, const char *file)
{
    char path[256];
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/%s", address, file);
    int fd = open(path, O_RDWR | O_SYNC);
    if (fd < 0)
        fail("%s: %s", path, strerror(errno));
    return fd;
}

/* One page of `fd`, and in it the 32-bit register at `offset`. */
static volatile uint32_t *map_register(int fd, uint64_t offset, int protection)
{
    char *page = mmap(NULL, PAGE, protection, MAP_SHARED, fd, offset & ~(uint64_t)(PAGE - 1));
    if (page == MAP_FAILED)
        fail("mmap at 0x%llx: %s", (unsigned long long)offset, strerror(errno));
    return (volatile uint32_t *)(page + offset % PAGE);
}

static int bar(int count, char **arguments)
{
    volatile uint32_t *there =
        map_register(open_sysfs(arguments[0], "resource0"), number(arguments[1]), PROT_READ | PROT_WRITE);
    if (count == 3)
        *there = number(arguments[2]);
    else
        printf("0x%08x\n", *there);
    return 0;
}

static int time_reads(char **arguments)
{
    volatile uint32_t *there = map_register(open_sysfs(arguments[0], "resource0"), number(arguments[1]), PROT_READ);
    uint64_t reads = number(arguments[2]);
    struct timespec before, after;
    /* Into a variable: tcc leaves out a read whose value nobody wants, volatile or not. */
    uint32_t value = *there;
    clock_gettime(CLOCK_MONOTONIC, &before);
    for (uint64_t i = 0; i < reads; i++)
        value = *there;
    clock_gettime(CLOCK_MONOTONIC, &after);
    printf("%.1f\n", ((after.tv_sec - before.tv_sec) * 1e9 + (after.tv_nsec - before.tv_nsec)) / reads);
    return 0;
}

static volatile uint32_t *map_memory(const char *physical)
{
    int fd = open("/dev/mem", O_RDWR | O_SYNC);
    if (fd < 0)
        fail("/dev/mem: %s", strerror(errno));
    return map_register(fd, number(physical), PROT_READ | PROT_WRITE);
}

static int memory(int count, char **arguments)
{
    volatile uint32_t *there = map_memory(arguments[0]);
    if (count == 2)
        *there = number(arguments[1]);
    else
        printf("0x%08x\n", *there);
    return 0;
}

static int watch(char **arguments)
{
    volatile uint32_t *there = map_memory(arguments[0]);
    uint32_t last = *there;
    printf("0x%08x\n", last);
    while (access(arguments[1], F_OK) == 0) {
        for (int i = 0; i < READS_AT_ONCE; i++) {
            uint32_t value = *there;
            if (value != last)
                printf("0x%08x\n", value);
            last = value;
        }
    }
    return 0;
}

static int config(int count, char **arguments)
{
    int fd = open_sysfs(arguments[0], "config");
    uint64_t offset = number(arguments[1]), bytes = number(arguments[2]);
    uint32_t value = 0;
    if (bytes > sizeof value)
        fail("config space is accessed in 1, 2 or 4 bytes");
    if (count == 4) {
        value = number(arguments[3]);
        if (pwrite(fd, &value, bytes, offset) != (ssize_t)bytes)
            fail("config write: %s", strerror(errno));
        return 0;
    }
    if (pread(fd, &value, bytes, offset) != (ssize_t)bytes)
        fail("config read: %s", strerror(errno));
    printf("0x%0*x\n", (int)bytes * 2, value);
    return 0;
}

/* Config space by the ports of a PC: also of a function that the kernel does not know of. */
#ifdef __x86_64__
static void open_ports(void)
{
    if (iopl(3) != 0)
        fail("iopl: %s", strerror(errno));
}

static uint32_t read_by_ports(unsigned bus, unsigned devfn, unsigned offset)
{
    outl(CONFIG_ENABLE | bus << 16 | devfn << 8 | offset, CONFIG_ADDRESS);
    return inl(CONFIG_DATA);
}
#else
static void open_ports(void)
{
    fail("this processor has no ports");
}

static uint32_t read_by_ports(unsigned bus, unsigned devfn, unsigned offset)
{
    return UINT32_MAX;
}
#endif

static void write_word(int fd, uint64_t offset, uint16_t value)
{
    if (pwrite(fd, &value, sizeof value, offset) != sizeof value)
        fail("config write: %s", strerror(errno));
}

static uint16_t read_word(int fd, uint64_t offset)
{
    uint16_t value;
    if (pread(fd, &value, sizeof value, offset) != sizeof value)
        fail("config read: %s", strerror(errno));
    return value;
}

static void wait_milliseconds(uint64_t milliseconds)
{
    struct timespec time = {.tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1000000};
    while (nanosleep(&time, &time) != 0)
        ;
}

/*
 * A PF driver in short, from an SR-IOV capability at CAPABILITY: sets NumVFs and VF Enable, waits WAIT milliseconds, reads
 * the last VF, clears VF Enable, waits ten times as long, reads NumVFs. The standard wants a WAIT of 100. Of the VF it reads
 * class and revision, or, where it has no ports, what is at PHYSICAL; prints it.
 */
static int enable_and_disable(int count, char **arguments)
{
    unsigned bus, device, function;
    if (sscanf(arguments[0], "%*x:%x:%x.%x", &bus, &device, &function) != 3)
        fail("%s is no address", arguments[0]);
    int fd = open_sysfs(arguments[0], "config");
    uint64_t capability = number(arguments[1]), vfs = number(arguments[2]), wait = number(arguments[3]);
    volatile uint32_t *register_of_vf = count == 5 ? map_memory(arguments[4]) : NULL;
    if (register_of_vf == NULL)
        open_ports();
    write_word(fd, capability + NUM_VFS, vfs);
    unsigned vf = (bus << 8 | device << 3 | function) + read_word(fd, capability + FIRST_VF_OFFSET) +
                  (vfs - 1) * read_word(fd, capability + VF_STRIDE);
    write_word(fd, capability + CONTROL, VF_ENABLE | VF_MEMORY_SPACE_ENABLE);
    wait_milliseconds(wait);
    uint32_t seen = register_of_vf != NULL ? *register_of_vf : read_by_ports(vf >> 8, vf & 0xff, CLASS);
    write_word(fd, capability + CONTROL, 0);
    wait_milliseconds(10 * wait);
    read_word(fd, capability + NUM_VFS);
    printf("0x%08x\n", seen);
    return 0;
}

/* A function that this process drives through VFIO. */
struct driven {
    int device;
    volatile char *registers;
    uint64_t config_offset;
    unsigned char *buffer;
    int vectors;
    struct pollfd interrupts[MOST_VECTORS];
};

static void open_device(struct driven *it, const char *address)
{
    char link[256], target[256], path[64];
    snprintf(link, sizeof link, "/sys/bus/pci/devices/%s/iommu_group", address);
    ssize_t length = readlink(link, target, sizeof target - 1);
    if (length < 0)
        fail("%s: %s: boot the guest with an IOMMU", link, strerror(errno));
    target[length] = 0;
    snprintf(path, sizeof path, "/dev/vfio/%.32s", strrchr(target, '/') + 1);
    int container = open("/dev/vfio/vfio", O_RDWR), group = open(path, O_RDWR);
    if (container < 0 || group < 0)
        fail("%s: %s: bind the function to vfio-pci", path, strerror(errno));
    if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) || ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
        fail("VFIO container: %s", strerror(errno));
    it->device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, address);
    if (it->device < 0)
        fail("VFIO_GROUP_GET_DEVICE_FD %s: %s", address, strerror(errno));
    it->buffer = mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct vfio_iommu_type1_dma_map map = {
        .argsz = sizeof map,
        .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
        .vaddr = (uintptr_t)it->buffer,
        .iova = IOVA,
        .size = BUFFER_BYTES,
    };
    if (it->buffer == MAP_FAILED || ioctl(container, VFIO_IOMMU_MAP_DMA, &map))
        fail("VFIO_IOMMU_MAP_DMA: %s", strerror(errno));
    /* Container and group stay open until the process ends. */
}

static struct vfio_region_info region(int device, unsigned index)
{
    struct vfio_region_info info = {.argsz = sizeof info, .index = index};
    if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info))
        fail("VFIO_DEVICE_GET_REGION_INFO %u: %s", index, strerror(errno));
    return info;
}

static void set_bus_master(const struct driven *it, int on)
{
    uint16_t command;
    if (pread(it->device, &command, sizeof command, it->config_offset + COMMAND) != sizeof command)
        fail("Command cannot be read: %s", strerror(errno));
    command = on ? command | BUS_MASTER_ENABLE : command & ~BUS_MASTER_ENABLE;
    if (pwrite(it->device, &command, sizeof command, it->config_offset + COMMAND) != sizeof command)
        fail("Command cannot be written: %s", strerror(errno));
}

/* Binds an eventfd to every MSI-X vector; done once, however often the function is reset afterwards. */
static void bind_interrupts(struct driven *it)
{
    struct vfio_irq_info info = {.argsz = sizeof info, .index = VFIO_PCI_MSIX_IRQ_INDEX};
    if (ioctl(it->device, VFIO_DEVICE_GET_IRQ_INFO, &info) || info.count == 0 || info.count > MOST_VECTORS)
        fail("MSI-X has %u vectors: %s", info.count, strerror(errno));
    struct {
        struct vfio_irq_set set;
        int fds[MOST_VECTORS];
    } request = {.set = {
                     .argsz = sizeof request.set + info.count * sizeof(int),
                     .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
                     .index = VFIO_PCI_MSIX_IRQ_INDEX,
                     .count = info.count,
                 }};
    it->vectors = info.count;
    for (int vector = 0; vector < it->vectors; vector++) {
        int fd = eventfd(0, EFD_NONBLOCK);
        it->interrupts[vector] = (struct pollfd){.fd = fd, .events = POLLIN};
        request.fds[vector] = fd;
    }
    if (ioctl(it->device, VFIO_DEVICE_SET_IRQS, &request))
        fail("VFIO_DEVICE_SET_IRQS: %s", strerror(errno));
}

static void write_register(const struct driven *it, unsigned offset, uint32_t value)
{
    *(volatile uint32_t *)(it->registers + offset) = value;
}

static uint32_t read_register(const struct driven *it, unsigned offset)
{
    return *(volatile uint32_t *)(it->registers + offset);
}

/* Waits for exactly one interrupt, at `vector`, and for none at any other. */
static void expect_interrupt(struct driven *it, int vector, const char *cause)
{
    uint64_t times = 0;
    if (vector < 0 || vector >= it->vectors)
        fail("the function has %d vectors", it->vectors);
    if (poll(&it->interrupts[vector], 1, INTERRUPT_MILLISECONDS) != 1)
        fail("%s: no interrupt at vector %d within %d ms", cause, vector, INTERRUPT_MILLISECONDS);
    if (read(it->interrupts[vector].fd, &times, sizeof times) != sizeof times || times != 1)
        fail("%s: %llu interrupts instead of one", cause, (unsigned long long)times);
    if (poll(it->interrupts, it->vectors, SILENCE_MILLISECONDS) != 0)
        fail("%s: an interrupt that nothing asked for", cause);
}

static void expect_silence(struct driven *it, const char *cause)
{
    if (poll(it->interrupts, it->vectors, SILENCE_MILLISECONDS) != 0)
        fail("%s: an interrupt that nothing asked for", cause);
}

/* Copies `bytes` within the buffer by the function's DMA engine, from and to odd addresses, and looks at every byte. */
static uint32_t copy(struct driven *it, uint32_t bytes, int vector)
{
    static unsigned seed;
    const uint32_t source = 3, destination = BUFFER_BYTES / 2 + PAGE - 7;
    unsigned char *to = it->buffer + destination;
    if (bytes > BUFFER_BYTES / 4)
        fail("copies are of at most %d bytes", BUFFER_BYTES / 4);
    seed++;
    for (uint32_t i = 0; i < bytes; i++)
        it->buffer[source + i] = (unsigned char)(i * 7 + (i >> 8) + seed);
    memset(to - GUARD_BYTES, 0xee, bytes + 2 * GUARD_BYTES);
    write_register(it, DMA_SOURCE, IOVA + source);
    write_register(it, DMA_SOURCE + 4, (IOVA + source) >> 32);
    write_register(it, DMA_DESTINATION, IOVA + destination);
    write_register(it, DMA_DESTINATION + 4, (IOVA + destination) >> 32);
    write_register(it, DMA_LENGTH, bytes);
    write_register(it, DMA_VECTOR, vector);
    write_register(it, DMA_START, 1);
    uint32_t status = read_register(it, DMA_STATUS);
    if (status != DMA_DONE)
        return status;
    expect_interrupt(it, vector, "copy");
    if (memcmp(to, it->buffer + source, bytes) != 0)
        fail("copy: the bytes that arrived are not those that were sent");
    for (int i = 0; i < GUARD_BYTES; i++)
        if (to[-1 - i] != 0xee || to[bytes + i] != 0xee)
            fail("copy: bytes around the destination were written");
    return status;
}

/*
 * Opens the function, enables bus mastering, binds MSI-X once, then takes the steps in order and prints one line each:
 *   ring=VECTOR        a doorbell; its interrupt and no other
 *   copy=BYTES:VECTOR  a DMA copy; every byte and its interrupt
 *   quiet-ring=VECTOR  a doorbell that must raise nothing
 *   failed-copy=STATUS a copy that must end with this status of the DMA engine
 *   bus-master=0|1     Command.BusMasterEnable
 *   flr                VFIO_DEVICE_RESET: the guest's kernel resets the function and restores its config space
 *   read=OFFSET        prints a register
 */
static int drive(int count, char **arguments)
{
    struct driven it = {0};
    open_device(&it, arguments[0]);
    struct vfio_region_info bar0 = region(it.device, VFIO_PCI_BAR0_REGION_INDEX);
    it.config_offset = region(it.device, VFIO_PCI_CONFIG_REGION_INDEX).offset;
    it.registers = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, it.device, bar0.offset);
    if (it.registers == MAP_FAILED)
        fail("mmap of BAR 0: %s", strerror(errno));
    set_bus_master(&it, 1);
    bind_interrupts(&it);
    for (int i = 1; i < count; i++) {
        const char *step = arguments[i];
        char *value = strchr(arguments[i], '=');
        if (value != NULL)
            *value++ = 0;
        if (strcmp(step, "flr") == 0) {
            if (ioctl(it.device, VFIO_DEVICE_RESET))
                fail("VFIO_DEVICE_RESET: %s", strerror(errno));
            printf("flr\n");
        } else if (value == NULL) {
            fail("unknown step %s", step);
        } else if (strcmp(step, "ring") == 0) {
            write_register(&it, DOORBELL, number(value));
            expect_interrupt(&it, number(value), "ring");
            printf("interrupt at vector %s\n", value);
        } else if (strcmp(step, "quiet-ring") == 0) {
            write_register(&it, DOORBELL, number(value));
            expect_silence(&it, "quiet-ring");
            printf("silence\n");
        } else if (strcmp(step, "copy") == 0) {
            char *vector = strchr(value, ':');
            if (vector == NULL)
                fail("copy=BYTES:VECTOR");
            *vector++ = 0;
            uint32_t status = copy(&it, number(value), number(vector));
            if (status != DMA_DONE)
                fail("copy: the DMA engine ended with status %u", status);
            printf("%s bytes copied, interrupt at vector %s\n", value, vector);
        } else if (strcmp(step, "failed-copy") == 0) {
            uint32_t status = copy(&it, PAGE, 0);
            if (status != number(value))
                fail("failed-copy: the DMA engine ended with status %u", status);
            expect_silence(&it, "failed-copy");
            printf("DMA status %s\n", value);
        } else if (strcmp(step, "bus-master") == 0) {
            set_bus_master(&it, number(value));
            printf("bus master %s\n", value);
        } else if (strcmp(step, "read") == 0) {
            printf("0x%08x\n", read_register(&it, number(value)));
        } else {
            fail("unknown step %s", step);
        }
        fflush(stdout);
    }
    return 0;
}

int main(int count, char **arguments)
{
    const char *command = count > 1 ? arguments[1] : "";
    count -= 2;
    arguments += 2;
    if (strcmp(command, "bar") == 0 && (count == 2 || count == 3))
        return bar(count, arguments);
    if (strcmp(command, "time") == 0 && count == 3)
        return time_reads(arguments);
    if (strcmp(command, "config") == 0 && (count == 3 || count == 4))
        return config(count, arguments);
    if (strcmp(command, "memory") == 0 && (count == 1 || count == 2))
        return memory(count, arguments);
    if (strcmp(command, "watch") == 0 && count == 2)
        return watch(arguments);
    if (strcmp(command, "enable") == 0 && (count == 4 || count == 5))
        return enable_and_disable(count, arguments);
    if (strcmp(command, "drive") == 0 && count >= 1)
        return drive(count, arguments);
    fail("usage: see the head of pci-function.c");
}
