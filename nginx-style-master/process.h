/* SPDX-License-Identifier: Apache-2.0 */
/*
 * process.h - small things that a process does to itself: title, place, rights, background, pid file.
 * For the siblings in this folder.
 */
#pragma once
#include "common/base/base.h"
#include "common/base/err.h"

#include <sched.h>
#include <sys/types.h>

struct log;
struct master_config;

/* title.c */
void title_setup(int argc, char **argv);     /* idempotent */
void title_keep_argv(int argc, char **argv); /* for title_argv(), where there was no setup */
char **title_argv(void);                     /* the copy, NULL-terminated; NULL before */
void title_set(const char *format, ...) PRINTF_LIKE(1, 2);

/* affinity.c */
uint32_t affinity_cpu_count(void);
/* The CPU for worker `index`, or -1: anywhere. */
int affinity_pick(const struct master_config *config, uint32_t index);
MUST_USE int affinity_set(int cpu);

/* privilege.c */
#define PRIVILEGE_GROUPS_MAX 64
struct privilege {
    bool is_set;
    uid_t uid;
    gid_t gid;
    gid_t groups[PRIVILEGE_GROUPS_MAX];
    int groups_count;
};
/* Names become numbers; in the master, before anything is forked. */
MUST_USE int privilege_resolve(const char *user, const char *group, struct privilege *out,
                               char *error, size_t error_size);
MUST_USE int privilege_drop(const struct privilege *privilege);
/* 0: the hard limit. A wish above the hard limit that we may not raise is cut, with a warning. */
void privilege_rlimit_nofile(uint64_t wanted, struct log *log);
/* Behind the text of an error: what helps against it, or "". */
const char *privilege_nofile_hint(int err);

/* daemon.c */
/* The caller is afterwards the grandchild, without a terminal. The first process waits until the byte
 * that is its exit code is written to *notify_fd, or that is closed (1). Standard error stays until
 * daemon_quiet(). */
MUST_USE int daemon_detach(int *notify_fd);
void daemon_notify(int *notify_fd, int code);
void daemon_quiet(void);
MUST_USE int daemon_pid_check(const char *path); /* can it be written? It stays as it is */
MUST_USE int daemon_pid_write(const char *path);
void daemon_pid_remove(const char *path, pid_t only_if);

/* sandbox.c */
MUST_USE int sandbox_enter(struct log *log);
/* In two steps, for who writes files: in these folders; then the calls, with those on files. */
MUST_USE int sandbox_enter_folders(struct log *log, const char *const *folders, size_t count);
MUST_USE int sandbox_enter_calls(struct log *log);
