/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stats port's pages.
 */
#include "config.h"

#include "proxy/stats_process.h"

#include <stdio.h>

#define LIST_MAX         128u
#define HEARTBEAT_OLD_MS 4000u

static void view_of(struct stats_process *process, struct view *view)
{
    view_init(view, process->worker, process->conf, io_wall_us(process->io) / 1000000);
}

void stats_page_plain(void *arg, struct buffer *out)
{
    struct stats_process *process = arg;
    struct view view;

    view_of(process, &view);
    stats_text_twemproxy(&view, process->host_name, out);
    view_deinit(&view);
}

static bool page_index(void *arg, struct buffer *body)
{
    struct stats_process *process = arg;
    struct view view;

    view_of(process, &view);
    buffer_append_format(body,
                         "weir-proxy " PACKAGE_VERSION " on %s\n\n/stats    everything, as JSON\n/metrics  for Prometheus\n"
                         "/healthz  200 while workers serve\n\n%llu clients, %u pools, up %llu s, configuration %u\n",
                         process->host_name, (unsigned long long)view.clients, view.pools_count,
                         (unsigned long long)view.uptime_s, view.master.generation);
    view_deinit(&view);
    return true;
}

static bool page_json(void *arg, struct buffer *body)
{
    struct stats_process *process = arg;
    struct stats_lists lists = {.worker = process->worker, .now_ms = io_now_ms(process->io), .count_max = LIST_MAX};
    struct view view;

    view_of(process, &view);
    stats_text_json(&view, process->host_name, &lists, body);
    view_deinit(&view);
    return true;
}

static bool page_metrics(void *arg, struct buffer *body)
{
    struct view view;

    view_of(arg, &view);
    stats_text_prometheus(&view, body);
    view_deinit(&view);
    return true;
}

/* Whether some worker accepts, and its loop turns. */
static bool is_healthy(struct worker *worker)
{
    struct worker_info info;

    for (uint32_t i = 0; i < worker_slots_count(worker); i++)
        if (worker_slot_info(worker, i, &info) && info.state == WORKER_STATE_SERVING &&
            info.heartbeat_age_ms < HEARTBEAT_OLD_MS)
            return true;
    return false;
}

static bool page_health(void *arg, struct buffer *body)
{
    bool is_well = is_healthy(((struct stats_process *)arg)->worker);

    buffer_append_string(body, is_well ? "ok\n" : "no worker serves\n");
    return is_well;
}

const struct http_page stats_pages[STATS_PAGES] = {
    {"/", NULL, page_index},
    {"/stats", "application/json", page_json},
    {"/stats.json", "application/json", page_json},
    {"/metrics", "text/plain; version=0.0.4; charset=utf-8", page_metrics},
    {"/healthz", NULL, page_health},
};
