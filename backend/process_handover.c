/* SPDX-License-Identifier: Apache-2.0 */
/*
 * USR2: a shard, which has one owner, goes from the worker of the old binary to that of the new one.
 *
 *     new worker                              old worker
 *       CLAIMING  --- claim (a socket) ------->  PREPARING  a checkpoint, while all goes on
 *                                                PARKING    clients come to rest, the log is flushed, what is new
 *                                                           since the checkpoint, lock and ring are let go of
 *       OPENING   <-- released ----------------  RELEASED   it keeps the clients' descriptors
 *         opens, recovers, worker_ready(); when the whole new generation is, its master says accept
 *       TAKING    --- go --------------------->  PASSING
 *                 <-- clients, end ------------  GONE       leaves when its master says so
 *
 *   H1  Until "go" the old worker can resume: it opens the store again and goes on with the clients that it still
 *       has. It does so when the socket ends, that is when the new worker leaves or is killed. As "go" is said when
 *       all shards are open, an upgrade is all or nothing.
 *   H2  At any time one process has the store open (its lock sees to that), and one reads from a client.
 *   H3  What a client had sent and was not executed goes with it and is executed by the new worker: a command that
 *       waits (for a key, for a cold value, for room) has consumed nothing and is simply run again.
 *   H4  Before "go" both sides say each half second that they live. Who hears nothing for SILENCE_MS takes the other for lost: the
 *       old worker ends the new one (it may hold the store), the new one gives up (others wait for it).
 *   H5  After "go" there is no way back. If the new worker dies before it has all clients, the one that its master
 *       forks in its place claims again and gets the rest. The socket stays open until the old worker leaves: if the
 *       new one ends before the old master heard of the success, the old worker leaves at once, to be forked anew.
 *   H6  An old worker whose master dies, or is told to stop, finishes what it has begun, but does not resume.
 *   H7  The new worker begins to read when it has all clients, or has heard of no more for HOLD_MS: who publishes would else come
 *       before who is subscribed, and be told that nobody is. It accepts no others before that.
 */
#include "config.h"

#include "backend/process_private.h"

#include "backend/cmd/settings.h"
#include "backend/store/store.h"
#include "common/base/mem.h"
#include "nginx-style-master/link.h"

#include <stdio.h>

#define CLAIM_AGAIN_MS 20u
#define CLAIMS_MAX     5u     /* an old worker that dies is forked again, and asked again */
#define PREPARE_MS     60000u /* for a checkpoint; then without */
#define PREPARE_LOOK_MS 20u
#define SILENCE_MS     5000u
#define REOPENS_MAX    15u    /* of two seconds each: the kernel ends one that was killed when it can */
#define HOLD_MS        1000u
#define GONE_MS        10000u /* for a new worker in the place of one that died with clients on their way to it */
#define STATE_MAX      (3ull << 30)
#define MESSAGES_MAX   256 /* a turn */
#define PLACE_SIZE     (sizeof(((struct process *)NULL)->ring) + sizeof(((struct process *)NULL)->dir))

enum handover_message {
    MESSAGE_BEAT = 1,
    MESSAGE_RELEASED,
    MESSAGE_GO,
    MESSAGE_CLIENT, /* value: size of the state; its beginning */
    MESSAGE_MORE,   /* of the state */
    MESSAGE_END,
    MESSAGE_REFUSED, /* the claim: what is on the disk could not be taken back */
    MESSAGE_OTHER_DIR, /* the claim: what is there would be left behind */
};

/* The blob of WORKER_PASS_CLAIM; what names the shard's place lies behind it: place_of(). */
struct claim {
    uint32_t shard, format;
};

/* Its ring has the name of the directory, which a directory that was moved or copied has, too. */
static struct bytes place_of(const struct process *process, char out[PLACE_SIZE])
{
    return bytes_of(out, (size_t)snprintf(out, PLACE_SIZE, "%s %s", process->ring, process->dir));
}

static void handover_resume(struct process *process);
static void handover_send(struct process *process);
static void handover_begin(struct process *process, int fd);
static void handover_begin_again(struct process *process, int fd);
static void prepare_fired(struct io_timer *timer);
static void claim_later(struct process *process);
static bool begin_next(struct process *process);

static void moves_free(struct list *moves)
{
    struct list_node *at;

    while ((at = list_pop_front(moves)) != NULL) {
        struct node_move *move = CONTAINER_OF(at, struct node_move, node);

        link_close(&move->fd);
        buffer_deinit(&move->state);
        mem_free(move);
    }
}

