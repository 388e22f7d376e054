/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats_process.h - the process that serves the stats port and the control socket. It reads what the
 * workers wrote at the moment of the request; nothing that is asked here can hurt a worker or the master.
 *
 *   stats port      100 ms without a byte (or no HTTP): twemproxy's JSON; GET, HEAD: HTTP
 *   control socket  one line a connection: a verb and its arguments; "ok" or "error: why", then text
 *
 *   S1  At most STATS_CONNS_MAX connections; one more takes the place of the oldest.
 *   S2  Nobody keeps a connection: what takes longer than its deadline to ask or to read is dropped.
 */
#pragma once
#include "common/base/buffer.h"
#include "common/base/list.h"
#include "common/io/io.h"
#include "nginx-style-master/worker.h"
#include "proxy/conf.h"
#include "proxy/conf_live.h"
#include "proxy/stats_text.h"

#define STATS_CONNS_MAX 16u
#define STATS_HEAD_MAX  (8u << 10)
#define STATS_CHANGES_MAX 256u

struct stats_process;

enum stats_conn_state {
    STATS_CONN_READING,
    STATS_CONN_WAITING, /* for the master's answer, or the workers' */
    STATS_CONN_SENDING,
    STATS_CONN_LINGERING, /* all is sent: until the peer has read it */
    STATS_CONN_DEAD,
};

struct stats_conn {
    struct io_stream stream;
    struct list_node node; /* in process->conns, oldest first */
    struct stats_conn *dead_next;
    struct stats_process *process;
    struct io_timer timer;
    struct buffer out;
    size_t sent;
    uint64_t request_id; /* WAITING for the master: of worker_request() */
    uint8_t state;
    bool is_control;
};

struct stats_accept {
    struct io_listener listener;
    struct stats_process *process;
    bool is_control;
};

struct stats_process {
    struct worker *worker;
    struct io *io;
    const char *conf_path;
    struct conf *conf;           /* the workers' as far as we know: the file's and what was set */
    struct conf_live_change *changes; /* owns; what was set since the file was read */
    uint32_t changes_count;
    uint64_t leave_at_ms; /* 0: not told to leave */
    bool is_orphan;       /* the master is dead: until there is another one, or no worker */
    struct list conns;
    uint32_t conns_count;
    struct stats_conn *dead;
    struct io_watch channel;
    struct io_timer second;
    struct io_hook hook;
    struct stats_accept *accepts; /* owns */
    uint32_t accepts_count;
    int exit_code;
    char host_name[256];
};

/* For master_program.stats_main. `conf` is the caller's for good; it is written to. */
int stats_process_main(struct worker *worker, struct conf *conf, const char *conf_path,
                       uint32_t control_tag);

/* Sends conn->out and closes. */
void stats_conn_answer(struct stats_conn *conn);
void stats_conn_close(struct stats_conn *conn);

/* stats_http.c: what came so far; returns true when the answer is in conn->out. `is_timeout`: nothing came for
 * 100 ms, or will. */
bool stats_http_read(struct stats_conn *conn, struct bytes data, bool is_end);

/* control.c: a line has come. Leaves the connection in SENDING or WAITING. */
void control_line(struct stats_conn *conn, struct bytes line);
/* Changes our copy of the configuration, and remembers what the file said. */
MUST_USE int control_set(struct stats_process *process, struct bytes text, struct conf_error *error);
/* The master's answer to a request of ours. */
void control_replied(struct stats_process *process, uint64_t id, int err, const char *text);
/* Nobody will answer what was asked. */
void control_master_gone(struct stats_process *process);
/* What a connection waited for has had its time. */
void control_waited(struct stats_conn *conn);
