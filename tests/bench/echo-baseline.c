/*
 * The baseline of the round-trip benchmark: the least a server has to do. It waits with poll, takes a request with
 * recvmsg, answers with sendmsg; no device, no parsing beyond what rtt-client.c needs to talk to both servers alike.
 * One client after the other, until it is killed.
 *
 * usage: echo-baseline [-c CPU] SOCKET      prints "ready" when it listens
 */
#define PROGRAM "echo-baseline"
#include "program.h"
#include <poll.h>
#include <sys/uio.h>
#include <unistd.h>

enum { HEADER_BYTES = sizeof(struct header) };

static int listen_at(const char *path)
{
    struct sockaddr_un address;
    int fd = socket_for(path, &address);
    unlink(path);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 1) != 0)
        fail(path);
    return fd;
}

/* A reply is the request with the reply flag; to REGION_READ, with as many bytes more as were asked for (zeros). */
static uint32_t make_reply(uint8_t *message, uint32_t size, uint32_t room)
{
    struct header header;
    uint32_t count = 0;
    memcpy(&header, message, sizeof header);
    if (header.command == REGION_READ && size >= 32)
        memcpy(&count, message + 28, sizeof count);
    if (count > room - size)
        count = room - size;
    memset(message + size, 0, count);
    header.size = size + count;
    header.flags = FLAG_REPLY;
    memcpy(message, &header, sizeof header);
    return size + count;
}

static void serve(int client)
{
    static uint8_t message[65536];
    char control[CMSG_SPACE(8 * sizeof(int))];
    for (;;) {
        struct pollfd waiting = { .fd = client, .events = POLLIN };
        if (poll(&waiting, 1, -1) < 0) {
            if (errno == EINTR)
                continue;
            fail("poll");
        }
        struct iovec part = { message, sizeof message / 2 };
        struct msghdr in = { .msg_iov = &part, .msg_iovlen = 1,
                             .msg_control = control, .msg_controllen = sizeof control };
        ssize_t got = recvmsg(client, &in, MSG_CMSG_CLOEXEC);
        if (got < HEADER_BYTES)
            return;
        struct iovec reply = { message, make_reply(message, got, sizeof message) };
        struct msghdr out = { .msg_iov = &reply, .msg_iovlen = 1 };
        if (sendmsg(client, &out, MSG_NOSIGNAL) < 0)
            return;
    }
}

int main(int argc, char **argv)
{
    int option;
    while ((option = getopt(argc, argv, "c:")) != -1) {
        if (option != 'c')
            return 2;
        pin_to(atoi(optarg));
    }
    if (argc - optind != 1) {
        fprintf(stderr, "usage: echo-baseline [-c CPU] SOCKET\n");
        return 2;
    }
    int listener = listen_at(argv[optind]);
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (client < 0)
            fail("accept");
        serve(client);
        close(client);
    }
}
