/* Asks one HTTP/1.1 server the same question over and over, checks every answer and prints one
 * JSON object. A single thread over epoll, so that it takes little from the server beside it.
 *
 *   load --port P --request FILE [--host H] [--connections N] [--seconds S] [--warmup S]
 *        [--rate R] [--seed N] [--drain S] [--expect FILE --check json:MARKER|binary]
 *        [--tolerance T]
 *
 * Closed loop (no --rate): each connection asks again as soon as it has its answer; latency is
 * from the first byte sent to the last received. Open loop (--rate R): arrivals are a Poisson
 * process; one that finds no free connection waits here, and its latency counts from the moment
 * it was due, so a stalled server cannot hide behind requests that were never sent. Arrivals
 * still without an answer after the drain count with the time they have waited so far.
 *
 * FILE of --request holds a whole request. FILE of --expect holds float32 values; an answer with
 * status 200 is right if each value is within T times the largest expected magnitude.
 * all_answers and own cpu_seconds include warm-up and drain; everything else but wrong and errors
 * is of the measured window.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum framing { HEAD, LENGTH, CHUNKED, TO_END };

struct connection {
    int fd;
    bool connecting, busy, broken_pipe, wants_out;
    double due, again_at; /* when the request was due; when to connect again */
    size_t sent;
    char *in; /* what was received of the current answer, kept zero-terminated */
    size_t have, room;
    enum framing framing;
    size_t head, parsed, body, need; /* lengths: head, chunks read, body so far, body in all */
    int status;
    bool closes, retry_after;
};

static struct {
    const char *host, *port, *marker;
    char *request;
    size_t request_size, expected_count;
    float *expected;
    bool binary;
    double tolerance, largest, seconds, warmup, rate, drain;
    int connections;
} opt = {.host = "127.0.0.1", .tolerance = 1e-3, .seconds = 3, .warmup = 0.5, .drain = 10, .connections = 1};

static struct addrinfo *address;
static struct connection *all;
static int poller;
static double began, from, until; /* the start, and the measured window */
static bool draining;
static unsigned long answers, all_answers, wrong, errors, refusals_with_retry, most_waiting, unanswered;
static unsigned long statuses[600];
static double *samples;
static size_t sample_count, sample_room;
static double *queue; /* due times of waiting arrivals, a ring */
static size_t queue_head, queue_length, queue_room;
static uint64_t dice = 88172645463325252u;

static void die(const char *format, ...) {
    va_list words;
    va_start(words, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, words);
    fputc('\n', stderr);
    va_end(words);
    exit(2);
}