static int say(struct handover *handover, enum handover_message type)
{
    struct link_message message = {.type = (uint32_t)type, .fd = -1};

    return handover->fd < 0 ? ERR_EOF : link_send(handover->fd, &message);
}

static void link_end(struct handover *handover)
{
    io_watch_stop(&handover->watch);
    link_close(&handover->fd);
}

static void leave_now(struct process *process)
{
    process->is_leaving = true;
    process_end_loop(process, MASTER_EXIT_DONE);
}

/* H7. They read from the next turn of the loop on, so those that are taken here know of each other by then. */
static void arrived_take(struct process *process)
{
    struct handover *handover = &process->handover;

    LIST_FOR_EACH(&handover->arrived, at)
        node_take(process->node, CONTAINER_OF(at, struct node_move, node));
    moves_free(&handover->arrived);
    io_timer_stop(&handover->hold);
    if (!handover->is_holding)
        return;
    handover->is_holding = false;
    process_listen(process, true);
}

static void hold_fired(struct io_timer *timer)
{
    arrived_take(timer->arg);
}

/* The new worker has what there is, and may be asked for it by the next. */
static void go_on_alone(struct process *process)
{
    struct handover *handover = &process->handover;

    arrived_take(process);
    link_close(&handover->incoming_fd);
    buffer_deinit(&handover->incoming);
    handover->state = HANDOVER_NONE;
    if (process->is_open && !process->is_leaving)
        MAYBE(begin_next(process));
}

static void claim_failed(struct process *process, const char *why)
{
    link_end(&process->handover);
    log_error(worker_log(process->worker), "shard: the old worker does not hand it over shard=%u why=\"%s\"",
              worker_index(process->worker), why);
    process_end_loop(process, MASTER_EXIT_FATAL);
}

static void gone_fired(struct io_timer *timer)
{
    leave_now(timer->arg);
}

/* All is given, or nobody is there to take the rest (H5). */
static void gone(struct process *process)
{
    struct handover *handover = &process->handover;
    bool is_rest = !list_is_empty(&handover->moves);
    int next_fd = handover->next_fd;

    handover->state = HANDOVER_GONE;
    handover->sent = 0;
    if (handover->fd < 0 && next_fd >= 0) {
        handover->next_fd = -1;
        handover_begin_again(process, next_fd);
    } else if (!is_rest && (handover->fd < 0 || handover->is_drain_due || process->is_leaving)) {
        leave_now(process);
    } else if (is_rest) {
        handover->timer.fire = gone_fired;
        io_timer_start(process->io, &handover->timer, GONE_MS);
    }
}

/* The other side is gone, or is to be taken for it. */
static void link_ended(struct process *process)
{
    struct handover *handover = &process->handover;

    link_end(handover);
    switch (handover->state) {
    case HANDOVER_RELEASED:
        if (handover->is_given)
            gone(process);
        else if (process->is_leaving)
            leave_now(process);
        else
            handover_resume(process);
        break;
    case HANDOVER_CLAIMING:
        if (++handover->claims == CLAIMS_MAX)
            claim_failed(process, "it leaves each time");
        else
            claim_later(process);
        break;
    case HANDOVER_OPENING:
    case HANDOVER_TAKING:
        go_on_alone(process);
        break;
    case HANDOVER_PREPARING:
        io_timer_stop(&handover->timer);
        handover->state = HANDOVER_NONE;
        if (handover->is_drain_due)
            process_drain(process, handover->drain_ms);
        break;
    case HANDOVER_PASSING:
    case HANDOVER_GONE:
        gone(process);
        break;
    case HANDOVER_NONE:
    case HANDOVER_PARKING:
    case HANDOVER_RESUMING:
        break;
    }
}

/* ---- who has it ---------------------------------------------------------------------------------------- */

