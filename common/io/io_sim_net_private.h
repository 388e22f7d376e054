/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io_sim_net_private.h - connections, as the two halves of the simulated network know them.
 *
 *     io_sim_net.c      pipes and sockets: data, windows, FIN, RST, cuts, the end of processes
 *     io_sim_connect.c  listening, the way of a SYN, descriptors
 */
#pragma once
#include "common/io/io_sim_private.h"

#define SIM_BURSTS_MAX 32

/* What one send put on the way: the bytes before `end` (counted from the pipe's start) are not
 * there before `at_us`. */
struct sim_burst {
    uint64_t end, at_us;
};

struct sim_pipe {
    struct sim_conn *conn;
    uint8_t side; /* the sender's */
    bool is_fin_sent, is_fin_arrived, is_rst_sent;
    bool is_stalled, is_blocked, is_ack_stalled; /* unreachable; no window; ack unreachable */
    uint32_t send_cap, recv_cap, low_mark;
    struct sim_buffer flight, rx;
    uint64_t sent, arrived, acked, ack_value;
    struct sim_burst bursts[SIM_BURSTS_MAX];
    uint32_t burst_first, burst_count;
    uint64_t last_at_us; /* nothing arrives before */
    uint64_t end_at_us;  /* of FIN or RST */
    uint64_t reset_at;   /* fault: RST after so many bytes */
    uint64_t progress_us;
    struct sim_event segment, ack, dead;
};

struct sim_conn {
    struct sim *sim;
    uint64_t id;
    struct list_node node_;
    struct sim_node *nodes[2]; /* [1]: NULL until the SYN has arrived */
    struct sim_socket *ends[2]; /* NULL once closed */
    struct sim_pipe pipes[2];
    struct sim_event handshake;
    uint8_t stage, syn_count;
    int answer;
    uint64_t deadline_us;
    struct io_addr target;
    bool is_unix, is_blackhole;
};

/* ---- io_sim_net.c ---- */
bool sim_net_cut_is(struct sim *sim, const struct sim_node *from, const struct sim_node *to);
uint64_t sim_net_delay(struct sim *sim, const struct sim_node *from, const struct sim_node *to,
                       bool is_unix);
MUST_USE int sim_fd_alloc(struct sim *sim, struct sim_process *process, struct sim_socket *socket);
struct sim_socket *sim_socket_create(struct sim_node *node, enum sim_socket_kind kind);
void sim_socket_free(struct sim_socket *socket);
void sim_socket_disown(struct sim_socket *socket); /* its process has it no more */
struct sim_conn *sim_conn_create(struct sim_node *node, struct sim_socket *client);
struct sim_socket *sim_conn_add_server(struct sim_conn *conn, struct sim_node *node);
void sim_conn_fail(struct sim_conn *conn, int side, int err); /* over for this end */

/* ---- io_sim_connect.c ---- */
void sim_handshake_fire(struct sim_event *event);
