/*
 * When a CPU of this machine did not run at all: neither a thread nor the kernel had it, but whoever the machine is a guest of. Of
 * such time Linux counts as stolen what it is told of, and the rest for the thread that was on the CPU.
 *
 * Each CPU is interrupted every 100 µs by perf's clock (perf_event_open(2)), whatever it is at, and an interrupt that comes later had no
 * CPU. A system call that takes long delays no interrupt, so it is no gap. Clocks of a CPU that sleeps may stop, which is one.
 *
 * usage: cpu-gaps
 * Prints `ready`, then a line for each gap: the CPU, and when it began and ended, nanoseconds of CLOCK_MONOTONIC. For a line on
 * standard input it looks at once, and prints `done`. Exit code 1: it may not look (root may, or CAP_PERFMON).
 */
#define PROGRAM "cpu-gaps"
#include "program.h"
#include <linux/perf_event.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PERIOD_NANOSECONDS = 100000, LATE_NANOSECONDS = 30000, PAGES = 16, MOST_CPUS = 1024, LOOK_MILLISECONDS = 100 };

struct cpu {
    int number;
    struct perf_event_mmap_page *ring;
    uint64_t last; /* when the last interrupt came; 0: not known */
};

struct sample {
    struct perf_event_header header;
    uint64_t time;
};

static size_t page;

static bool open_cpu(struct cpu *cpu, int number)
{
    struct perf_event_attr attr = {
        .type = PERF_TYPE_SOFTWARE,
        .config = PERF_COUNT_SW_CPU_CLOCK,
        .size = sizeof attr,
        .sample_period = PERIOD_NANOSECONDS,
        .sample_type = PERF_SAMPLE_TIME,
        .use_clockid = 1,
        .clockid = CLOCK_MONOTONIC,
    };
    int fd = syscall(SYS_perf_event_open, &attr, -1, number, -1, PERF_FLAG_FD_CLOEXEC);
    if (fd < 0) {
        if (errno == ENODEV) /* it is offline */
            return false;
        fail("perf_event_open");
    }
    cpu->number = number;
    cpu->ring = mmap(NULL, (1 + PAGES) * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (cpu->ring == MAP_FAILED)
        fail("mmap");
    return true;
}

/* A record may go on at the ring's begin. */
static void copy_out(const struct cpu *cpu, uint64_t from, void *to, size_t length)
{
    const char *data = (const char *)cpu->ring + page;
    size_t size = PAGES * page, start = from % size, first = length < size - start ? length : size - start;
    memcpy(to, data + start, first);
    memcpy((char *)to + first, data, length - first);
}

static void look(struct cpu *cpu)
{
    uint64_t head = __atomic_load_n(&cpu->ring->data_head, __ATOMIC_ACQUIRE), tail = cpu->ring->data_tail;
    while (tail < head) {
        struct sample sample;
        copy_out(cpu, tail, &sample.header, sizeof sample.header);
        if (sample.header.type == PERF_RECORD_SAMPLE) {
            copy_out(cpu, tail, &sample, sizeof sample);
            uint64_t due = cpu->last + PERIOD_NANOSECONDS;
            if (cpu->last != 0 && sample.time > due + LATE_NANOSECONDS)
                printf("%d %llu %llu\n", cpu->number, (unsigned long long)due, (unsigned long long)sample.time);
            cpu->last = sample.time;
        } else { /* some were lost, or held back: what was between is not known */
            cpu->last = 0;
        }
        tail += sample.header.size;
    }
    __atomic_store_n(&cpu->ring->data_tail, tail, __ATOMIC_RELEASE);
}

int main(void)
{
    static struct cpu cpus[MOST_CPUS];
    int count = 0;
    long configured = sysconf(_SC_NPROCESSORS_CONF);
    page = (size_t)sysconf(_SC_PAGESIZE);
    for (int number = 0; number < configured && count < MOST_CPUS; number++) {
        if (open_cpu(&cpus[count], number))
            count++;
    }
    puts("ready");
    for (;;) {
        fflush(stdout);
        struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
        int ready = poll(&input, 1, LOOK_MILLISECONDS);
        for (int index = 0; index < count; index++)
            look(&cpus[index]);
        if (ready > 0) {
            char asked[64];
            if (read(STDIN_FILENO, asked, sizeof asked) <= 0)
                return 0;
            puts("done");
        }
    }
}