/* The first client's next piece; 0, ERR_AGAIN or ERR_EOF. */
static int send_piece(struct handover *handover)
{
    struct node_move *move = CONTAINER_OF(list_first(&handover->moves), struct node_move, node);
    struct bytes left = bytes_skip(buffer_bytes(&move->state), handover->sent);
    struct link_message message = {.type = handover->sent == 0 ? MESSAGE_CLIENT : MESSAGE_MORE,
                                   .value = move->state.len,
                                   .fd = handover->sent == 0 ? move->fd : -1,
                                   .data = bytes_first(left, LINK_DATA_MAX)};
    int err = link_send(handover->fd, &message);

    if (err != 0)
        return err;
    handover->sent += message.data.len;
    if (handover->sent == move->state.len) {
        struct list one;

        list_init(&one);
        list_remove(&move->node);
        list_push_back(&one, &move->node);
        moves_free(&one);
        handover->sent = 0;
    }
    return 0;
}

static void handover_send(struct process *process)
{
    struct handover *handover = &process->handover;
    int err = 0;

    while (err == 0 && !list_is_empty(&handover->moves))
        err = send_piece(handover);
    if (err == 0)
        err = say(handover, MESSAGE_END);
    if (err == ERR_AGAIN) {
        io_watch_stop(&handover->watch);
        io_watch_start(process->io, &handover->watch, handover->fd, true, true);
        return;
    }
    if (err == 0)
        log_notice(worker_log(process->worker), "shard: is handed over shard=%u", worker_index(process->worker));
    else
        link_end(handover);
    gone(process);
}

static void released(struct process *process)
{
    process->handover.state = HANDOVER_RELEASED;
    if (say(&process->handover, MESSAGE_RELEASED) != 0)
        link_ended(process);
}

static void parked_later(struct io_timer *timer)
{
    struct process *process = timer->arg;
    struct handover *handover = &process->handover;

    settings_destroy(&handover->settings);
    handover->settings = node_settings_copy(process->node);
    node_destroy(&process->node);
    released(process);
}

static void parked(void *arg, int err)
{
    struct process *process = arg;

    if (err != 0)
        log_error(worker_log(process->worker), "shard: was not closed in order; the new worker replays the log "
                                               "shard=%u why=\"%s\"",
                  worker_index(process->worker), err_text(err));
    /* We are inside of the node that is to be destroyed. */
    process->handover.timer.fire = parked_later;
    io_timer_start(process->io, &process->handover.timer, 0);
}

static void handover_resume(struct process *process)
{
    log_warn(worker_log(process->worker), "shard: the new worker has left, the old one goes on shard=%u",
             worker_index(process->worker));
    process->handover.state = HANDOVER_RESUMING;
    process_open(process);
}

static void reopen_fired(struct io_timer *timer)
{
    struct process *process = timer->arg;

    node_destroy(&process->node);
    process_open(process);
}

bool handover_open_again(struct process *process, int err)
{
    struct handover *handover = &process->handover;

    if (handover->state != HANDOVER_RESUMING || err != ERR_EXISTS || ++handover->reopen_count > REOPENS_MAX)
        return false;
    /* We are inside of the node that is to be destroyed. */
    handover->timer.fire = reopen_fired;
    io_timer_start(process->io, &handover->timer, 0);
    return true;
}

/* The claim that came while we could not heed it. */
static bool begin_next(struct process *process)
{
    int fd = process->handover.next_fd;

    process->handover.next_fd = -1;
    if (fd >= 0)
        handover_begin(process, fd);
    return fd >= 0;
}

static void handover_resumed(struct process *process)
{
    struct handover *handover = &process->handover;

    handover->state = HANDOVER_NONE;
    node_settings_set(process->node, &handover->settings);
    LIST_FOR_EACH(&handover->moves, at)
    {
        node_take(process->node, CONTAINER_OF(at, struct node_move, node));
    }
    moves_free(&handover->moves);
    handover->reopen_count = 0;
    stats_writer_rebase(&process->stats);
    process_listen(process, true);
    if (!begin_next(process) && handover->is_drain_due)
        process_drain(process, handover->drain_ms);
}

/* ---- who wants it -------------------------------------------------------------------------------------- */

static void client_arrived(struct process *process)
{
    struct handover *handover = &process->handover;
    struct node_move *move = must_zalloc(sizeof(*move));

    *move = (struct node_move){.fd = handover->incoming_fd, .state = handover->incoming};
    handover->incoming_fd = -1;
    handover->incoming = (struct buffer){0};
    list_push_back(&handover->arrived, &move->node);
    if (handover->is_holding)
        io_timer_start(process->io, &handover->hold, HOLD_MS);
    else
        arrived_take(process);
}

