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
#include "load.h"

#include <errno.h>
#include <math.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

struct connection {
    int fd;
    bool connecting, busy, broken_pipe, wants_out;
    double due, again_at; /* when the request was due; when to connect again */
    size_t sent;
    struct answer in;
};

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
static uint64_t dice;

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
    if (c->in.status == 200) {
        good = is_right(&c->in);
        all_answers += good, wrong += !good;
    }
    if (counts) {
        if (c->in.status < 600) statuses[c->in.status]++;
        answers += good;
        refusals_with_retry += c->in.status != 200 && c->in.retry_after;
    }
    if (good && (opt.rate > 0 ? c->due >= from && c->due < until : counts)) sample(t - c->due);
    c->busy = false;
    if (c->in.closes || c->sent < opt.request_size)
        drop(c, false); /* a refusal may come before the whole request was read */
    else
        next(c);
}

static void received(struct connection *c, bool at_end) {
    switch (read_answer(&c->in, at_end)) {
    case WHOLE: answered(c); break;
    case BROKEN: drop(c, true); break;
    case PARTIAL: break;
    }
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
    c->busy = true, c->due = due, c->sent = 0;
    reset(&c->in);
    send_more(c);
}

static void receive_more(struct connection *c) {
    for (;;) {
        size_t room = make_room(&c->in);
        ssize_t n = recv(c->fd, c->in.bytes + c->in.have, room, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (!c->busy) { /* closed, or spoke, between two requests */
            drop(c, false);
            return;
        }
        take(&c->in, n > 0 ? (size_t)n : 0);
        received(c, n <= 0);
        if (c->fd < 0 || !c->busy || (size_t)n < room) return;
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
    dice = 88172645463325252u + 2685821657736338717u * opt.seed;
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
