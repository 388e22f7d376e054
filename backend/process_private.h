/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include "backend/directory.h"
#include "backend/node.h"
#include "backend/process.h"
#include "backend/stats_process.h"
#include "common/io/io.h"
#include "nginx-style-master/worker.h"

#include <limits.h>

struct process_config;

/* A shard goes from the worker of an old binary to that of a new one (process_handover.c). */
enum handover_state {
    HANDOVER_NONE,
    /* who has the shard */
    HANDOVER_PREPARING, /* all goes on; a checkpoint is written */
    HANDOVER_PARKING,  /* its clients come to rest, its store is being closed */
    HANDOVER_RELEASED, /* closed; the clients' descriptors are still held */
    HANDOVER_PASSING,  /* the other one serves: they go */
    HANDOVER_GONE,     /* all is given: waits for its master's word to leave */
    HANDOVER_RESUMING, /* the other one failed: the store is being opened again */
    /* who wants it */
    HANDOVER_CLAIMING, /* has asked, or is about to */
    HANDOVER_OPENING,  /* may open the store; then waits until its whole generation can serve */
    HANDOVER_TAKING,   /* serves; clients arrive */
};

struct handover {
    enum handover_state state;
    int fd, next_fd;         /* own; -1. The link; a claim that came while another was under way */
    struct io_watch watch;
    struct io_timer timer;
    struct list moves;       /* of struct node_move */
    struct list arrived;     /* of struct node_move: taken when all are there, or `hold` fires */
    struct io_timer hold;
    size_t sent;             /* of the first one's state */
    uint64_t heard_ms, prepare_until_ms;
    struct buffer incoming;  /* of a client whose state is arriving */
    uint64_t incoming_total;
    int incoming_fd;         /* owns; -1 */
    bool is_given;           /* "go" was heard */
    bool is_holding;         /* nobody is read from yet, or accepted */
    bool is_drain_due;
    uint32_t drain_ms, claims, reopen_count;
    struct settings *settings; /* owns; those that held when it was parked, for when it resumes */
};

struct process {
    struct worker *worker;
    const struct process_config *config;
    struct io *io;
    struct node *node;
    struct io_watch channel;
    struct io_timer heartbeat, leave, stats_timer;
    struct io_listener *listeners; /* owns; one for each socket */
    uint32_t listeners_count;
    struct stats_writer stats;
    struct handover handover;
    char ring[DIRECTORY_NAME_SIZE + 64], dir[PATH_MAX + 32];
    char *settings; /* owns; NULL: none. What the master said while the store was not open, see config_settings() */
    bool is_open, is_leaving, is_over; /* is_over: the loop is not to be run any more */
    int exit_code;
};

/* ---- process.c ---- */

/* Opens the store, recovers; process_opened() goes on. */
void process_open(struct process *process);
void process_end_loop(struct process *process, int exit_code);
/* Accepting as the master said last. */
void process_listen(struct process *process, bool on);
void process_drain(struct process *process, uint32_t timeout_ms);

/* ---- process_handover.c ---- */

void handover_init(struct process *process);
void handover_deinit(struct process *process); /* the node is closed */
/* Claims the shard from a predecessor, or opens it at once when there is none. */
void handover_start(struct process *process);
void handover_claimed(struct process *process, const struct worker_passed *passed);
void handover_serve(struct process *process);  /* the master lets us accept */
void handover_opened(struct process *process); /* the store is open */
/* It could not be opened. True: it will be tried again. */
bool handover_open_again(struct process *process, int err);
void handover_beat(struct process *process);
/* True: what is to be done to leave is done here, or will be. */
bool handover_leave(struct process *process);
bool handover_drain(struct process *process, uint32_t timeout_ms);
