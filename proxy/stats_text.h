/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats_text.h - the totals as text: twemproxy's JSON, ours, Prometheus', a table for weirctl.
 */
#pragma once
#include "common/base/buffer.h"
#include "proxy/stats_view.h"

#define STATS_SERVICE "weir-proxy"

/* What lists are asked of: base, live segments. `json`: objects with a comma between; else text for people. */
struct stats_lists {
    struct worker *worker;
    uint64_t now_ms; /* monotonic */
    uint32_t count_max;
};

/* twemproxy's fields in its order, then scalars of ours, one line. */
void stats_text_twemproxy(const struct view *view, const char *host_name, struct buffer *out);
/* Everything. */
void stats_text_json(const struct view *view, const char *host_name, const struct stats_lists *lists,
                     struct buffer *out);
void stats_text_prometheus(const struct view *view, struct buffer *out);
/* Tab-separated: kind, labels, key=value ... */
void stats_text_table(const struct view *view, struct buffer *out);

/* stats_lists.c */
void stats_lists_slowlog_json(const struct stats_lists *lists, struct buffer *out);
void stats_lists_hotkeys_json(const struct stats_lists *lists, struct buffer *out);
void stats_lists_bigkeys_json(const struct stats_lists *lists, struct buffer *out);
void stats_lists_slowlog(const struct stats_lists *lists, struct buffer *out);
void stats_lists_hotkeys(const struct stats_lists *lists, struct buffer *out);
void stats_lists_bigkeys(const struct stats_lists *lists, struct buffer *out);
void stats_lists_clients(const struct stats_lists *lists, struct buffer *out);

/* Adds a string with quotes; what JSON does not take as it is, is escaped; bytes that are no UTF-8 become
 * \u00xx. */
void json_string(struct buffer *out, struct bytes text);
/* For people: anything but printable ASCII becomes \xNN. */
void printable(struct buffer *out, struct bytes text);
