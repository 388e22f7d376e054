/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_proxy.c - runs seeds of the simulated proxy; TAP.
 *
 *     sim_proxy                 SEEDS seeds (environment, default 100) from SEED_FIRST (default 1)
 *     sim_proxy -s SEED [-t]    one seed; -t prints everything that happens
 *     sim_proxy -n COUNT [-f FIRST] [-x]     -x ends at the first that fails
 *
 * Of every calm seed the replies must be the same when the network cuts the streams otherwise, and every
 * tenth is run twice: the traces must be equal.
 */
#include "tests/sim/world.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint64_t current_seed;

static void print_replay(void)
{
    char text[96];
    int len = snprintf(text, sizeof(text), "# replay with: make sim SEED=%llu\n",
                       (unsigned long long)current_seed);

    if (write(STDOUT_FILENO, text, (size_t)len) < 0)
        return;
}

static void died(int signo)
{
    print_replay();
    signal(signo, SIG_DFL);
    raise(signo);
}

void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

struct outcome {
    uint64_t trace, replies, clients[WORLD_CLIENTS_MAX];
    struct world_marks marks;
    bool has_failed;
    char why[WORLD_TEXT_MAX];
};

static void run(uint64_t seed, const struct world_profile *profile, struct outcome *out)
{
    struct world *world = world_create(seed, profile);

    if (!world->has_failed)
        world_run(world);
    *out = (struct outcome){.trace = sim_trace_hash(world->sim),
                            .replies = world_replies_hash(world),
                            .marks = world->marks,
                            .has_failed = world->has_failed};
    memcpy(out->why, world->why, sizeof(out->why));
    for (uint32_t i = 0; i < WORLD_CLIENTS_MAX; i++)
        out->clients[i] = world->clients[i] == NULL ? 0 : client_hash(world->clients[i]);
    world_destroy(&world);
}

static uint32_t first_difference(const struct outcome *a, const struct outcome *b)
{
    for (uint32_t i = 0; i < WORLD_CLIENTS_MAX; i++)
        if (a->clients[i] != b->clients[i])
            return i;
    return 0;
}

/* Returns whether it passed. */
static bool run_seed(uint64_t seed, bool is_traced, struct world_marks *sum)
{
    struct world_profile profile;
    struct outcome first, second;

    current_seed = seed;
    world_profile_draw(seed, &profile);
    profile.is_traced = is_traced;
    if (is_traced)
        printf("# %s%s%s backends=%u clients=%u ops=%u depth=%u timeout=%u conns=%u\n",
               profile.is_redis ? "redis" : "memcache", profile.is_faulty ? " faulty" : "",
               profile.is_hostile ? " hostile" : "", profile.backends, profile.clients, profile.ops,
               profile.depth, profile.timeout_ms, profile.server_connections);
    run(seed, &profile, &first);
    for (size_t i = 0; i < sizeof(*sum) / sizeof(uint64_t); i++)
        ((uint64_t *)sum)[i] += ((const uint64_t *)&first.marks)[i];
    if (!first.has_failed && seed % 10 == 0) {
        run(seed, &profile, &second);
        if (second.trace != first.trace)
            snprintf(first.why, sizeof(first.why), "the same seed gave another trace");
        first.has_failed = second.trace != first.trace;
    }
    if (!first.has_failed && !profile.is_faulty) {
        if (is_traced)
            printf("# the same again, cut otherwise\n");
        profile.segment_max = profile.segment_max == 0 ? 3 : 0;
        profile.buffer_size = profile.buffer_size == 0 ? 700 : 0;
        run(seed, &profile, &second);
        if (second.has_failed)
            memcpy(first.why, second.why, sizeof(first.why));
        first.has_failed = second.has_failed;
        if (!second.has_failed && second.replies != first.replies &&
            first.marks.reasons_lost + second.marks.reasons_lost == 0) {
            snprintf(first.why, sizeof(first.why), "other segments gave other replies, to client %u first",
                     first_difference(&first, &second));
            first.has_failed = true;
        }
    }
    if (first.has_failed) {
        printf("# seed %llu: %s\n", (unsigned long long)seed, first.why);
        print_replay();
    }
    return !first.has_failed;
}

/* A batch that never meets these has gone blind. */
static uint32_t check_marks(const struct world_marks *sum, uint32_t number)
{
    const struct {
        const char *what;
        uint64_t count;
    } marks[] = {{"replies", sum->replies},     {"error replies", sum->errors}, {"time-outs", sum->timeouts},
                 {"hand-overs", sum->handovers}, {"retries", sum->retries},     {"split replies", sum->splits},
                 {"dead servers", sum->kills},  {"tombstones", sum->tombstones}, {"doubts", sum->doubts},
                 {"cut replies", sum->cut},     {"tainted connections", sum->tainted}};
    uint32_t failed = 0;

    for (size_t i = 0; i < ARRAY_COUNT(marks); i++) {
        failed += marks[i].count == 0;
        printf("%s %u - the seeds met %llu %s\n", marks[i].count == 0 ? "not ok" : "ok", number++,
               (unsigned long long)marks[i].count, marks[i].what);
    }
    return failed;
}
#define MARKS_COUNT 11

static uint64_t environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text == NULL || text[0] == '\0' ? otherwise : strtoull(text, NULL, 10);
}

int main(int argc, char **argv)
{
    uint64_t first = environment("SEED_FIRST", 1), count = environment("SEEDS", 100);
    struct world_marks sum = {0};
    bool is_traced = false, is_one = false, ends_at_failure = false;
    uint32_t failed = 0;
    int option;

    while ((option = getopt(argc, argv, "s:n:f:tx")) != -1) {
        if (option == 's') {
            first = strtoull(optarg, NULL, 10);
            count = 1;
            is_one = true;
        } else if (option == 'n') {
            count = strtoull(optarg, NULL, 10);
        } else if (option == 'f') {
            first = strtoull(optarg, NULL, 10);
        } else if (option == 'x') {
            ends_at_failure = true;
        } else if (option == 't') {
            is_traced = true;
        } else {
            return 2;
        }
    }
    signal(SIGABRT, died);
    signal(SIGSEGV, died);
    if (__sanitizer_set_death_callback != NULL)
        __sanitizer_set_death_callback(print_replay);
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("1..%llu\n", (unsigned long long)(count + (is_one || count < 100 ? 0 : MARKS_COUNT)));
    for (uint64_t i = 0; i < count && !(ends_at_failure && failed > 0); i++) {
        bool is_good = run_seed(first + i, is_traced, &sum);

        failed += !is_good;
        printf("%s %llu - seed %llu\n", is_good ? "ok" : "not ok", (unsigned long long)i + 1,
               (unsigned long long)(first + i));
    }
    if (!is_one && count >= 100)
        failed += check_marks(&sum, (uint32_t)count + 1);
    return failed != 0;
}
