/* The upstream of the benchmarks: an MCP server (streamable HTTP, without sessions) in one epoll loop.
 *
 * Usage: upstream PORT TOOLS. Listens on 127.0.0.1; with `-` for a port it is a server over stdio instead, a line for a
 * message, which answers `progress` without events. Its tools: `echo {"text"}` answers with the text as JSON;
 * `progress {"text"}` sends ten progress events first, as SSE; `large {"text", "bytes"}` answers with the text and so
 * many more bytes; and TOOLS tools that do nothing, so that lists are long. It answers a call in about 10 us, so that
 * what is measured is the way to it. Reads JSON only as far as it must: it talks to benchmarks, nobody else.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_REQUEST (4u << 20)
#define PROGRESS_EVENTS 10

typedef struct { char *data; size_t size, room; } Buffer;
typedef struct { int fd, waits; Buffer in, out; size_t sent; } Connection;
typedef struct { const char *begin, *end; } Span;

static Buffer tools;
static int over_stdio;

static void reserve(Buffer *buffer, size_t more) {
    if (buffer->size + more <= buffer->room) return;
    buffer->room = (buffer->size + more) * 2;
    buffer->data = realloc(buffer->data, buffer->room);
    if (!buffer->data) abort();
}

static void append(Buffer *buffer, const char *data, size_t size) {
    reserve(buffer, size);
    memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
}

static void print(Buffer *buffer, const char *format, ...) {
    va_list arguments;
    reserve(buffer, 4096);
    va_start(arguments, format);
    int size = vsnprintf(buffer->data + buffer->size, 4096, format, arguments);
    va_end(arguments);
    buffer->size += size < 4096 ? size : 4095;
}

/* --- JSON, as far as it is needed ----------------------------------------------------------------------------- */

static const char *blank(const char *at, const char *end) {
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r')) at++;
    return at;
}

static const char *skip(const char *at, const char *end) { /* past one value */
    at = blank(at, end);
    if (at >= end) return end;
    if (*at == '"') {
        for (at++; at < end && *at != '"'; at++)
            if (*at == '\\') at++;
        return at < end ? at + 1 : end;
    }
    if (*at == '{' || *at == '[') {
        for (int depth = 0; at < end;) {
            if (*at == '"') { at = skip(at, end); continue; }
            if (*at == '{' || *at == '[') depth++;
            if ((*at == '}' || *at == ']') && !--depth) return at + 1;
            at++;
        }
        return end;
    }
    while (at < end && *at != ',' && *at != '}' && *at != ']') at++;
    return at;
}

static Span member(Span object, const char *name) { /* the value of an object's member, or an empty span */
    Span none = {NULL, NULL};
    const char *at = object.begin, *end = object.end;
    size_t length = strlen(name);
    if (!at || (at = blank(at, end)) >= end || *at++ != '{') return none;
    for (;;) {
        at = blank(at, end);
        if (at >= end || *at != '"') return none;
        const char *key = at + 1, *after = skip(at, end);
        at = blank(after, end);
        if (at >= end || *at != ':') return none;
        Span value = {blank(at + 1, end), NULL};
        value.end = skip(value.begin, end);
        if ((size_t)(after - 1 - key) == length && !memcmp(key, name, length)) return value;
        at = blank(value.end, end);
        if (at >= end || *at++ != ',') return none;
    }
}

static int is(Span span, const char *text) {
    size_t length = strlen(text);
    return span.begin && (size_t)(span.end - span.begin) == length && !memcmp(span.begin, text, length);
}

/* --- answers -------------------------------------------------------------------------------------------------- */

static void head(Buffer *out, const char *status, const char *type, size_t size) {
    if (over_stdio) return;
    print(out, "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n", status, type, size);
}

static void json(Buffer *out, Span id, const char *result, size_t size) {
    int ids = (int)(id.end - id.begin);
    head(out, "200 OK", "application/json", sizeof "{\"jsonrpc\":\"2.0\",\"id\":,\"result\":}" - 1 + ids + size);
    print(out, "{\"jsonrpc\":\"2.0\",\"id\":%.*s,\"result\":", ids, id.begin);
    append(out, result, size);
    append(out, "}", 1);
}

static void chunk(Buffer *out, const Buffer *event) {
    print(out, "%zx\r\n", event->size);
    append(out, event->data, event->size);
    append(out, "\r\n", 2);
}

