/*
 * Measures how long a vfio-user server takes to answer REGION_READ: one request at a time, a blocking receive.
 *
 * usage: rtt-client [-n COUNT] [-w WARMUP] [-c CPU] [-r REGION] [-o OFFSET] [-s BYTES] [-t THINK_MICROSECONDS] SOCKET
 * Prints one line of JSON, times in nanoseconds. Exit code 0 = every reply was good.
 * The defaults read 4 bytes of config space (region 7) at offset 0. -t leaves a pause before each request.
 */
#define PROGRAM "rtt-client"
#include "program.h"
#include <time.h>
#include <unistd.h>

enum { FLAG_TYPE = 0xf, FLAG_ERROR = 0x20, MOST_BYTES = 4096 };

struct region_read {
    struct header header;
    uint64_t offset;
    uint32_t region, count;
};

static void fail_protocol(const char *what)
{
    fprintf(stderr, PROGRAM ": %s\n", what);
    exit(1);
}

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static int connect_to(const char *path)
{
    struct sockaddr_un address;
    int fd = socket_for(path, &address);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        fail(path);
    return fd;
}

static void send_all(int fd, const void *bytes, size_t size)
{
    if (send(fd, bytes, size, MSG_NOSIGNAL) != (ssize_t)size)
        fail("send");
}

/* One whole message; usually one recv. Returns its size. */
static uint32_t receive(int fd, uint8_t *message, size_t room)
{
    size_t have = 0, need = sizeof(struct header);
    while (have < need) {
        ssize_t got = recv(fd, message + have, room - have, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            fail("recv");
        if (got == 0)
            fail_protocol("the server closed the connection");
        have += (size_t)got;
        if (have >= sizeof(struct header)) {
            struct header header;
            memcpy(&header, message, sizeof header);
            if (header.size < sizeof header || header.size > room)
                fail_protocol("a reply has an impossible size");
            need = header.size;
        }
    }
    if (have != need)
        fail_protocol("bytes came behind a reply");
    return (uint32_t)need;
}

static void negotiate(int fd)
{
    static const char capabilities[] = "{\"capabilities\":{}}";
    uint8_t message[MOST_BYTES];
    struct header header = { 1, VERSION, sizeof header + 4 + sizeof capabilities, 0, 0 };
    uint16_t version[2] = { 0, 1 };
    memcpy(message, &header, sizeof header);
    memcpy(message + sizeof header, version, sizeof version);
    memcpy(message + sizeof header + sizeof version, capabilities, sizeof capabilities);
    send_all(fd, message, header.size);
    receive(fd, message, sizeof message);
    memcpy(&header, message, sizeof header);
    if (header.command != VERSION || (header.flags & FLAG_TYPE) != FLAG_REPLY || (header.flags & FLAG_ERROR))
        fail_protocol("the server refused VERSION");
}

static int is_good(const uint8_t *message, const struct region_read *request)
{
    struct header header;
    memcpy(&header, message, sizeof header);
    return header.id == request->header.id && header.command == REGION_READ &&
           (header.flags & FLAG_TYPE) == FLAG_REPLY && !(header.flags & FLAG_ERROR) &&
           header.size == sizeof *request + request->count;
}

static int by_value(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

static void think(unsigned microseconds)
{
    if (microseconds == 0)
        return;
    struct timespec pause = { microseconds / 1000000, (long)(microseconds % 1000000) * 1000 };
    nanosleep(&pause, NULL);
}

int main(int argc, char **argv)
{
    size_t count = 20000, warmup = 2000, errors = 0;
    unsigned think_time = 0;
    struct region_read request = { { 0, REGION_READ, sizeof request, 0, 0 }, 0, 7, 4 };
    int option;
    while ((option = getopt(argc, argv, "n:w:c:r:o:s:t:")) != -1) {
        switch (option) {
        case 'n': count = strtoul(optarg, NULL, 0); break;
        case 'w': warmup = strtoul(optarg, NULL, 0); break;
        case 'c': pin_to(atoi(optarg)); break;
        case 'r': request.region = (uint32_t)strtoul(optarg, NULL, 0); break;
        case 'o': request.offset = strtoull(optarg, NULL, 0); break;
        case 's': request.count = (uint32_t)strtoul(optarg, NULL, 0); break;
        case 't': think_time = (unsigned)strtoul(optarg, NULL, 0); break;
        default: return 2;
        }
    }
    if (argc - optind != 1 || count == 0 || request.count > MOST_BYTES - sizeof request) {
        fprintf(stderr, "usage: rtt-client [-n COUNT] [-w WARMUP] [-c CPU] [-r REGION] [-o OFFSET] [-s BYTES] "
                        "[-t THINK_MICROSECONDS] SOCKET\n");
        return 2;
    }
    uint32_t *times = malloc(count * sizeof *times);
    if (times == NULL)
        fail("malloc");
    int fd = connect_to(argv[optind]);
    negotiate(fd);

    uint8_t reply[MOST_BYTES] = { 0 };
    for (size_t i = 0; i < warmup + count; i++) {
        think(think_time);
        request.header.id = (uint16_t)i;
        uint64_t start = now();
        send_all(fd, &request, sizeof request);
        receive(fd, reply, sizeof reply);
        uint64_t end = now();
        if (!is_good(reply, &request))
            errors++;
        if (i >= warmup)
            times[i - warmup] = (uint32_t)(end - start);
    }
    qsort(times, count, sizeof *times, by_value);
    uint32_t value;
    memcpy(&value, reply + sizeof request, sizeof value);
    printf("{\"count\":%zu,\"errors\":%zu,\"minimum\":%u,\"median\":%u,\"p99\":%u,\"maximum\":%u,\"value\":%u}\n",
           count, errors, times[0], times[count / 2], times[count - 1 - count / 100], times[count - 1], value);
    return errors != 0;
}