static void client_arrives(struct process *process, struct link_message *message)
{
    struct handover *handover = &process->handover;

    if (message->type == MESSAGE_CLIENT) {
        link_close(&handover->incoming_fd);
        buffer_clear(&handover->incoming);
        handover->incoming_fd = message->fd;
        handover->incoming_total = message->value;
        message->fd = -1;
    }
    if (handover->incoming_fd < 0)
        return;
    buffer_append(&handover->incoming, message->data.data, message->data.len);
    if (handover->incoming.failed || handover->incoming_total > STATE_MAX)
        link_close(&handover->incoming_fd);
    else if (handover->incoming.len >= handover->incoming_total)
        client_arrived(process);
}

/* ---- the link ------------------------------------------------------------------------------------------ */

static void link_message(struct process *process, struct link_message *message)
{
    struct handover *handover = &process->handover;
    enum handover_state state = handover->state;

    handover->heard_ms = io_now_ms(process->io);
    if (message->type == MESSAGE_RELEASED && state == HANDOVER_CLAIMING) {
        handover->state = HANDOVER_OPENING;
        process_open(process);
    } else if (message->type == MESSAGE_GO && state == HANDOVER_RELEASED) {
        handover->state = HANDOVER_PASSING;
        handover->is_given = true;
        handover_send(process);
    } else if ((message->type == MESSAGE_CLIENT || message->type == MESSAGE_MORE) && state == HANDOVER_TAKING) {
        client_arrives(process, message);
    } else if (message->type == MESSAGE_END && state == HANDOVER_TAKING) {
        go_on_alone(process);
    } else if (message->type == MESSAGE_REFUSED && state == HANDOVER_CLAIMING) {
        claim_failed(process, "it keeps its data in another format: stop the node, start the new binary");
    } else if (message->type == MESSAGE_OTHER_DIR && state == HANDOVER_CLAIMING) {
        claim_failed(process, "it keeps its data in another directory: an upgrade cannot change dir");
    }
    link_close(&message->fd);
}

static void link_ready(struct io_watch *watch, bool readable, bool writable)
{
    struct process *process = watch->arg;
    struct handover *handover = &process->handover;
    char buffer[LINK_DATA_MAX];

    if (writable && handover->state == HANDOVER_PASSING) {
        io_watch_stop(watch);
        io_watch_start(process->io, watch, handover->fd, true, false);
        handover_send(process);
    }
    for (int i = 0; readable && i < MESSAGES_MAX && handover->fd >= 0; i++) {
        struct link_message message;
        int err = link_recv(handover->fd, &message, buffer);

        if (err == ERR_AGAIN)
            return;
        if (err == ERR_EOF)
            link_ended(process);
        else if (err == 0)
            link_message(process, &message);
    }
}

static void link_start(struct process *process, int fd)
{
    struct handover *handover = &process->handover;

    handover->fd = fd;
    handover->heard_ms = io_now_ms(process->io);
    io_watch_start(process->io, &handover->watch, fd, true, false);
}

/* ---- from outside -------------------------------------------------------------------------------------- */

void handover_init(struct process *process)
{
    struct handover *handover = &process->handover;

    handover->fd = handover->next_fd = handover->incoming_fd = -1;
    list_init(&handover->moves);
    list_init(&handover->arrived);
    handover->watch.ready = link_ready;
    handover->hold.fire = hold_fired;
    handover->watch.arg = handover->timer.arg = handover->hold.arg = process;
}

void handover_deinit(struct process *process)
{
    struct handover *handover = &process->handover;
    struct link_message released = {.type = MESSAGE_RELEASED, .fd = -1};

    /* Who claims it from one that is leaving anyway need only wait. */
    if (handover->next_fd >= 0)
        MAYBE(link_send(handover->next_fd, &released) == 0);
    link_end(handover);
    link_close(&handover->next_fd);
    link_close(&handover->incoming_fd);
    buffer_deinit(&handover->incoming);
    io_timer_stop(&handover->timer);
    io_timer_stop(&handover->hold);
    moves_free(&handover->moves);
    moves_free(&handover->arrived);
    settings_destroy(&handover->settings);
}

