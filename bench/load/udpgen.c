// Sends numbered UDP datagrams, a fixed number of them.
//
//     udpgen PORT PPS SIZE COUNT ADDRESS...
//
// PPS 0: as fast as it goes. Several addresses take turns. A payload begins with its number and the time at
// which it was sent (CLOCK_REALTIME, ns), both as 64-bit big-endian. Prints {"sent": …, "seconds": …}.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 32, LARGEST = 65536 };

static uint64_t now_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void sleep_until(uint64_t at_ns) {
    struct timespec t = {(time_t)(at_ns / 1000000000), (long)(at_ns % 1000000000)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

int main(int argc, char **argv) {
    if (argc < 6) {
        fprintf(stderr, "udpgen PORT PPS SIZE COUNT ADDRESS...\n");
        return 2;
    }
    int port = atoi(argv[1]), addresses = argc - 5;
    double pps = atof(argv[2]);
    size_t size = strtoul(argv[3], NULL, 10);
    uint64_t count = strtoull(argv[4], NULL, 10);
    if (size < 16 || size > LARGEST) return 2;
    struct sockaddr_in *to = calloc((size_t)addresses, sizeof *to);
    for (int i = 0; i < addresses; i++) {
        to[i].sin_family = AF_INET;
        to[i].sin_port = htons((uint16_t)port);
        if (inet_pton(AF_INET, argv[5 + i], &to[i].sin_addr) != 1) return 2;
    }
    int sock = socket(AF_INET, SOCK_DGRAM, 0);
    int buffer = 4 << 20;
    setsockopt(sock, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    if (addresses == 1 && connect(sock, (struct sockaddr *)to, sizeof *to)) {
        perror("connect");
        return 1;
    }
    static char payload[BATCH][LARGEST];
    struct iovec parts[BATCH];
    struct mmsghdr messages[BATCH];
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){payload[i], size};
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    uint64_t began = now_ns(CLOCK_MONOTONIC), number = 0, sent = 0;
    while (number < count) {
        uint64_t due = number + BATCH;
        if (pps > 0) {
            due = (uint64_t)((double)(now_ns(CLOCK_MONOTONIC) - began) * pps / 1e9) + 1;
            if (due <= number) { // at high rates a few are sent together rather than woken for each
                uint64_t next = began + (uint64_t)((double)number * 1e9 / pps) + 1;
                sleep_until(pps > 20000 ? next + 200000 : next);
                continue;
            }
        }
        int many = due - number > BATCH ? BATCH : (int)(due - number);
        if (number + (uint64_t)many > count) many = (int)(count - number);
        for (int i = 0; i < many; i++) {
            uint64_t words[2] = {htobe64(number + (uint64_t)i), htobe64(now_ns(CLOCK_REALTIME))};
            memcpy(payload[i], words, sizeof words);
            if (addresses > 1) {
                messages[i].msg_hdr.msg_name = &to[(number + (uint64_t)i) % (uint64_t)addresses];
                messages[i].msg_hdr.msg_namelen = sizeof *to;
            }
        }
        int done = sendmmsg(sock, messages, (unsigned)many, 0);
        if (done > 0) sent += (uint64_t)done;
        number += (uint64_t)many;
    }
    double seconds = (double)(now_ns(CLOCK_MONOTONIC) - began) / 1e9;
    printf("{\"sent\": %llu, \"seconds\": %.6f}\n", (unsigned long long)sent, seconds);
    return 0;
}