static void progress(Buffer *out, Span id, Span token, const char *result, size_t size) {
    static Buffer event;
    print(out, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int step = 1; token.begin && step <= PROGRESS_EVENTS; step++) {
        event.size = 0;
        print(&event, "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":"
              "{\"progressToken\":%.*s,\"progress\":%d,\"total\":%d}}\n\n",
              (int)(token.end - token.begin), token.begin, step, PROGRESS_EVENTS);
        chunk(out, &event);
    }
    event.size = 0;
    print(&event, "event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":%.*s,\"result\":", (int)(id.end - id.begin), id.begin);
    append(&event, result, size);
    append(&event, "}\n\n", 3);
    chunk(out, &event);
    append(out, "0\r\n\r\n", 5);
}

static void call(Buffer *out, Span id, Span params) {
    static Buffer result;
    Span name = member(params, "name"), arguments = member(params, "arguments"), text = member(arguments, "text");
    result.size = 0;
    append(&result, "{\"content\":[{\"type\":\"text\",\"text\":\"", 35);
    if (text.begin && *text.begin == '"') append(&result, text.begin + 1, text.end - text.begin - 2);
    if (is(name, "\"large\"")) {
        size_t bytes = strtoul(member(arguments, "bytes").begin ?: "0", NULL, 10);
        reserve(&result, bytes);
        memset(result.data + result.size, 'x', bytes);
        result.size += bytes;
    }
    append(&result, "\"}],\"isError\":false}", 20);
    if (is(name, "\"progress\"") && !over_stdio) progress(out, id, member(member(params, "_meta"), "progressToken"), result.data, result.size);
    else json(out, id, result.data, result.size);
}

