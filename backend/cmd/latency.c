/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Latency: the spikes of each event, one sample a second and 160 of them, as Redis keeps them; and a histogram for
 * each command that was ever timed (fast commands are timed one in a few dozen: see dispatch.c).
 */
#include "backend/cmd/latency.h"

#include "backend/cmd/cmd_private.h"
#include "backend/cmd/handlers.h"
#include "backend/cmd/help.h"
#include "backend/cmd/settings.h"
#include "common/base/mem.h"
#include "common/stats/histogram.h"

#include <stdio.h>

#define EVENTS_MAX   16u
#define SAMPLES_MAX  160u
#define NAME_MAX_LEN 32u
#define GRAPH_WIDTH  80u
#define GRAPH_ROWS   4u
#define BUCKETS_MAX  30u

struct sample {
    uint32_t time_s, took_ms;
};
struct event {
    char name[NAME_MAX_LEN];
    uint32_t next, max_ms;
    struct sample samples[SAMPLES_MAX]; /* a ring; time_s 0: none */
};

struct latency {
    struct event *events[EVENTS_MAX]; /* own; NULL: free, the rest too */
    struct histogram *commands[COMMAND_COUNT]; /* own; NULL: never timed */
};

int latency_create(struct latency **out)
{
    *out = mem_zalloc(sizeof(**out));
    return *out == NULL ? ERR_FULL : 0;
}

void latency_histograms_reset(struct latency *latency)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        mem_free(latency->commands[i]);
        latency->commands[i] = NULL;
    }
}

void latency_destroy(struct latency **latency)
{
    if (*latency == NULL)
        return;
    latency_histograms_reset(*latency);
    for (size_t i = 0; i < EVENTS_MAX; i++)
        mem_free((*latency)->events[i]);
    mem_free(*latency);
    *latency = NULL;
}

/* ---- counting -------------------------------------------------------------------------------- */

static struct event *event_find(struct latency *latency, struct bytes name)
{
    for (size_t i = 0; i < EVENTS_MAX && latency->events[i] != NULL; i++)
        if (bytes_equal_nocase(bytes_of_string(latency->events[i]->name), name))
            return latency->events[i];
    return NULL;
}

/* NULL: no memory, or there are too many. */
static struct event *event_get(struct latency *latency, const char *name)
{
    struct event *event = event_find(latency, bytes_of_string(name));
    size_t i = 0;

    if (event != NULL)
        return event;
    while (i < EVENTS_MAX && latency->events[i] != NULL)
        i++;
    if (i == EVENTS_MAX)
        return NULL;
    event = latency->events[i] = mem_zalloc(sizeof(*event));
    if (event != NULL)
        snprintf(event->name, sizeof(event->name), "%s", name);
    return event;
}

static struct sample *event_last(struct event *event)
{
    return &event->samples[(event->next + SAMPLES_MAX - 1) % SAMPLES_MAX];
}

void latency_note(struct engine *engine, const char *name, uint64_t took_ms)
{
    uint32_t now_s = (uint32_t)(engine->now_ms / 1000);
    uint32_t ms = (uint32_t)MIN(took_ms, (uint64_t)UINT32_MAX);
    struct event *event;

    if (LIKELY(engine->settings->latency_threshold_ms == 0 ||
               took_ms < engine->settings->latency_threshold_ms))
        return;
    event = event_get(engine->latency, name);
    if (event == NULL)
        return;
    event->max_ms = MAX(event->max_ms, ms);
    if (event_last(event)->time_s == now_s) {
        event_last(event)->took_ms = MAX(event_last(event)->took_ms, ms);
        return;
    }
    event->samples[event->next] = (struct sample){.time_s = now_s, .took_ms = ms};
    event->next = (event->next + 1) % SAMPLES_MAX;
}

