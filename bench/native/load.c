/* The load generator of the benchmarks: one request, over and over, in one epoll loop; every answer is checked.
 *
 * Usage: load PORT REQUEST CONNECTIONS SECONDS RATE BYTES EXPECT
 *
 * REQUEST is a file with one whole HTTP request; each `##########` in it becomes the number of the call, which the
 * answer must hold too, so that an answer that went to the wrong caller is a failed one. An answer must have status
 * 200, a body of BYTES or more, hold EXPECT (unless that is empty) and be no error of JSON-RPC or of a tool.
 *
 * RATE 0 is the closed loop: a connection sends its next call when its last one is answered. Else it is the open loop:
 * RATE calls a second fall due at fixed times, and each takes the next free connection; its latency counts from when
 * it was due, also when it had to wait for a connection, so that a stall is seen in full (no coordinated omission).
 *
 * Prints one line of JSON: calls answered within SECONDS, those and later ones (done), failed ones, latencies in microseconds, CPU seconds of its
 * own, and the first wrong answer's beginning.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define DIGITS 10
#define FIRST_NUMBER 1000000000ull
#define MAX_PLACES 8
#define MAX_ANSWER (64u << 20)
#define GRACE 10000000000ull /* nanoseconds for what is under way at the end */
#define FINE 128             /* steps of the histogram per power of two */

typedef struct {
    int fd, waits, closes, chunked;
    uint64_t began;
    char number[DIGITS + 1];
    char *in;
    size_t size, room, body, length; /* `body` is 0 until the head is there */
    size_t next, whole;              /* of a chunked body: where its next chunk begins, where what is decoded ends */
} Connection;

static char *request;
static size_t request_size, places[MAX_PLACES], place_count, least;
static const char *expected;
static struct sockaddr_in address = {.sin_family = AF_INET};
static int epoll;
static uint64_t numbers = FIRST_NUMBER, answered, done, failed, histogram[64 * FINE], slowest;
static char sample[301];

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void record(uint64_t nanoseconds) {
    uint64_t value = nanoseconds / 100 + 1;
    int power = 63 - __builtin_clzll(value);
    uint64_t step = power >= 7 ? (value >> (power - 7)) - FINE : (value << (7 - power)) - FINE;
    histogram[power * FINE + step]++;
    if (nanoseconds > slowest) slowest = nanoseconds;
}

static double quantile(double share) { /* in microseconds */
    uint64_t total = 0, seen = 0;
    for (int at = 0; at < 64 * FINE; at++) total += histogram[at];
    for (int at = 0; at < 64 * FINE; at++) {
        seen += histogram[at];
        if (total && seen >= total * share) {
            int power = at / FINE;
            double value = (double)(at % FINE + FINE) * ((uint64_t)1 << power) / FINE;
            return (value - 1) / 10;
        }
    }
    return 0;
}

static void fault(Connection *one, const char *what) {
    failed++;
    if (sample[0]) return;
    int size = one->in ? (int)(one->size < 240 ? one->size : 240) : 0;
    snprintf(sample, sizeof sample, "%s: %.*s", what, size, one->in ? one->in : "");
}

static void dial(Connection *one) {
    int yes = 1;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = one};
    if (one->fd >= 0) close(one->fd);
    one->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (one->fd < 0 || connect(one->fd, (void *)&address, sizeof address)) { perror("load: connect"); exit(1); }
    setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    epoll_ctl(epoll, EPOLL_CTL_ADD, one->fd, &event);
    one->waits = one->closes = 0;
    one->size = one->body = 0;
}

static void send_call(Connection *one, uint64_t began) {
    snprintf(one->number, sizeof one->number, "%llu", (unsigned long long)numbers++);
    for (size_t each = 0; each < place_count; each++) memcpy(request + places[each], one->number, DIGITS);
    one->began = began;
    one->waits = 1;
    one->size = one->body = 0;
    for (size_t sent = 0; sent < request_size;) { /* the socket blocks: requests are small */
        ssize_t size = write(one->fd, request + sent, request_size - sent);
        if (size < 0) { fault(one, "not sent"); dial(one); return; }
        sent += size;
    }
}

