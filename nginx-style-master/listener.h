/* SPDX-License-Identifier: Apache-2.0 */
/*
 * listener.h - the listening sockets, all of them the master's.
 *
 *     address --- lane 0  lane 1  lane 2 ...      one SO_REUSEPORT socket for each worker;
 *                   |       |       |             shared kinds and unix sockets have lane 0 only
 *                 worker  worker  worker          (the master assigns lanes, generation.c)
 *
 *   I1  A socket is closed only when no configuration that serves names its address: connections wait
 *       in its queue whoever is alive. Lanes that are too many stay, and siblings accept from them.
 *   I2  Binding for a new configuration is a transaction: listeners_commit() or listeners_rollback().
 *   I3  A unix socket's file is removed only by the master whose socket it is (device and inode), and
 *       only when no other master has inherited it.
 *
 * Beside each of the first LISTENER_GUARDS_MAX addresses there is a guard: an abstract unix socket named
 * after user and address. It keeps a second, unrelated master from sharing the port unnoticed (which
 * SO_REUSEPORT would allow), and it is where a new master finds the orphans of a dead one (takeover.c).
 */
#pragma once
#include "common/base/base.h"
#include "common/base/err.h"
#include "common/base/list.h"
#include "nginx-style-master/channel.h"
#include "nginx-style-master/master.h"

#include <sys/socket.h>

#define LISTENER_GUARDS_MAX 64u

struct listener {
    struct list_node node;
    char name[HANDOVER_NAME_MAX];
    struct sockaddr_storage addr;
    socklen_t addr_len;
    int fds[MASTER_WORKERS_MAX]; /* owns */
    uint32_t lanes;
    uint32_t lanes_before; /* of the running configuration, while a new one is being bound */
    int guard_fd;          /* owns; -1: none */
    int backlog;
    mode_t mode;
    bool is_wanted;        /* by the configuration that is being bound, or runs */
    bool is_path;          /* a unix socket with a file */
    uint64_t path_dev, path_ino;
};

struct listener_set {
    struct list list;
    uint32_t guards_count;
};

void listeners_init(struct listener_set *set);
/* Nobody is accepted any more; paths stay until listeners_deinit(). */
void listeners_close(struct listener_set *set);
/* Closes all; unlink: the unix sockets' files too. */
void listeners_deinit(struct listener_set *set, bool unlink_paths);

/* The socket name of an address. ERR_INVALID and a text. */
MUST_USE int listener_resolve(const struct master_listener *wanted, struct sockaddr_storage *addr,
                              socklen_t *addr_len, char name[HANDOVER_NAME_MAX], char *error);
/* Makes sure that every address of the configuration has its sockets; bound[i] is that of
 * listeners[i]. On an error everything is as before. Without listen_now new TCP sockets get no
 * connections before listeners_listen(), so that a rollback resets none. */
MUST_USE int listeners_bind(struct listener_set *set, const struct master_config *config,
                            uint32_t workers, bool listen_now, struct listener **bound,
                            char *error);
MUST_USE int listeners_listen(struct listener_set *set, char *error);
/* Closes what is no longer wanted. */
void listeners_commit(struct listener_set *set);
void listeners_rollback(struct listener_set *set);

/* Closes our descriptors of it; in a child. */
void listener_forget(struct listener_set *set, struct listener *listener);

/* Inherited sockets; takes fd over. False: not a listening socket, was closed. */
bool listener_adopt(struct listener_set *set, const char *name, int fd);
bool listener_adopt_guard(struct listener_set *set, const char *name, int fd);
struct listener *listener_find(const struct listener_set *set, struct bytes name);

/* The guard's abstract address; returns its length. */
struct sockaddr_un;
socklen_t listener_guard_addr(const char *name, struct sockaddr_un *out);