void latency_command_note(struct engine *engine, const struct command *command, uint64_t took_us)
{
    struct histogram **histogram = &engine->latency->commands[command->id];

    if (UNLIKELY(engine->settings->latency_threshold_ms != 0))
        latency_note(engine, command->flags & CMD_FAST ? "fast-command" : "command", took_us / 1000);
    if (UNLIKELY(!engine->settings->latency_tracking))
        return;
    if (UNLIKELY(*histogram == NULL)) {
        *histogram = mem_zalloc(sizeof(**histogram));
        if (*histogram == NULL)
            return;
    }
    histogram_add(*histogram, took_us);
}

bool latency_percentiles(const struct latency *latency, uint16_t command, double out[3])
{
    const struct histogram *histogram = latency->commands[command];

    if (histogram == NULL || histogram_count(histogram) == 0)
        return false;
    out[0] = (double)histogram_quantile(histogram, 5000);
    out[1] = (double)histogram_quantile(histogram, 9900);
    out[2] = (double)histogram_quantile(histogram, 9990);
    return true;
}

/* ---- LATENCY --------------------------------------------------------------------------------- */

/* Oldest first; returns how many. */
static uint32_t samples_of(const struct event *event, struct sample out[SAMPLES_MAX])
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < SAMPLES_MAX; i++) {
        const struct sample *sample = &event->samples[(event->next + i) % SAMPLES_MAX];

        if (sample->time_s != 0)
            out[count++] = *sample;
    }
    return count;
}

void cmd_latency_history(struct cmd *c)
{
    struct event *event = event_find(c->engine->latency, c->argv[2]);
    struct sample samples[SAMPLES_MAX];
    uint32_t count = event == NULL ? 0 : samples_of(event, samples);

    reply_array(c, count);
    for (uint32_t i = 0; i < count; i++) {
        reply_array(c, 2);
        reply_integer(c, samples[i].time_s);
        reply_integer(c, samples[i].took_ms);
    }
}

void cmd_latency_latest(struct cmd *c)
{
    struct latency *latency = c->engine->latency;
    uint64_t count = 0;

    while (count < EVENTS_MAX && latency->events[count] != NULL)
        count++;
    reply_array(c, count);
    for (uint64_t i = 0; i < count; i++) {
        struct event *event = latency->events[i];

        reply_array(c, 4);
        reply_bulk_string(c, event->name);
        reply_integer(c, event_last(event)->time_s);
        reply_integer(c, event_last(event)->took_ms);
        reply_integer(c, event->max_ms);
    }
}

void cmd_latency_reset(struct cmd *c)
{
    struct latency *latency = c->engine->latency;
    uint64_t gone = 0;
    size_t kept = 0;

    for (size_t i = 0; i < EVENTS_MAX && latency->events[i] != NULL; i++) {
        struct event *event = latency->events[i];
        bool is_meant = c->argc == 2;

        for (uint32_t j = 2; j < c->argc; j++)
            is_meant |= bytes_equal_nocase(c->argv[j], bytes_of_string(event->name));
        latency->events[i] = NULL;
        if (is_meant)
            mem_free(event);
        else
            latency->events[kept++] = event;
        gone += is_meant;
    }
    reply_integer(c, (int64_t)gone);
}

/* One column of each sample, from the row at the top down: as high as its share between least and most. */
static char graph_cell(uint32_t ms, uint32_t least, uint32_t most, uint32_t row)
{
    static const char marks[] = {'_', '-', '`'};
    uint32_t range = most > least ? most - least : 1;
    uint32_t steps = (uint32_t)((uint64_t)(ms - least) * (GRAPH_ROWS * 3 - 1) / range);
    uint32_t from_bottom = GRAPH_ROWS - 1 - row;

    if (steps / 3 == from_bottom)
        return ms == most ? '#' : marks[steps % 3];
    return steps / 3 > from_bottom ? '|' : ' ';
}

