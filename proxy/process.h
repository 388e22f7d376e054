/* SPDX-License-Identifier: Apache-2.0 */
/*
 * process.h - the proxy as processes: what the master asks of it, and a worker's life.
 */
#pragma once
#include "common/base/log.h"
#include "nginx-style-master/master.h"
#include "proxy/conf.h"

/* Of the command line; what is not set leaves the configuration's word. */
struct process_options {
    const char *conf_path; /* absolute */
    const char *log_path, *pid_path;
    const char *stats_host; /* NULL: not given */
    int stats_port;         /* -1: not given */
    int64_t stats_interval_ms; /* -1: not given */
    int log_level;          /* -1: not given */
    bool daemonize;
    struct log *log; /* borrows */
};

/* For -t: what a start would refuse beside the settings themselves. 0, or negative with a text. */
MUST_USE int process_check(const struct process_options *options, char error[MASTER_ERROR_SIZE]);
/* Fills in the program for master_run(). `options` and `log` are borrowed for its whole life. */
void process_program(const struct process_options *options, struct log *log, int argc, char **argv,
                     struct master_program *out);
