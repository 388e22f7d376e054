/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the machine itself does to a program that waits for nobody, as no server on it can do better:
 *
 *     call    nanoseconds of a bare system call
 *     stops   moments in which a program that only reads the clock stood still for over a millisecond, in all
 *             `--ms`, and the longest in microseconds. It was not descheduled for another program then, if none wants its core.
 *     page    nanoseconds that the first access to each 2 MiB of memory takes, when it was left alone for half a second: on a
 *             virtual machine whose host forgets now and then where memory lies (0.1 µs where none does, several where one does)
 *
 * Prints "host CALL STOPS LONGEST PAGE", for tests/bench.
 */
#include "common/base/mem.h"
#include "tests/bench/net.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CALLS       100000u
#define STOP_NS     1000000u
#define PAGE_SIZE_  (2u << 20)
#define PAGES       256u
#define ALONE_NS    500000000u
#define SAMPLES     5u

static int compare(const void *a, const void *b)
{
    const uint64_t *left = a, *right = b;

    return (*left > *right) - (*left < *right);
}

static uint64_t median(uint64_t samples[SAMPLES])
{
    qsort(samples, SAMPLES, sizeof(*samples), compare);
    return samples[SAMPLES / 2];
}

static uint64_t call_sample(void)
{
    uint64_t begun = clock_ns();

    for (unsigned i = 0; i < CALLS; i++)
        MAYBE(syscall(SYS_getppid) < 0);
    return (clock_ns() - begun) / CALLS;
}

/* How often, and the longest in `*longest`, both of them nanoseconds. */
static unsigned stops_count(uint64_t ns, uint64_t *longest)
{
    uint64_t last = clock_ns(), end = last + ns;
    unsigned count = 0;

    *longest = 0;
    while (last < end) {
        uint64_t now = clock_ns(), gap = now - last;

        count += gap > STOP_NS;
        *longest = MAX(*longest, gap);
        last = now;
    }
    return count;
}

static uint64_t pages_access(volatile char *pages)
{
    uint64_t begun = clock_ns();

    for (unsigned i = 0; i < PAGES; i++)
        pages[(size_t)i * PAGE_SIZE_] = 1;
    return (clock_ns() - begun) / PAGES;
}

static uint64_t page_sample(volatile char *pages)
{
    uint64_t unused;

    MAYBE(pages_access(pages) != 0);
    MAYBE(stops_count(ALONE_NS, &unused) != 0);
    return pages_access(pages);
}

/* 0: there is no memory for it, or none in pages of that size. */
static uint64_t page_ns(void)
{
    size_t size = (size_t)PAGES * PAGE_SIZE_;
    char *pages = mem_alloc_aligned(size, PAGE_SIZE_);
    uint64_t samples[SAMPLES] = {0};

    if (pages != NULL && madvise(pages, size, MADV_HUGEPAGE) == 0)
        for (unsigned i = 0; i < SAMPLES; i++)
            samples[i] = page_sample(pages);
    mem_free(pages);
    return median(samples);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"ms", required_argument, NULL, 'm'}, {0}};
    uint64_t ms = 3000, longest, calls[SAMPLES];
    unsigned stops;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option != 'm')
            die(0, "usage: host [--ms MILLISECONDS]");
        ms = option_number("--ms", optarg, 1, 600000);
    }
    for (unsigned i = 0; i < SAMPLES; i++)
        calls[i] = call_sample();
    stops = stops_count(ms * 1000000, &longest);
    printf("host %llu %u %llu %llu\n", (unsigned long long)median(calls), stops, (unsigned long long)longest / 1000,
           (unsigned long long)page_ns());
    return 0;
}
