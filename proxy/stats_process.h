/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats_process.h - the process that serves the stats port and the control socket. It reads what the
 * workers wrote at the moment of the request; nothing that is asked here can hurt a worker or the master.
 *
 *   stats port      common/http's: twemproxy's JSON, or HTTP
 *   control socket  one line a connection: a verb and its arguments; "ok" or "error: why", then text
 */
#pragma once
#include "common/http/http.h"
#include "nginx-style-master/worker.h"
#include "proxy/conf.h"
#include "proxy/conf_live.h"
#include "proxy/stats_text.h"

#define STATS_CHANGES_MAX 256u

struct stats_process {
    struct worker *worker;
    struct io *io;
    const char *conf_path;
    struct conf *conf;           /* the workers' as far as we know: the file's and what was set */
    struct conf_live_change *changes; /* owns; what was set since the file was read */
    uint32_t changes_count;
    uint64_t leave_at_ms; /* 0: not told to leave */
    bool is_orphan;       /* the master is dead: until there is another one, or no worker */
    struct http_server http; /* its arg is this */
    struct io_watch channel;
    struct io_timer second;
    struct http_listener *accepts; /* owns */
    uint32_t accepts_count;
    int exit_code;
    char host_name[256];
};

/* For master_program.stats_main. `conf` is the caller's for good; it is written to. */
int stats_process_main(struct worker *worker, struct conf *conf, const char *conf_path,
                       uint32_t control_tag);

/* stats_http.c: what the stats port shows. */
#define STATS_PAGES     5u
#define STATS_NOT_FOUND "there are /stats, /metrics and /healthz\n"
extern const struct http_page stats_pages[STATS_PAGES];
void stats_page_plain(void *arg, struct buffer *out);

/* control.c: a line has come. */
void control_line(struct http_conn *conn, struct bytes line);
/* Changes our copy of the configuration, and remembers what the file said. */
MUST_USE int control_set(struct stats_process *process, struct bytes text, struct conf_error *error);
/* The master's answer to a request of ours. */
void control_replied(struct stats_process *process, uint64_t id, int err, const char *text);
/* Nobody will answer what was asked. */
void control_master_gone(struct stats_process *process);
/* What a connection waited for has had its time. */
void control_waited(struct http_conn *conn);