static void claim_send(struct process *process)
{
    struct handover *handover = &process->handover;
    struct claim what = {.shard = worker_index(process->worker), .format = STORE_FORMAT};
    char blob[sizeof(what) + PLACE_SIZE];
    size_t len = sizeof(what) + place_of(process, blob + sizeof(what)).len;
    uint32_t slot = worker_predecessor(process->worker);
    int fds[2] = {-1, -1}, err = ERR_AGAIN;

    if (slot == WORKER_SLOT_NONE) {
        handover->state = HANDOVER_NONE;
        process_open(process);
        return;
    }
    memcpy(blob, &what, sizeof(what));
    handover->state = HANDOVER_CLAIMING;
    if (slot != WORKER_SLOT_LATER)
        err = link_pair(fds);
    if (err == 0)
        err = worker_pass(process->worker, slot, WORKER_PASS_CLAIM, NULL, &fds[1], 1,
                          bytes_of(blob, len), 0);
    if (err == 0) {
        link_start(process, fds[0]);
        return;
    }
    link_close(&fds[0]);
    link_close(&fds[1]);
    claim_later(process);
}

static void claim_fired(struct io_timer *timer)
{
    claim_send(timer->arg);
}

static void claim_later(struct process *process)
{
    process->handover.timer.fire = claim_fired;
    io_timer_start(process->io, &process->handover.timer, CLAIM_AGAIN_MS);
}

void handover_start(struct process *process)
{
    process->handover.heard_ms = io_now_ms(process->io);
    claim_send(process);
}

static void handover_begin(struct process *process, int fd)
{
    struct handover *handover = &process->handover;

    link_end(handover); /* to a predecessor of ours: it has left long ago */
    log_notice(worker_log(process->worker), "shard: a new worker claims it shard=%u", worker_index(process->worker));
    handover->state = HANDOVER_PREPARING;
    handover->prepare_until_ms = io_now_ms(process->io) + PREPARE_MS;
    handover->timer.fire = prepare_fired;
    node_prepare(process->node);
    link_start(process, fd);
    io_timer_start(process->io, &handover->timer, PREPARE_LOOK_MS);
}

static void park(struct process *process)
{
    stats_writer_write(&process->stats, process->node);
    process->is_open = false;
    process_listen(process, false);
    process->handover.state = HANDOVER_PARKING;
    node_park(process->node, &process->handover.moves, parked, process);
}

static void prepare_fired(struct io_timer *timer)
{
    struct process *process = timer->arg;

    if (node_is_prepared(process->node) || io_now_ms(process->io) >= process->handover.prepare_until_ms)
        park(process);
    else
        io_timer_start(process->io, timer, PREPARE_LOOK_MS);
}

/* A worker in the place of one that died with clients on their way to it. */
static void handover_begin_again(struct process *process, int fd)
{
    struct handover *handover = &process->handover;

    link_end(handover);
    io_timer_stop(&handover->timer);
    link_start(process, fd);
    released(process);
}

static void claim_refuse(struct process *process, int fd, const struct claim *what, struct bytes place)
{
    bool is_format = what->format != STORE_FORMAT;
    struct link_message refused = {.type = is_format ? MESSAGE_REFUSED : MESSAGE_OTHER_DIR, .fd = -1};

    if (is_format)
        log_error(worker_log(process->worker), "shard: a new worker's claim is refused, its binary keeps data in another "
                                               "format shard=%u format=%u ours=%u",
                  worker_index(process->worker), what->format, STORE_FORMAT);
    else
        log_error(worker_log(process->worker), "shard: a new worker's claim is refused, its dir is another one shard=%u "
                                               "ours=\"%s %s\" its=\"%.*s\"",
                  worker_index(process->worker), process->ring, process->dir, BYTES_ARG(place));
    MAYBE(link_send(fd, &refused) == 0);
    link_close(&fd);
}

void handover_claimed(struct process *process, const struct worker_passed *passed)
{
    struct handover *handover = &process->handover;
    struct claim what = {.shard = UINT32_MAX};
    struct bytes place = BYTES_EMPTY;
    char ours[PLACE_SIZE];
    int fd = passed->fds[0];

    for (uint32_t i = 1; i < passed->fds_count; i++) {
        int other = passed->fds[i];

        link_close(&other);
    }
    if (passed->blob.len >= sizeof(what)) {
        memcpy(&what, passed->blob.data, sizeof(what));
        place = bytes_skip(passed->blob, sizeof(what));
    }
    if (passed->kind != WORKER_PASS_CLAIM || what.shard != worker_index(process->worker)) {
        link_close(&fd);
    } else if (what.format != STORE_FORMAT || !bytes_equal(place, place_of(process, ours))) {
        claim_refuse(process, fd, &what, place);
    } else if (handover->state == HANDOVER_GONE) {
        handover_begin_again(process, fd);
    } else if (process->is_leaving || handover->state != HANDOVER_NONE || !process->is_open) {
        link_close(&handover->next_fd);
        handover->next_fd = fd;
    } else {
        handover_begin(process, fd);
    }
}