static const char *header(Connection *one, const char *name) {
    size_t length = strlen(name);
    const char *at = one->in, *end = one->in + one->body;
    while (at < end) {
        const char *line = memmem(at, end - at, "\r\n", 2);
        if (!line) return NULL;
        if ((size_t)(line - at) > length && at[length] == ':' && !strncasecmp(at, name, length)) {
            for (at += length + 1; *at == ' '; at++) {}
            return at;
        }
        at = line + 2;
    }
    return NULL;
}

static int unchunk(Connection *one) { /* decode in place what is there: 1 when that is all, -1 when it can't be read */
    for (;;) {
        char *at = one->in + one->next, *end = one->in + one->size, *after, *line = memmem(at, end - at, "\r\n", 2);
        if (!line) return end - at > 64 ? -1 : 0;
        size_t size = strtoul(at, &after, 16), left = end - line - 2;
        if (after == at || (*after != '\r' && *after != ';') || size > MAX_ANSWER) return -1;
        if (left < size + 2) return 0;
        if (memcmp(line + 2 + size, "\r\n", 2)) return -1; /* trailers are refused */
        memmove(one->in + one->whole, line + 2, size);
        one->whole += size;
        one->next = line + 2 + size + 2 - one->in;
        if (size) continue;
        if (one->next != one->size) return -1; /* there is more than the answer */
        one->size = one->whole;
        return 1;
    }
}

static int complete(Connection *one) { /* whether the answer is whole; -1 when it can't be read */
    if (!one->body) {
        const char *end = memmem(one->in, one->size, "\r\n\r\n", 4), *text;
        if (!end) return 0;
        one->body = one->next = one->whole = end + 4 - one->in;
        one->chunked = (text = header(one, "transfer-encoding")) && !strncasecmp(text, "chunked", 7);
        one->length = (text = header(one, "content-length")) ? strtoul(text, NULL, 10) : 0;
        one->closes = (text = header(one, "connection")) && !strncasecmp(text, "close", 5);
    }
    if (!one->chunked) return one->size >= one->body + one->length;
    return unchunk(one);
}

static int says(const char *json, size_t size, const char *member, const char *value) { /* with or without blanks */
    size_t length = strlen(member), wanted = strlen(value);
    const char *at = json, *end = json + size;
    while ((at = memmem(at, end - at, member, length))) {
        for (at += length; at < end && *at == ' '; at++) {}
        if (at == end || *at != ':') continue;
        for (at++; at < end && *at == ' '; at++) {}
        if ((size_t)(end - at) >= wanted && !memcmp(at, value, wanted)) return 1;
    }
    return 0;
}

static void check(Connection *one) {
    const char *body = one->in + one->body;
    size_t size = one->size - one->body, seen = size < 65536 ? size : 4096;
    if (strncmp(one->in, "HTTP/1.1 200", 12)) fault(one, "not 200");
    else if (size < least) fault(one, "too short");
    else if (place_count && !memmem(body, size, one->number, DIGITS)) fault(one, "not this call's answer");
    else if (*expected && !memmem(body, size, expected, strlen(expected))) fault(one, "not what was expected");
    else if (says(body, seen, "\"error\"", "") || says(body, seen, "\"isError\"", "true")) fault(one, "an error");
}

static int receive(Connection *one) { /* 1 when the call under way has come to its end */
    if (one->room - one->size < 65536) {
        one->room = one->room * 2 + 131072;
        one->in = realloc(one->in, one->room + 1);
        if (!one->in || one->room > MAX_ANSWER) { fprintf(stderr, "load: an answer is too large\n"); exit(1); }
    }
    ssize_t size = read(one->fd, one->in + one->size, one->room - one->size);
    if (size <= 0) {
        int waited = one->waits;
        if (waited) fault(one, "connection lost");
        dial(one);
        return waited;
    }
    one->size += size;
    one->in[one->size] = 0;
    if (!one->waits) { fault(one, "unasked"); dial(one); return 0; }
    int whole = complete(one);
    if (!whole) return 0;
    if (whole > 0) check(one);
    else fault(one, "wrong chunks");
    one->waits = 0;
    if (one->closes || whole < 0) dial(one);
    return 1;
}

