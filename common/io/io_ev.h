/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_ev.h - the io of a Linux process: libev (epoll) for the network and timers, a thread pool for
 * names, liburing (or the thread pool) for files.
 */
#pragma once
#include "common/io/io.h"

enum io_file_backend { IO_FILES_NONE, IO_FILES_THREADS, IO_FILES_URING, IO_FILES_BEST };

enum io_socket_backend { IO_SOCKETS_ALONE, IO_SOCKETS_TOGETHER };

struct io_ev_options {
    struct log *log;               /* borrows */
    enum io_file_backend files;    /* BEST: io_uring where the kernel lets us, else threads */
    enum io_socket_backend sockets; /* TOGETHER: calls for several in one, where the kernel lets us */
    size_t recv_size;              /* of the worker's receive buffer; 0: 256 KiB */
    const char *directory;         /* where relative paths start; NULL: the current one */
    uint32_t streams_us;           /* so long a turn receives (64 KiB at a time), then what came in goes out; half of it at least, from the first
                                    * receive on, however long its timers took; 0: until all have been served */
    uint32_t files_us;             /* so long a turn tells of what the ring has done; half of it at least, as above; 0: of all */
    uint32_t steps_us;             /* after so long, together, the steps of a turn do no more than each must (io_step_begin()); 0: each as it likes */
    bool start_threads;            /* now, not with the first job: for before a seccomp filter */
};

MUST_USE int io_ev_create(const struct io_ev_options *options, struct io **out);
/* Waits for file ops under way and tells nobody; files still open are closed and their handles gone.
 * Streams, listeners and timers must have been closed or stopped. */
void io_ev_destroy(struct io **io);
/* Which file backend runs: "io_uring", "threads" or "none". */
const char *io_ev_files_name(const struct io *io);
/* io_boot_id(), for who has no io. */
MUST_USE int io_ev_host_boot_id(unsigned char out[16]);
/* libev's, as it was compiled in: "4.33". */
const char *io_ev_library_version(void);