void handover_opened(struct process *process)
{
    struct handover *handover = &process->handover;

    if (handover->state == HANDOVER_RESUMING) {
        handover_resumed(process);
        return;
    }
    stats_writer_init(&process->stats, process->worker);
    worker_ready(process->worker);
    begin_next(process);
}

void handover_serve(struct process *process)
{
    struct handover *handover = &process->handover;

    if (handover->state != HANDOVER_OPENING)
        return;
    handover->state = HANDOVER_TAKING;
    if (say(handover, MESSAGE_GO) != 0) {
        go_on_alone(process);
        return;
    }
    handover->is_holding = true; /* who calls starts no listener then; arrived_take() does */
    io_timer_start(process->io, &handover->hold, HOLD_MS);
}

static bool is_silent(const struct process *process)
{
    return io_now_ms(process->io) >= process->handover.heard_ms + SILENCE_MS;
}

static void successor_watch(struct process *process)
{
    struct handover *handover = &process->handover;

    if (handover->fd < 0 || !is_silent(process))
        return;
    log_error(worker_log(process->worker), "shard: the new worker is silent, ends it shard=%u silent_ms=%u",
              worker_index(process->worker), SILENCE_MS);
    link_kill_maker(handover->fd);
    link_ended(process);
}

void handover_beat(struct process *process)
{
    struct link_message beat = {.type = MESSAGE_BEAT, .fd = -1};
    struct handover *handover = &process->handover;

    if (handover->next_fd >= 0)
        MAYBE(link_send(handover->next_fd, &beat) == 0);
    switch (handover->state) {
    case HANDOVER_CLAIMING:
        MAYBE(say(handover, MESSAGE_BEAT) == 0);
        if (is_silent(process))
            claim_failed(process, "it is silent");
        break;
    case HANDOVER_OPENING:
        MAYBE(say(handover, MESSAGE_BEAT) == 0);
        break;
    case HANDOVER_PREPARING:
    case HANDOVER_PARKING:
        MAYBE(say(handover, MESSAGE_BEAT) == 0);
        successor_watch(process);
        break;
    case HANDOVER_RELEASED:
        successor_watch(process);
        break;
    case HANDOVER_NONE:
    case HANDOVER_PASSING: /* the other one serves: it may be long in a command */
    case HANDOVER_TAKING:
    case HANDOVER_GONE:
    case HANDOVER_RESUMING:
        break;
    }
}

bool handover_leave(struct process *process)
{
    switch (process->handover.state) {
    case HANDOVER_PREPARING:
        io_timer_stop(&process->handover.timer);
        process->is_leaving = true;
        park(process);
        return true;
    case HANDOVER_PARKING:
    case HANDOVER_RELEASED:
    case HANDOVER_PASSING:
        process->is_leaving = true; /* H6 */
        return true;
    case HANDOVER_GONE:
        process->is_leaving = true;
        if (list_is_empty(&process->handover.moves))
            leave_now(process);
        return true;
    case HANDOVER_CLAIMING:
        leave_now(process);
        return true;
    case HANDOVER_TAKING:
        arrived_take(process);
        break;
    case HANDOVER_NONE:
    case HANDOVER_RESUMING:
    case HANDOVER_OPENING:
        break;
    }
    return false;
}

bool handover_drain(struct process *process, uint32_t timeout_ms)
{
    struct handover *handover = &process->handover;

    switch (handover->state) {
    case HANDOVER_GONE:
        handover->is_drain_due = true;
        if (list_is_empty(&handover->moves))
            leave_now(process);
        return true;
    case HANDOVER_PREPARING:
    case HANDOVER_PARKING:
    case HANDOVER_RELEASED:
    case HANDOVER_PASSING:
    case HANDOVER_RESUMING:
        handover->is_drain_due = true;
        handover->drain_ms = timeout_ms;
        return true;
    case HANDOVER_TAKING:
        arrived_take(process);
        break;
    case HANDOVER_NONE:
    case HANDOVER_CLAIMING:
    case HANDOVER_OPENING:
        break;
    }
    return false;
}