static void answer(Buffer *out, Span body) {
    Span id = member(body, "id"), method = member(body, "method"), params = member(body, "params");
    char text[512];
    if (!id.begin || !method.begin) { /* a notification */
        if (!over_stdio) print(out, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
    } else if (is(method, "\"tools/call\"")) {
        call(out, id, params);
    } else if (is(method, "\"tools/list\"")) {
        json(out, id, tools.data, tools.size);
    } else if (is(method, "\"initialize\"")) {
        Span version = member(params, "protocolVersion");
        int size = snprintf(text, sizeof text, "{\"protocolVersion\":%.*s,\"capabilities\":{\"tools\":{}},"
                            "\"serverInfo\":{\"name\":\"bench\",\"version\":\"1\"}}",
                            (int)(version.end - version.begin), version.begin);
        json(out, id, text, size);
    } else if (is(method, "\"ping\"")) {
        json(out, id, "{}", 2);
    } else {
        int size = snprintf(text, sizeof text, "{\"jsonrpc\":\"2.0\",\"id\":%.*s,\"error\":{\"code\":-32601,"
                            "\"message\":\"Method not found\"}}", (int)(id.end - id.begin), id.begin);
        head(out, "200 OK", "application/json", size);
        append(out, text, size);
    }
}

static void list_tools(int count) {
    append(&tools, "{\"tools\":[", 10);
    for (int number = -3; number < count; number++) {
        char name[32];
        const char *known[] = {"echo", "progress", "large"};
        if (number < 0) snprintf(name, sizeof name, "%s", known[number + 3]);
        else snprintf(name, sizeof name, "tool_%04d", number);
        print(&tools, "%s{\"name\":\"%s\",\"description\":\"Takes a text and answers with it: one of the tools of the benchmarks\","
              "\"inputSchema\":{\"type\":\"object\",\"properties\":{\"text\":{\"type\":\"string\",\"description\":\"What to answer with\"},"
              "\"bytes\":{\"type\":\"integer\",\"minimum\":0}},\"required\":[\"text\"]}}", number > -3 ? "," : "", name);
    }
    append(&tools, "]}", 2);
}

/* --- connections ---------------------------------------------------------------------------------------------- */

static const char *header(const char *at, const char *end, const char *name) {
    size_t length = strlen(name);
    while (at < end) {
        const char *line = memmem(at, end - at, "\r\n", 2) ?: end;
        if ((size_t)(line - at) > length && at[length] == ':' && !strncasecmp(at, name, length)) {
            for (at += length + 1; *at == ' '; at++) {}
            return at;
        }
        at = line + 2;
    }
    return NULL;
}

static int unchunk(char *begin, char *end, Span *body, char **after) { /* 1 whole, and then in one piece; 0 not yet; -1 wrong */
    for (int moves = 0; moves < 2; moves++) {
        char *at = begin, *to = begin;
        for (;;) {
            char *line = memmem(at, end - at, "\r\n", 2);
            if (!line) return end - at > 16 ? -1 : 0;
            size_t size = strtoul(at, NULL, 16);
            if (size > MAX_REQUEST) return -1;
            if ((size_t)(end - line - 2) < size + 2) return 0;
            if (memcmp(line + 2 + size, "\r\n", 2)) return -1; /* nobody sends trailers here */
            if (moves) memmove(to, line + 2, size);
            at = line + 2 + size + 2;
            to += size;
            if (!size) break;
        }
        *body = (Span){begin, to};
        *after = at;
    }
    return 1;
}

static int serve(Connection *one) { /* answer what has arrived; 0 when the connection is to be closed */
    size_t done = 0;
    for (;;) {
        char *begin = one->in.data + done, *end = memmem(begin, one->in.size - done, "\r\n\r\n", 4);
        if (!end) break;
        const char *length = header(begin, end, "content-length");
        size_t size = length ? strtoul(length, NULL, 10) : 0;
        if (size > MAX_REQUEST) return 0;
        Span body = {end + 4, end + 4 + size};
        char *after = end + 4 + size;
        if (header(begin, end, "transfer-encoding")) {
            int whole = unchunk(end + 4, one->in.data + one->in.size, &body, &after);
            if (whole < 0) return 0;
            if (!whole) break;
        } else if ((size_t)(one->in.data + one->in.size - end - 4) < size) break;
        if (!memcmp(begin, "POST ", 5)) answer(&one->out, body);
        else if (!memcmp(begin, "GET / ", 6)) print(&one->out, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        else print(&one->out, "HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n");
        done = after - one->in.data;
    }
    memmove(one->in.data, one->in.data + done, one->in.size - done);
    one->in.size -= done;
    return one->in.size <= MAX_REQUEST;
}

static int flush(int epoll, Connection *one) { /* write what can be written; 0 when the connection is gone */
    while (one->sent < one->out.size) {
        ssize_t size = write(one->fd, one->out.data + one->sent, one->out.size - one->sent);
        if (size < 0 && errno != EAGAIN) return 0;
        if (size < 0) break;
        one->sent += size;
    }
    int waits = one->sent < one->out.size;
    if (!waits) one->sent = one->out.size = 0;
    if (waits != one->waits) {
        struct epoll_event event = {.events = waits ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = one};
        epoll_ctl(epoll, EPOLL_CTL_MOD, one->fd, &event);
        one->waits = waits;
    }
    return 1;
}

static void take(int epoll, int listener) {
    int fd, yes = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        Connection *one = calloc(1, sizeof *one);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = one};
        one->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

static int advance(int epoll, Connection *one) {
    reserve(&one->in, 64 << 10);
    ssize_t size = read(one->fd, one->in.data + one->in.size, one->in.room - one->in.size);
    if (size == 0 || (size < 0 && errno != EAGAIN)) return 0;
    if (size > 0) one->in.size += size;
    return serve(one) && flush(epoll, one);
}

static int talk(void) { /* over stdio, until its end */
    Buffer in = {0}, out = {0};
    for (;;) {
        reserve(&in, 64 << 10);
        ssize_t size = read(0, in.data + in.size, in.room - in.size);
        if (size <= 0) return 0;
        in.size += size;
        char *at = in.data, *end = in.data + in.size, *line;
        for (; (line = memchr(at, '\n', end - at)); at = line + 1) {
            size_t before = out.size;
            answer(&out, (Span){at, line});
            if (out.size > before) append(&out, "\n", 1);
        }
        memmove(in.data, at, end - at);
        in.size = end - at;
        for (size_t sent = 0; sent < out.size; sent += size)
            if ((size = write(1, out.data + sent, out.size - sent)) < 0) return 1;
        out.size = 0;
    }
}

int main(int count, char **arguments) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event events[256], event = {.events = EPOLLIN};
    int yes = 1;
    if (count != 3) return fprintf(stderr, "usage: upstream PORT TOOLS\n"), 2;
    signal(SIGPIPE, SIG_IGN);
    list_tools(atoi(arguments[2]));
    over_stdio = !strcmp(arguments[1], "-");
    if (over_stdio) return talk();
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), epoll = epoll_create1(0);
    address.sin_port = htons(atoi(arguments[1]));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 1024)) return perror("upstream"), 1;
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(epoll, events, 256, -1);
        for (int number = 0; number < ready; number++) {
            Connection *one = events[number].data.ptr;
            if (!one) take(epoll, listener);
            else if (!advance(epoll, one)) {
                close(one->fd);
                free(one->in.data);
                free(one->out.data);
                free(one);
            }
        }
    }
}
