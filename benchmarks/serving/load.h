/* What the parts of the load generator share: its options, and the answer that is being read. */
#pragma once
#define _GNU_SOURCE
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct options {
    const char *host, *port, *marker;
    char *request;
    size_t request_size, expected_count;
    float *expected;
    bool binary;
    double tolerance, largest, seconds, warmup, rate, drain;
    int connections;
    uint64_t seed;
};

extern struct options opt;

void options(int count, char **words);
_Noreturn void die(const char *format, ...);
void *grown(void *memory, size_t bytes);

struct answer {
    char *bytes; /* what was received so far, kept zero-terminated */
    size_t have, room;
    enum { HEAD, LENGTH, CHUNKED, TO_END } framing;
    size_t head, parsed, body, need; /* lengths: head, chunks read, body so far, body in all */
    int status;
    bool closes, retry_after;
};

enum state { PARTIAL, WHOLE, BROKEN };

void reset(struct answer *);                           /* before the next answer */
size_t make_room(struct answer *);                     /* how much may be received behind `have` */
void take(struct answer *, size_t received);           /* that much was */
enum state read_answer(struct answer *, bool at_end);  /* how far it is; at_end: no more will come */
bool is_right(struct answer *);                        /* the values of a whole one */