/* How long ago, in two letters: "5s", "3m", "2h", "9d". */
static void age_label(uint32_t age_s, char out[8])
{
    if (age_s < 60)
        snprintf(out, 8, "%us", age_s);
    else if (age_s < 3600)
        snprintf(out, 8, "%um", age_s / 60);
    else if (age_s < 24 * 3600)
        snprintf(out, 8, "%uh", age_s / 3600);
    else
        snprintf(out, 8, "%ud", MIN(age_s / (24 * 3600), 99999u));
}

static void graph_compose(struct buffer *out, const struct event *event, uint32_t now_s)
{
    struct sample samples[SAMPLES_MAX];
    uint32_t count = samples_of(event, samples), least = UINT32_MAX, most = 0, first;

    for (uint32_t i = 0; i < count; i++) {
        least = MIN(least, samples[i].took_ms);
        most = MAX(most, samples[i].took_ms);
    }
    buffer_append_format(out, "%s - high %u ms, low %u ms (all time high %u ms)\n", event->name, most,
                         least, event->max_ms);
    for (size_t i = 0; i < GRAPH_WIDTH; i++)
        buffer_append_string(out, "-");
    buffer_append_string(out, "\n");
    first = count > GRAPH_WIDTH ? count - GRAPH_WIDTH : 0;
    for (uint32_t row = 0; row < GRAPH_ROWS; row++) {
        for (uint32_t i = first; i < count; i++) {
            char cell = graph_cell(samples[i].took_ms, least, most, row);

            buffer_append(out, &cell, 1);
        }
        buffer_append_string(out, "\n");
    }
    /* The labels stand upright. */
    buffer_append_string(out, "\n");
    for (size_t line = 0; line < 3; line++) {
        for (uint32_t i = first; i < count; i++) {
            char label[8];

            age_label(now_s > samples[i].time_s ? now_s - samples[i].time_s : 0, label);
            buffer_append(out, line < strlen(label) ? &label[line] : " ", 1);
        }
        buffer_append_string(out, "\n");
    }
}

void cmd_latency_graph(struct cmd *c)
{
    struct event *event = event_find(c->engine->latency, c->argv[2]);
    struct buffer text = {0};

    if (event == NULL) {
        reply_error_format(c, "ERR No samples available for event '%.*s'", BYTES_ARG(c->argv[2]));
        return;
    }
    graph_compose(&text, event, (uint32_t)(c->now_ms / 1000));
    reply_verbatim(c, "txt", buffer_bytes(&text));
    buffer_deinit(&text);
}

static void doctor_event(struct buffer *out, uint32_t number, const struct event *event, uint32_t now_s)
{
    struct sample samples[SAMPLES_MAX];
    uint32_t count = samples_of(event, samples);
    uint64_t sum = 0, deviation = 0;
    double period;

    for (uint32_t i = 0; i < count; i++)
        sum += samples[i].took_ms;
    for (uint32_t i = 0; i < count; i++) {
        int64_t off = (int64_t)samples[i].took_ms - (int64_t)(sum / count);

        deviation += (uint64_t)(off < 0 ? -off : off);
    }
    period = (double)(now_s - samples[0].time_s) / count;
    buffer_append_format(out,
                         "%u. %s: %u latency spikes (average %llums, mean deviation %llums, period %.2f sec). "
                         "Worst all time event %ums.\n",
                         number, event->name, count, (unsigned long long)(sum / count),
                         (unsigned long long)(deviation / count), period, event->max_ms);
}