static void *grown(void *memory, size_t bytes) {
    memory = realloc(memory, bytes);
    if (!memory) die("no memory");
    return memory;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double uniform(void) { /* in (0, 1] */
    dice ^= dice << 13, dice ^= dice >> 7, dice ^= dice << 17;
    return ((double)(dice >> 11) + 1) / 9007199254740992.0;
}

static void sample(double seconds) {
    if (sample_count == sample_room) {
        sample_room = sample_room ? 2 * sample_room : 65536;
        samples = grown(samples, sample_room * sizeof *samples);
    }
    samples[sample_count++] = 1e3 * seconds;
}

/* ---- answers ---------------------------------------------------------------------------- */

static bool close_enough(float got, float expected) {
    return fabs((double)got - (double)expected) <= opt.tolerance * opt.largest; /* false for NaN */
}

static bool is_right(const char *body, size_t size) {
    if (!opt.expected_count) return true;
    if (opt.binary) {
        size_t bytes = opt.expected_count * sizeof(float);
        if (size < bytes) return false;
        for (size_t i = 0; i < opt.expected_count; i++) {
            float got;
            memcpy(&got, body + size - bytes + i * sizeof got, sizeof got);
            if (!close_enough(got, opt.expected[i])) return false;
        }
        return true;
    }
    const char *at = memmem(body, size, opt.marker, strlen(opt.marker));
    if (!at) return false;
    at += strlen(opt.marker);
    for (size_t i = 0; i < opt.expected_count; i++) {
        char *end;
        at += strspn(at, "[], \t\r\n");
        float got = strtof(at, &end);
        if (end == at || !close_enough(got, opt.expected[i])) return false;
        at = end;
    }
    at += strspn(at, "[], \t\r\n");
    return !(*at == '-' || (*at >= '0' && *at <= '9')); /* more values than there should be */
}

static void ask(struct connection *c, double due);
static void drop(struct connection *c, bool is_error);

/* The connection is free: the next in the queue, or in a closed loop the same again. */
static void next(struct connection *c) {
    if (c->fd < 0 || c->connecting || c->busy) return;
    if (opt.rate > 0) {
        if (!queue_length) return;
        double due = queue[queue_head];
        queue_head = (queue_head + 1) % queue_room, queue_length--;
        ask(c, due);
    } else if (!draining) {
        ask(c, now());
    }
}

static void answered(struct connection *c) {
    double t = now();
    bool counts = t >= from && t < until;
    bool good = false;
    if (c->status == 200) {
        char *body = c->in + c->head, kept = body[c->body];
        body[c->body] = 0; /* so that no number runs into what follows */
        good = is_right(body, c->body);
        body[c->body] = kept;
        all_answers += good, wrong += !good;
    }
    if (counts) {
        if (c->status < 600) statuses[c->status]++;
        answers += good;
        refusals_with_retry += c->status != 200 && c->retry_after;
    }
    if (good && (opt.rate > 0 ? c->due >= from && c->due < until : counts)) sample(t - c->due);
    c->busy = false;
    if (c->closes || c->sent < opt.request_size)
        drop(c, false); /* a refusal may come before the whole request was read */
    else
        c->have = 0, next(c);
}

static bool is_field(const char *line, const char *name) { return !strncasecmp(line, name, strlen(name)); }

/* Reads the head of the answer; false while it is not whole. */
static bool read_head(struct connection *c) {
    for (;;) {
        char *end = memmem(c->in, c->have, "\r\n\r\n", 4);
        if (!end) return false;
        c->head = (size_t)(end - c->in) + 4;
        if (strncmp(c->in, "HTTP/1.", 7) || c->head < 13) return c->status = 0, c->framing = TO_END, true;
        c->status = atoi(c->in + 9);
        if (c->status >= 200 || c->status < 100) break;
        c->have -= c->head; /* 100 Continue and its like */
        memmove(c->in, c->in + c->head, c->have + 1);
    }
    c->framing = TO_END, c->closes = c->in[7] == '0', c->retry_after = false;
    if (c->status == 204 || c->status == 304) c->framing = LENGTH, c->need = 0;
    for (char *line = c->in; (line = memmem(line, (size_t)(c->in + c->head - line), "\r\n", 2));) {
        line += 2;
        if (is_field(line, "content-length:") && c->framing != CHUNKED)
            c->framing = LENGTH, c->need = strtoull(line + 15, NULL, 10);
        else if (is_field(line, "transfer-encoding:"))
            c->framing = CHUNKED;
        else if (is_field(line, "retry-after:"))
            c->retry_after = true;
        else if (is_field(line, "connection:") && is_field(line + 11 + strspn(line + 11, " "), "close"))
            c->closes = true;
    }
    c->closes |= c->framing == TO_END;
    c->body = 0, c->parsed = c->head;
    return true;
}

/* Moves whole chunks together behind the head; 1 when the last was read, -1 for nonsense. */
static int read_chunks(struct connection *c) {
    for (;;) {
        char *line = c->in + c->parsed, *stop;
        char *end = memmem(line, c->have - c->parsed, "\r\n", 2);
        if (!end) return 0;
        size_t size = strtoull(line, &stop, 16), start = (size_t)(end - c->in) + 2;
        if (stop == line) return -1;
        if (!size) /* trailers, if any, end with an empty line */
            return memmem(end, (size_t)(c->in + c->have - end), "\r\n\r\n", 4) ? 1 : 0;
        if (size > c->have || start + size + 2 > c->have) return 0;
        memmove(c->in + c->head + c->body, c->in + start, size);
        c->body += size, c->parsed = start + size + 2;
    }
}

static void received(struct connection *c, bool at_end) {
    if (c->framing == HEAD && !read_head(c)) {
        if (at_end) drop(c, true);
        return;
    }
    int done = 0;
    if (c->framing == CHUNKED) {
        done = read_chunks(c);
    } else {
        c->body = c->have - c->head;
        if (c->framing == LENGTH) done = c->body >= c->need ? (c->body = c->need, 1) : 0;
        if (c->framing == TO_END) done = at_end;
    }
    if (done > 0)
        answered(c);
    else if (done < 0 || at_end)
        drop(c, true);
}

/* ---- connections ------------------------------------------------------------------------ */

static void watch(struct connection *c, bool out) {
    if (out == c->wants_out) return;
    c->wants_out = out;
    struct epoll_event event = {.events = EPOLLIN | (out ? EPOLLOUT : 0u), .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

static void open_connection(struct connection *c) {
    int one = 1;
    c->fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) die("socket: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->connecting = c->wants_out = true;
    c->busy = c->broken_pipe = false;
    c->have = 0;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    if (connect(c->fd, address->ai_addr, address->ai_addrlen) && errno != EINPROGRESS) {
        drop(c, true);
        return;
    }
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event);
}

/* Closes a connection; a new one is made at once, or a little later where this one failed. */
static void drop(struct connection *c, bool is_error) {
    close(c->fd);
    c->fd = -1;
    if (is_error) {
        errors++;
        if (c->busy && opt.rate > 0 && c->due >= from && c->due < until) unanswered++;
    }
    c->busy = c->connecting = false;
    c->again_at = is_error ? now() + 0.01 : 0;
    if (!is_error && !draining) open_connection(c);
}

static void send_more(struct connection *c) {
    while (c->sent < opt.request_size && !c->broken_pipe) {
        ssize_t n = send(c->fd, opt.request + c->sent, opt.request_size - c->sent, MSG_NOSIGNAL);
        if (n >= 0)
            c->sent += (size_t)n;
        else if (errno == EAGAIN)
            break;
        else
            c->broken_pipe = true; /* there may be an answer to read all the same */
    }
    watch(c, c->sent < opt.request_size && !c->broken_pipe);
}

static void ask(struct connection *c, double due) {
    c->busy = true, c->due = due, c->sent = 0, c->have = 0, c->framing = HEAD;
    send_more(c);
}

static void receive_more(struct connection *c) {
    for (;;) {
        if (c->room - c->have < 32768) {
            c->room = c->room ? 2 * c->room : 65536;
            c->in = grown(c->in, c->room);
        }
        ssize_t n = recv(c->fd, c->in + c->have, c->room - c->have - 1, 0);
        if (n < 0 && errno == EAGAIN) return;
        bool at_end = n <= 0;
        if (!c->busy) { /* closed, or spoke, between two requests */
            drop(c, false);
            return;
        }
        if (!at_end) c->have += (size_t)n;
        c->in[c->have] = 0;
        bool was_full = !at_end && c->have == c->room - 1;
        received(c, at_end);
        if (at_end || c->fd < 0 || !c->busy || !was_full) return;
    }
}

static void turn(struct connection *c, uint32_t events) {
    if (c->fd < 0) return;
    if (c->connecting) {
        int failure = 0;
        socklen_t size = sizeof failure;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &failure, &size);
        if (failure) {
            drop(c, true);
        } else if (events & EPOLLOUT) {
            c->connecting = false;
            watch(c, false);
            next(c);
        }
        return;
    }
    if (events & EPOLLOUT && c->busy) send_more(c);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive_more(c);
}

/* ---- arrivals ---------------------------------------------------------------------------- */

static void arrive(double due) {
    if (queue_length == queue_room) {
        double *wider = grown(NULL, (queue_room ? 2 * queue_room : 1024) * sizeof *wider);
        for (size_t i = 0; i < queue_length; i++) wider[i] = queue[(queue_head + i) % queue_room];
        free(queue);
        queue = wider, queue_head = 0, queue_room = queue_room ? 2 * queue_room : 1024;
    }
    queue[(queue_head + queue_length++) % queue_room] = due;
    static int at; /* the connections take turns */
    for (int i = 0; i < opt.connections; i++) {
        struct connection *c = &all[at = (at + 1) % opt.connections];
        if (c->fd >= 0 && !c->connecting && !c->busy) {
            next(c);
            break;
        }
    }
    if (queue_length > most_waiting) most_waiting = queue_length;
}

static void arm(int timer, double at) {
    double wait = fmax(at - now(), 1e-9);
    struct itimerspec t = {.it_value = {.tv_sec = (time_t)wait, .tv_nsec = (long)(1e9 * fmod(wait, 1))}};
    if (!t.it_value.tv_sec && !t.it_value.tv_nsec) t.it_value.tv_nsec = 1;
    timerfd_settime(timer, 0, &t, NULL);
}

static bool is_idle(void) {
    for (int i = 0; i < opt.connections; i++)
        if (all[i].busy) return false;
    return !queue_length;
}

static void loop(void) {
    struct epoll_event events[256], tick = {.events = EPOLLIN, .data.ptr = NULL};
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    epoll_ctl(poller, EPOLL_CTL_ADD, timer, &tick);
    double arrival = opt.rate > 0 ? began - log(uniform()) / opt.rate : INFINITY;
    double give_up = until + opt.drain;
    for (;;) {
        double t = now();
        if (t >= until) draining = true;
        if (draining && (is_idle() || t >= give_up)) break;
        for (; arrival <= t && arrival < until; arrival -= log(uniform()) / opt.rate) arrive(arrival);
        for (int i = 0; i < opt.connections; i++)
            if (all[i].fd < 0 && t >= all[i].again_at && (!draining || queue_length)) open_connection(&all[i]);
        double wake = fmin(t + 0.01, draining ? give_up : until);
        arm(timer, fmin(wake, arrival < until ? arrival : wake));
        int n = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < n; i++) {
            uint64_t ticks;
            if (events[i].data.ptr)
                turn(events[i].data.ptr, events[i].events);
            else if (read(timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN)
                die("timer: %s", strerror(errno));
        }
    }
    double t = now();
    for (int i = 0; opt.rate > 0 && i < opt.connections; i++)
        if (all[i].busy && all[i].due >= from) sample(t - all[i].due), unanswered++;
    for (size_t i = 0; i < queue_length; i++) {
        double due = queue[(queue_head + i) % queue_room];
        if (due >= from) sample(t - due), unanswered++;
    }
}

/* ---- start and end ----------------------------------------------------------------------- */

static char *whole_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file) die("%s: %s", path, strerror(errno));
    char *bytes = NULL;
    size_t room = 0, n;
    *size = 0;
    do {
        if (*size + 65536 > room) bytes = grown(bytes, room = 2 * room + 131072);
        n = fread(bytes + *size, 1, 65536, file);
        *size += n;
    } while (n);
    fclose(file);
    return bytes;
}

