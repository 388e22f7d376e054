/* SPDX-License-Identifier: Apache-2.0 */
/*
 * process.h - the node as processes: what the master asks of it, and a worker's life.
 */
#pragma once
#include "backend/conf.h"
#include "common/base/log.h"
#include "nginx-style-master/master.h"

struct process_options {
    const char *conf_path; /* absolute; NULL: none */
    const struct conf_option *options; /* borrows */
    uint32_t options_count;
    const char *pid_path;
    const char *start_dir; /* what relative paths mean */
    bool daemonize;
    struct log *log; /* borrows */
};

/* For -t: what a start would refuse beside the settings themselves. 0, or negative with a text. */
MUST_USE int process_check(const struct process_options *options, char error[MASTER_ERROR_SIZE]);
/* Fills in the program for master_run(). `options` is borrowed for its whole life. */
void process_program(const struct process_options *options, int argc, char **argv, struct master_program *out);
