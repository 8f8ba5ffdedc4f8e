/* Reads one HTTP/1.1 answer as it comes in, and compares its values with the expected ones. */
#include "load.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void reset(struct answer *a) { a->have = 0, a->framing = HEAD; }

size_t make_room(struct answer *a) {
    if (a->room - a->have < 32768) {
        a->room = a->room ? 2 * a->room : 65536;
        a->bytes = grown(a->bytes, a->room);
    }
    return a->room - a->have - 1;
}

void take(struct answer *a, size_t received) {
    a->have += received;
    a->bytes[a->have] = 0;
}

static bool is_field(const char *line, const char *name) { return !strncasecmp(line, name, strlen(name)); }

/* Reads the head of the answer; false while it is not whole. */
static bool read_head(struct answer *a) {
    for (;;) {
        char *end = memmem(a->bytes, a->have, "\r\n\r\n", 4);
        if (!end) return false;
        a->head = (size_t)(end - a->bytes) + 4;
        if (strncmp(a->bytes, "HTTP/1.", 7) || a->head < 13) return a->status = 0, a->framing = TO_END, true;
        a->status = atoi(a->bytes + 9);
        if (a->status >= 200 || a->status < 100) break;
        a->have -= a->head; /* 100 Continue and its like */
        memmove(a->bytes, a->bytes + a->head, a->have + 1);
    }
    a->framing = TO_END, a->closes = a->bytes[7] == '0', a->retry_after = false;
    if (a->status == 204 || a->status == 304) a->framing = LENGTH, a->need = 0;
    for (char *line = a->bytes; (line = memmem(line, (size_t)(a->bytes + a->head - line), "\r\n", 2));) {
        line += 2;
        if (is_field(line, "content-length:") && a->framing != CHUNKED)
            a->framing = LENGTH, a->need = strtoull(line + 15, NULL, 10);
        else if (is_field(line, "transfer-encoding:"))
            a->framing = CHUNKED;
        else if (is_field(line, "retry-after:"))
            a->retry_after = true;
        else if (is_field(line, "connection:") && is_field(line + 11 + strspn(line + 11, " "), "close"))
            a->closes = true;
    }
    a->closes |= a->framing == TO_END;
    a->body = 0, a->parsed = a->head;
    return true;
}

/* Moves whole chunks together behind the head; 1 when the last was read, -1 for nonsense. */
static int read_chunks(struct answer *a) {
    for (;;) {
        char *line = a->bytes + a->parsed, *stop;
        char *end = memmem(line, a->have - a->parsed, "\r\n", 2);
        if (!end) return 0;
        size_t size = strtoull(line, &stop, 16), start = (size_t)(end - a->bytes) + 2;
        if (stop == line) return -1;
        if (!size) /* trailers, if any, end with an empty line */
            return memmem(end, (size_t)(a->bytes + a->have - end), "\r\n\r\n", 4) ? 1 : 0;
        if (size > a->have || start + size + 2 > a->have) return 0;
        memmove(a->bytes + a->head + a->body, a->bytes + start, size);
        a->body += size, a->parsed = start + size + 2;
    }
}

enum state read_answer(struct answer *a, bool at_end) {
    int done = 0;
    if (a->framing == HEAD && !read_head(a)) return at_end ? BROKEN : PARTIAL;
    if (a->framing == CHUNKED) {
        done = read_chunks(a);
    } else {
        a->body = a->have - a->head;
        if (a->framing == TO_END) done = at_end;
        if (a->framing == LENGTH && a->body >= a->need) a->body = a->need, done = 1;
    }
    return done > 0 ? WHOLE : done < 0 || at_end ? BROKEN : PARTIAL;
}

static bool close_enough(float got, float expected) {
    return fabs((double)got - (double)expected) <= opt.tolerance * opt.largest; /* false for NaN */
}

static bool are_right(const char *body, size_t size) {
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

bool is_right(struct answer *a) {
    char *body = a->bytes + a->head, kept = body[a->body];
    body[a->body] = 0; /* so that no number runs into what follows */
    bool right = are_right(body, a->body);
    body[a->body] = kept;
    return right;
}
