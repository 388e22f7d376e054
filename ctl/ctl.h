/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctl.h - weirctl: one command, one question to a control socket, one answer.
 *
 * Exit codes: 0 done, 1 refused or failed (the answer said why), 2 wrong usage, 3 nobody to talk to.
 */
#pragma once
#include "common/base/buffer.h"

enum ctl_exit { CTL_OK, CTL_FAILED, CTL_USAGE, CTL_NOBODY };

struct ctl_options {
    const char *control;   /* --control; NULL: not given */
    const char *conf;      /* -c */
    int stats_port;        /* -s; -1: not given */
    double interval_s;     /* top */
    int count;             /* top: how many screens; 0: until it is stopped */
    const char *until;     /* restore; NULL: all of it */
    bool must_copy;        /* backup, restore: copies, no links */
};

/* connect.c: the path of the socket, found by the options, the configuration, or as the only one there is.
 * CTL_OK, or the exit code; said why. */
int ctl_find(const struct ctl_options *options, char *out, size_t size);
/* Sends the line; the answer without its first word goes to `out`. CTL_OK; CTL_FAILED with the reason in
 * `out`; CTL_NOBODY, said why. */
int ctl_ask(const char *path, const char *line, struct buffer *out);

/* top.c */
int ctl_top(const struct ctl_options *options);
/* where.c: from a file, without a proxy. `words`: [POOL] KEY. */
int ctl_where_file(const char *conf_path, int words_count, char **words);

/* verify.c: a node's directory, a shard's, or a backup. 0 clean, 1 damaged, 2 cannot be read. */
int ctl_verify(const char *dir);
/* backup.c: of a node (its address) or of a stopped one's directory. */
int ctl_backup(const char *source, const char *dest, bool must_copy);
/* restore.c: out of a backup, as it was at the time `until`; NULL: all of it. */
int ctl_restore(const char *source, const char *dir, const char *until, bool must_copy);
/* salvage.c: a new directory out of what can be read of a damaged one. */
int ctl_salvage(const char *dir, const char *out);