void cmd_latency_doctor(struct cmd *c)
{
    struct latency *latency = c->engine->latency;
    struct buffer text = {0};

    if (c->engine->settings->latency_threshold_ms == 0) {
        buffer_append_string(
            &text, "I'm sorry, Dave, I can't do that. Latency monitoring is disabled in this Redis instance. You may "
                   "use \"CONFIG SET latency-monitor-threshold <milliseconds>.\" in order to enable it. If we "
                   "weren't in a deep space mission I'd suggest to take a look at "
                   "https://redis.io/topics/latency-monitor.\n");
    } else if (latency->events[0] == NULL) {
        buffer_append_string(
            &text, "Dave, no latency spike was observed during the lifetime of this Redis instance, not in the "
                   "slightest bit. I honestly think you ought to sit down calmly, take a stress pill, and think "
                   "things over.\n");
    } else {
        buffer_append_string(&text, "Dave, I have observed latency spikes in this Redis instance. You don't mind "
                                    "talking about it, do you Dave?\n\n");
        for (uint32_t i = 0; i < EVENTS_MAX && latency->events[i] != NULL; i++)
            doctor_event(&text, i + 1, latency->events[i], (uint32_t)(c->now_ms / 1000));
        buffer_append_string(&text, "\nI have a few advices for you:\n\n- Check your Slow Log to understand what are "
                                    "the commands you are running which are too slow to execute. Please check "
                                    "https://redis.io/commands/slowlog for more information.\n");
    }
    reply_verbatim(c, "txt", buffer_bytes(&text));
    buffer_deinit(&text);
}

/* ---- LATENCY HISTOGRAM: buckets end where Redis's do, near the powers of two. ---------------- */

static void histogram_reply(struct cmd *c, const struct command *command, const struct histogram *histogram)
{
    uint64_t total = histogram_count(histogram), before = 0, pairs = 0;

    reply_bulk_string(c, command->name);
    reply_map(c, 2);
    reply_bulk_string(c, "calls");
    reply_integer(c, (int64_t)total);
    reply_bulk_string(c, "histogram_usec");
    reply_count_later(c);
    for (uint32_t i = 0; i < BUCKETS_MAX && before < total; i++) {
        uint64_t end_us = ((UINT64_C(1032) << i) - 1) / 1000;
        uint64_t count = histogram_count_to(histogram, end_us);

        if (count == before)
            continue;
        reply_integer(c, (int64_t)end_us);
        reply_integer(c, (int64_t)count);
        before = count;
        pairs++;
    }
    reply_count_map(c, pairs);
}

static uint64_t histogram_reply_if(struct cmd *c, const struct command *command)
{
    const struct histogram *histogram = c->engine->latency->commands[command->id];

    if (histogram == NULL || histogram_count(histogram) == 0)
        return 0;
    histogram_reply(c, command, histogram);
    return 1;
}

void cmd_latency_histogram(struct cmd *c)
{
    uint64_t count = 0;

    reply_count_later(c);
    for (uint16_t id = 1; c->argc == 2 && id < COMMAND_COUNT; id++)
        count += histogram_reply_if(c, command_by_id(id));
    for (uint32_t i = 2; i < c->argc; i++) {
        const struct command *command = command_find_full(c->argv[i]);

        if (command == NULL)
            continue;
        count += histogram_reply_if(c, command);
        /* A container stands for its subcommands. */
        for (uint16_t id = 1; (command->flags & CMD_HAS_SUBCOMMANDS) && id < COMMAND_COUNT; id++)
            if (command_by_id(id)->parent == command->id)
                count += histogram_reply_if(c, command_by_id(id));
    }
    reply_count_map(c, count);
}

void cmd_latency_help(struct cmd *c)
{
    static const char *const lines[] = {
        "DOCTOR",
        "    Return a human readable latency analysis report.",
        "GRAPH <event>",
        "    Return an ASCII latency graph for the <event> class.",
        "HISTORY <event>",
        "    Return time-latency samples for the <event> class.",
        "LATEST",
        "    Return the latest latency samples for all events.",
        "RESET [<event> ...]",
        "    Reset latency data of one or more <event> classes.",
        "    (default: reset all data for all event classes)",
        "HISTOGRAM [COMMAND ...]",
        ("    Return a cumulative distribution of latencies in the format of a histogram for the specified "
         "command names."),
        "    If no commands are specified then all histograms are replied.",
    };

    reply_help(c, "LATENCY", lines, ARRAY_COUNT(lines));
}
