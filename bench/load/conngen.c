// Many short TCP connections, one after the other: 100 bytes there, 300 back, closed.
//
//     conngen serve ADDRESS PORT           until it is killed; prints "up" when it listens
//     conngen call ADDRESS PORT COUNT      prints {"done": …, "failed": …, "seconds": …}
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int serve(struct sockaddr_in *at) {
    char data[512];
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    memset(data, 'r', sizeof data);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)at, sizeof *at) || listen(listener, 4096)) {
        perror("listen");
        return 1;
    }
    printf("up\n");
    fflush(stdout);
    for (;;) {
        int caller = accept(listener, NULL, NULL);
        if (caller < 0) continue;
        if (read(caller, data, sizeof data) > 0 && write(caller, data, 300) < 0) perror("write");
        close(caller);
    }
}

static int call(struct sockaddr_in *at, long count) {
    char data[512];
    // closed by reset: else the ports would be used up by connections in TIME_WAIT
    struct linger reset = {1, 0};
    long done = 0, failed = 0;
    double began = now_s();
    memset(data, 'q', sizeof data);
    for (long i = 0; i < count; i++) {
        int sock = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(sock, (struct sockaddr *)at, sizeof *at) || write(sock, data, 100) != 100 ||
            read(sock, data, sizeof data) <= 0)
            failed++;
        else
            done++;
        setsockopt(sock, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(sock);
    }
    printf("{\"done\": %ld, \"failed\": %ld, \"seconds\": %.6f}\n", done, failed, now_s() - began);
    return 0;
}

int main(int argc, char **argv) {
    struct sockaddr_in at = {.sin_family = AF_INET};
    if (argc < 4 || inet_pton(AF_INET, argv[2], &at.sin_addr) != 1) return 2;
    at.sin_port = htons((unsigned short)atoi(argv[3]));
    if (!strcmp(argv[1], "serve")) return serve(&at);
    return argc > 4 ? call(&at, atol(argv[4])) : 2;
}