static void read_request(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) { perror(path); exit(1); }
    request = malloc(1 << 20);
    request_size = fread(request, 1, (1 << 20) - 1, file);
    request[request_size] = 0;
    fclose(file);
    for (char *at = request; (at = memmem(at, request + request_size - at, "##########", DIGITS)); at += DIGITS)
        if (place_count < MAX_PLACES) places[place_count++] = at - request;
}

int main(int count, char **arguments) {
    if (count != 8) return fprintf(stderr, "usage: load PORT REQUEST CONNECTIONS SECONDS RATE BYTES EXPECT\n"), 2;
    int connections = atoi(arguments[3]), free_count = 0, open_loop;
    double seconds = atof(arguments[4]), rate = atof(arguments[5]);
    uint64_t due = 0, sent = 0, under_way = 0;
    struct epoll_event events[512];
    struct rusage usage;
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1ul);
    address.sin_port = htons(atoi(arguments[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    read_request(arguments[2]);
    least = strtoul(arguments[6], NULL, 10);
    expected = arguments[7];
    open_loop = rate > 0;
    epoll = epoll_create1(0);
    Connection *all = calloc(connections, sizeof *all), **idle = calloc(connections, sizeof *idle);
    for (int each = 0; each < connections; each++) {
        all[each].fd = -1;
        dial(idle[free_count++] = &all[each]);
    }
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event);
    uint64_t began = now(), until = began + (uint64_t)(seconds * 1e9), time = began;
    for (;;) {
        if (time < until && open_loop) {
            due = (uint64_t)((time - began) / 1e9 * rate) + 1;
            for (; free_count && sent < due; under_way++, sent++) send_call(idle[--free_count], began + (uint64_t)(sent / rate * 1e9));
            uint64_t next = began + (uint64_t)(due / rate * 1e9);
            struct itimerspec at = {.it_value = {next / 1000000000ull, next % 1000000000ull}};
            timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
        } else if (time < until) {
            for (; free_count; under_way++, sent++) send_call(idle[--free_count], time);
        } else if (!under_way || time > until + GRACE) {
            break;
        }
        int ready = epoll_wait(epoll, events, 512, 100);
        time = now();
        for (int number = 0; number < ready; number++) {
            Connection *one = events[number].data.ptr;
            uint64_t before = failed, expirations;
            if (!one) {
                if (read(timer, &expirations, sizeof expirations) < 0 && errno != EAGAIN) perror("load: timer");
                continue;
            }
            if (!receive(one)) continue;
            under_way--;
            idle[free_count++] = one;
            if (failed == before) {
                record(time - one->began);
                answered += time < until;
                done++;
            }
        }
    }
    if (under_way) failed += under_way;
    if (!sample[0] && under_way) snprintf(sample, sizeof sample, "no answer within 10 s");
    for (char *at = sample; *at; at++)
        if (*at == '"' || *at == '\\' || (unsigned char)*at < 32 || (unsigned char)*at > 126) *at = '\'';
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"seconds\":%.6f,\"calls\":%llu,\"done\":%llu,\"failed\":%llu,\"unsent\":%llu,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,"
           "\"max\":%.1f,\"cpu\":%.4f,\"sample\":\"%s\"}\n",
           seconds, (unsigned long long)answered, (unsigned long long)done, (unsigned long long)failed,
           (unsigned long long)(open_loop && due > sent ? due - sent : 0), quantile(0.5), quantile(0.9), quantile(0.99),
           quantile(0.999), slowest / 1e3,
           usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6, sample);
    return 0;
}
