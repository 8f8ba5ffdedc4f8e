/* The command line of the load generator; what it means is told in load.c. */
#include "load.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options opt = {
    .host = "127.0.0.1", .tolerance = 1e-3, .seconds = 3, .warmup = 0.5, .drain = 10, .connections = 1};

_Noreturn void die(const char *format, ...) {
    va_list words;
    va_start(words, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, words);
    fputc('\n', stderr);
    va_end(words);
    exit(2);
}

void *grown(void *memory, size_t bytes) {
    memory = realloc(memory, bytes);
    if (!memory) die("no memory");
    return memory;
}

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

void options(int count, char **words) {
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
        else if (!strcmp(name, "--seed")) opt.seed = strtoull(value, NULL, 10);
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