static void options(int count, char **words) {
    for (int i = 1; i < count; i += 2) {
        const char *name = words[i], *value = i + 1 < count ? words[i + 1] : NULL;
        if (!value) die("%s has no value", name);
        size_t size;
        if (!strcmp(name, "--host")) opt.host = value;
        else if (!strcmp(name, "--port")) opt.port = value;
        else if (!strcmp(name, "--request")) opt.request = whole_file(value, &opt.request_size);
        else if (!strcmp(name, "--connections")) opt.connections = atoi(value);
        else if (!strcmp(name, "--seconds")) opt.seconds = atof(value);
        else if (!strcmp(name, "--warmup")) opt.warmup = atof(value);
        else if (!strcmp(name, "--rate")) opt.rate = atof(value);
        else if (!strcmp(name, "--drain")) opt.drain = atof(value);
        else if (!strcmp(name, "--seed")) dice += 2685821657736338717u * (uint64_t)atoll(value);
        else if (!strcmp(name, "--tolerance")) opt.tolerance = atof(value);
        else if (!strcmp(name, "--expect")) {
            opt.expected = (float *)(void *)whole_file(value, &size);
            opt.expected_count = size / sizeof(float);
        } else if (!strcmp(name, "--check")) {
            opt.binary = !strcmp(value, "binary");
            if (!strncmp(value, "json:", 5)) opt.marker = value + 5;
            else if (!opt.binary) die("--check is json:MARKER or binary, not %s", value);
        } else die("no option %s", name);
    }
    if (!opt.port || !opt.request_size) die("--port and --request are needed");
    if (opt.connections < 1 || opt.seconds <= 0) die("connections and seconds must be more than 0");
    if (opt.expected_count && !opt.binary && !opt.marker) die("--expect needs --check");
    for (size_t i = 0; i < opt.expected_count; i++)
        opt.largest = fmax(opt.largest, fabs((double)opt.expected[i]));
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(double part) {
    return sample_count ? samples[(size_t)(part * (double)(sample_count - 1) + 0.5)] : NAN;
}

static void print_quantile(const char *name, double part) {
    if (sample_count) printf("\"%s\": %.4f, ", name, quantile(part));
    else printf("\"%s\": null, ", name);
}

static void print(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                 1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    if (sample_count) qsort(samples, sample_count, sizeof *samples, ascending);
    printf("{\"answers\": %lu, \"wrong\": %lu, \"errors\": %lu, \"statuses\": {", answers, wrong, errors);
    const char *between = "";
    for (int code = 0; code < 600; code++)
        if (statuses[code]) printf("%s\"%d\": %lu", between, code, statuses[code]), between = ", ";
    printf("}, \"retry_after\": %lu, \"seconds\": %.3f, \"answers_per_s\": %.3f, ", refusals_with_retry,
           opt.seconds, (double)answers / opt.seconds);
    print_quantile("p50_ms", 0.5), print_quantile("p90_ms", 0.9);
    print_quantile("p99_ms", 0.99), print_quantile("max_ms", 1);
    printf("\"all_answers\": %lu, \"late\": %lu, \"unanswered\": %lu, \"cpu_seconds\": %.3f}\n", all_answers,
           most_waiting, unanswered, cpu);
}

int main(int count, char **words) {
    options(count, words);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    int failure = getaddrinfo(opt.host, opt.port, &hints, &address);
    if (failure) die("%s: %s", opt.host, gai_strerror(failure));
    poller = epoll_create1(0);
    all = calloc((size_t)opt.connections, sizeof *all);
    if (poller < 0 || !all) die("no memory");
    began = now(), from = began + opt.warmup, until = from + opt.seconds;
    for (int i = 0; i < opt.connections; i++) open_connection(&all[i]);
    loop();
    print();
    return 0;
}
