/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated world's time: events, chance, nodes, the turns of their processes.
 *
 * A process does not see an event when it happens but in its next turn, as with epoll: the event
 * makes a socket, timer or operation ready and asks for a turn; the turn comes a little later,
 * calls back everything that is ready by then, in an order drawn from the seed, and runs the
 * hooks. So batching, late timers and a stopped process come out as they do on Linux.
 *
 * The turn counts as work on its way, an alarm (the earliest timer of a process) does not: that is
 * how sim_run_idle() knows that nothing more will happen by itself.
 */
#include "common/io/io_sim_private.h"

#include <stdio.h>

#define TIMER_MS_MAX (UINT64_C(1000) * 86400 * 365)

/* ---- chance ------------------------------------------------------------------------------- */

static uint64_t splitmix(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void sim_prng_seed(struct sim_prng *prng, uint64_t seed, uint64_t purpose)
{
    uint64_t state = seed;

    state = splitmix(&state) ^ (purpose * 0xd1342543de82ef95u);
    for (size_t i = 0; i < ARRAY_COUNT(prng->s); i++)
        prng->s[i] = splitmix(&state);
}

/* xoshiro256** */
uint64_t sim_prng_next(struct sim_prng *prng)
{
    uint64_t *s = prng->s;
    uint64_t x = s[1] * 5;
    uint64_t result = ((x << 7) | (x >> 57)) * 9;
    uint64_t t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = (s[3] << 45) | (s[3] >> 19);
    return result;
}

uint64_t sim_random(struct sim *sim, enum sim_random_stream stream)
{
    return sim_prng_next(&sim->random[stream]);
}

uint64_t sim_random_below(struct sim *sim, enum sim_random_stream stream, uint64_t bound)
{
    return bound == 0 ? 0 : sim_random(sim, stream) % bound;
}

bool sim_random_chance(struct sim *sim, enum sim_random_stream stream, uint32_t ppm)
{
    return ppm != 0 && sim_random(sim, stream) % 1000000 < ppm;
}

/* -log2(u) by integers: libm's log may differ in the last bit between machines. The exponent is
 * geometric, the mantissa linear: near enough to an exponential. */
uint64_t sim_draw_delay(struct sim *sim, enum sim_random_stream stream, uint64_t min_us,
                        uint64_t mean_us)
{
    uint64_t r, zeros, part;

    if (mean_us == 0)
        return min_us;
    r = sim_random(sim, stream);
    zeros = (uint64_t)__builtin_clzll((r >> 32) | (1ull << 16)); /* 32..47 */
    part = zeros - 32;
    if (part > 15)
        part = 15;
    /* (zeros + u) * ln 2 * mean, u in 0..1 */
    return min_us + ((part * 1024 + (r & 1023)) * mean_us / 1024) * 693 / 1000;
}

uint64_t sim_hash_bytes(const void *data, size_t len)
{
    const unsigned char *at = data;
    uint64_t hash = len;

    for (; len >= 8; at += 8, len -= 8) {
        uint64_t word;

        memcpy(&word, at, 8);
        hash = sim_mix(hash, word);
    }
    if (len > 0) {
        uint64_t word = 0;

        memcpy(&word, at, len);
        hash = sim_mix(hash, word);
    }
    return hash;
}

void sim_trace(struct sim *sim, const struct sim_node *node, const char *what, uint64_t id,
               uint64_t value)
{
    uint64_t word = 0; /* the first letters tell enough */
    uint64_t hash;

    for (size_t i = 0; i < 8 && what[i] != '\0'; i++)
        word = word << 8 | (unsigned char)what[i];
    hash = sim_mix(sim->trace_hash, sim->now_us ^ word * 0xd6e8feb86659fd93u);
    hash = sim_mix(hash, id ^ (uint64_t)(node == NULL ? 0 : node->id) << 48);
    sim->trace_hash = sim_mix(hash, value);
    if (sim->trace_fn != NULL)
        sim->trace_fn(sim->trace_arg, sim->now_us, node == NULL ? "" : node->name, what, id, value);
}

void sim_trace_add(struct sim *sim, const char *what, uint64_t value)
{
    sim_trace(sim, NULL, what, 0, value);
}

void sim_trace_set(struct sim *sim, sim_trace_fn fn, void *arg)
{
    sim->trace_fn = fn;
    sim->trace_arg = arg;
}

/* ---- buffers ------------------------------------------------------------------------------ */

void sim_buffer_append(struct sim_buffer *buffer, const void *data, size_t len)
{
    if (len == 0)
        return;
    if (buffer->off + buffer->len + len > buffer->cap) {
        if (buffer->off > 0)
            memmove(buffer->data, buffer->data + buffer->off, buffer->len);
        buffer->off = 0;
        if (buffer->len + len > buffer->cap) {
            buffer->cap = MAX(buffer->cap * 2, buffer->len + len);
            buffer->data = must_realloc(buffer->data, buffer->cap);
        }
    }
    memcpy(buffer->data + buffer->off + buffer->len, data, len);
    buffer->len += len;
}

void sim_buffer_skip(struct sim_buffer *buffer, size_t len)
{
    ASSERT(len <= buffer->len);
    buffer->off += len;
    buffer->len -= len;
    if (buffer->len == 0)
        sim_buffer_clear(buffer);
}

void sim_buffer_clear(struct sim_buffer *buffer)
{
    mem_free(buffer->data);
    *buffer = (struct sim_buffer){0};
}

/* ---- events ------------------------------------------------------------------------------- */

static const char *const event_names[] = {
    [SIM_EVENT_TURN] = "turn",       [SIM_EVENT_ALARM] = "alarm",
    [SIM_EVENT_CALL] = "call",       [SIM_EVENT_HANDSHAKE] = "handshake",
    [SIM_EVENT_SEGMENT] = "segment", [SIM_EVENT_ACK] = "ack",
    [SIM_EVENT_DEAD] = "dead",       [SIM_EVENT_JOB] = "job",
};

static bool event_is_work(const struct sim_event *event)
{
    return event->kind != SIM_EVENT_ALARM && event->kind != SIM_EVENT_CALL &&
           event->kind != SIM_EVENT_DEAD;
}

void sim_event_start(struct sim *sim, struct sim_event *event, uint64_t at_us)
{
    sim_event_stop(sim, event);
    event->key.at = MAX(at_us, sim->now_us);
    event->key.tie = sim_random(sim, SIM_RANDOM_CORE);
    event->key.seq = sim->seq++;
    sim_heap_push(&sim->events, &event->key);
    sim->work_count += event_is_work(event);
}

void sim_event_stop(struct sim *sim, struct sim_event *event)
{
    if (!sim_event_is_armed(event))
        return;
    sim_heap_remove(&sim->events, &event->key);
    sim->work_count -= event_is_work(event);
}

/* ---- clocks ------------------------------------------------------------------------------- */

uint64_t sim_clock_us(const struct sim_node *node, uint64_t true_us)
{
    const struct sim_clock *clock = &node->clock;
    uint64_t passed = true_us - clock->base_true_us;

    ASSERT(true_us >= clock->base_true_us);
    return clock->base_us + passed + (uint64_t)((int64_t)passed * clock->rate_ppm / 1000000);
}

/* The first true time at which the clock shows at least `clock_us`. */
static uint64_t clock_true_us(const struct sim_node *node, uint64_t clock_us)
{
    const struct sim_clock *clock = &node->clock;
    uint64_t true_us;

    if (clock_us <= clock->base_us)
        return clock->base_true_us;
    true_us = clock->base_true_us +
              (uint64_t)((unsigned __int128)(clock_us - clock->base_us) * 1000000u /
                         (uint64_t)(1000000 + clock->rate_ppm));
    while (true_us > clock->base_true_us && sim_clock_us(node, true_us) > clock_us)
        true_us--;
    while (sim_clock_us(node, true_us) < clock_us)
        true_us++;
    return true_us;
}

static void process_arm(struct sim_process *process);

void sim_node_clock_rate(struct sim_node *node, int32_t rate_ppm)
{
    uint64_t now_us = sim_clock_us(node, node->sim->now_us);

    ASSERT(rate_ppm > -1000000);
    node->clock.base_us = now_us;
    node->clock.base_true_us = node->sim->now_us;
    node->clock.rate_ppm = rate_ppm;
    node->process->alarm_deadline_us = SIM_NEVER;
    process_arm(node->process);
}

void sim_node_wall_jump(struct sim_node *node, int64_t jump_us)
{
    node->clock.wall_us += jump_us;
}

static void clock_init(struct sim_node *node)
{
    struct sim *sim = node->sim;
    const struct sim_options *o = &sim->options;
    struct sim_clock *clock = &node->clock;
    uint64_t rate_range = 2 * (uint64_t)o->clock.rate_ppm_max + 1;
    uint64_t wall_range = 2 * (uint64_t)o->clock.wall_error_us_max + 1;

    clock->base_true_us = sim->now_us;
    clock->base_us = 1000000 + sim->now_us +
                     sim_random_below(sim, SIM_RANDOM_CLOCK, (uint64_t)o->clock.offset_us_max + 1);
    clock->rate_ppm = (int32_t)sim_random_below(sim, SIM_RANDOM_CLOCK, rate_range) -
                      (int32_t)o->clock.rate_ppm_max;
    clock->wall_us = (int64_t)(o->clock.wall_start_us + sim->now_us - clock->base_us) +
                     (int64_t)sim_random_below(sim, SIM_RANDOM_CLOCK, wall_range) -
                     (int64_t)o->clock.wall_error_us_max;
}

static void process_stamp(struct sim_process *process)
{
    io_turn_stamp(&process->io, sim_clock_us(process->node, process->node->sim->now_us));
}

/* The driver is about to call into the nodes, from outside of their turns. */
static void driver_enters(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->node_count; i++) {
        struct sim_process *process = sim->nodes[i]->process;

        if (!process->is_dead && !process->in_turn)
            process_stamp(process);
    }
}

/* ---- turns -------------------------------------------------------------------------------- */

uint64_t sim_process_true_us(const struct sim_process *process)
{
    return process->node->sim->now_us + (process->in_turn ? process->elapsed_us : 0);
}

void sim_process_called(struct sim_process *process, const char *what, uint64_t id, uint64_t value)
{
    struct sim *sim = process->node->sim;

    sim->stats.callbacks++;
    process->elapsed_us += sim_random_below(sim, SIM_RANDOM_CORE,
                                            (uint64_t)sim->options.loop.callback_us_max + 1);
    sim_trace(sim, process->node, what, id, value);
}

void sim_process_wake(struct sim_process *process)
{
    struct sim *sim = process->node->sim;
    uint64_t at_us;

    if (process->is_dead || process->is_stopped)
        return;
    if (process->in_turn || process->node->is_paused) {
        process->is_turn_wanted = true; /* after this turn, or after SIGCONT */
        return;
    }
    if (sim_event_is_armed(&process->turn))
        return;
    at_us = MAX(sim->now_us, process->busy_until_us);
    at_us += sim_random_below(sim, SIM_RANDOM_CORE, (uint64_t)sim->options.loop.wait_us_max + 1);
    sim_event_start(sim, &process->turn, at_us);
}

static void alarm_fire(struct sim_event *event)
{
    struct sim_process *process = CONTAINER_OF(event, struct sim_process, alarm);

    process->alarm_deadline_us = SIM_NEVER;
    sim_process_wake(process);
}

/* Sets the alarm to the earliest timer. */
static void process_arm(struct sim_process *process)
{
    struct sim *sim = process->node->sim;
    struct sim_key *first = sim_heap_first(&process->timers);
    uint64_t at_us;

    if (process->is_dead || process->in_turn)
        return;
    if (first == NULL) {
        sim_event_stop(sim, &process->alarm);
        process->alarm_deadline_us = SIM_NEVER;
        return;
    }
    if (process->alarm_deadline_us == first->at && sim_event_is_armed(&process->alarm))
        return;
    process->alarm_deadline_us = first->at;
    at_us = clock_true_us(process->node, first->at);
    at_us += sim_random_below(sim, SIM_RANDOM_CORE,
                              (uint64_t)sim->options.loop.timer_late_us_max + 1);
    sim_event_start(sim, &process->alarm, at_us);
}

/* The ready sockets in an order of chance; what becomes ready now waits for the next turn. */
static size_t turn_shuffle(struct sim_process *process)
{
    struct sim *sim = process->node->sim;
    size_t count = 0, cap = 0;
    struct sim_socket **sockets = NULL;
    struct list_node *node;

    while ((node = list_pop_front(&process->ready)) != NULL) {
        if (count == cap) {
            cap = MAX(cap * 2, (size_t)16);
            sockets = must_realloc(sockets, cap * sizeof(struct sim_socket *));
        }
        sockets[count++] = CONTAINER_OF(node, struct sim_socket, ready_);
    }
    for (size_t i = count; i > 0; i--) {
        size_t pick = sim_random_below(sim, SIM_RANDOM_CORE, i);
        struct sim_socket *socket = sockets[pick];

        sockets[pick] = sockets[i - 1];
        list_push_back(&process->turning, &socket->ready_);
    }
    mem_free(sockets);
    return count;
}

static void timer_fire_first(struct sim_process *process)
{
    struct sim_key *key = sim_heap_first(&process->timers);
    struct io_timer *timer = CONTAINER_OF(key, struct io_timer, private_);

    sim_heap_remove(&process->timers, key);
    timer->io = NULL;
    sim_process_called(process, "timer", key->seq, 0);
    timer->fire(timer);
}

static bool timer_is_due(const struct sim_process *process)
{
    struct sim_key *first = sim_heap_first(&process->timers);

    return first != NULL && first->at <= process->io.now_us;
}

/* Sockets, timers and operations that are ready, in a mixed order. Timers of delay 0 that a timer
 * starts are due at once; the bound keeps the turn finite. */
static void turn_deliver(struct sim_process *process)
{
    struct sim *sim = process->node->sim;
    size_t timer_max = process->timers.count;
    size_t done_max = process->done_count;

    turn_shuffle(process);
    while (!process->is_dead) {
        bool has_timer = timer_max > 0 && timer_is_due(process);
        bool has_socket = !list_is_empty(&process->turning);
        bool has_done = done_max > 0 && !list_is_empty(&process->done);
        uint64_t kinds = (uint64_t)has_timer + has_socket + has_done;
        uint64_t pick;

        if (kinds == 0)
            return;
        pick = kinds == 1 ? 0 : sim_random_below(sim, SIM_RANDOM_CORE, kinds);
        if (has_timer && pick-- == 0) {
            timer_max--;
            timer_fire_first(process);
        } else if (has_socket && pick-- == 0) {
            struct list_node *node = list_pop_front(&process->turning);

            sim_stream_turn(CONTAINER_OF(node, struct sim_socket, ready_));
        } else {
            done_max--;
            sim_op_done_turn(process);
        }
    }
}

static void turn_fire(struct sim_event *event)
{
    struct sim_process *process = CONTAINER_OF(event, struct sim_process, turn);
    struct sim *sim = process->node->sim;

    if (process->node->is_paused) {
        process->is_turn_wanted = true;
        return;
    }
    ASSERT(!process->is_dead && !process->in_turn);
    sim->stats.turns++;
    process->in_turn = true;
    process->is_turn_wanted = false;
    process->elapsed_us = 0;
    process_stamp(process);
    io_turn_mark(&process->io); /* there is no turn without a reason */
    turn_deliver(process);
    if (!process->is_dead)
        sim_watch_turn(process);
    if (!process->is_dead)
        io_turn_end(&process->io);
    process->in_turn = false;
    if (process->is_dead)
        return;
    process->busy_until_us = sim->now_us + process->elapsed_us + SIM_TURN_MIN_US;
    process_arm(process);
    if (process->is_turn_wanted || !list_is_empty(&process->ready) ||
        !list_is_empty(&process->done)) {
        process->is_turn_wanted = false;
        sim_process_wake(process);
    }
}

/* ---- the driver's calls ------------------------------------------------------------------- */

struct sim_call {
    struct sim_event event;
    struct sim *sim;
    void (*call)(void *arg);
    void *arg;
};

static void call_fire(struct sim_event *event)
{
    struct sim_call *call = CONTAINER_OF(event, struct sim_call, event);
    void (*fn)(void *arg) = call->call;
    void *arg = call->arg;

    driver_enters(call->sim);
    mem_free(call);
    fn(arg);
}

void sim_call_at(struct sim *sim, uint64_t at_us, void (*fn)(void *arg), void *arg)
{
    struct sim_call *call = must_zalloc(sizeof(*call));

    call->event = (struct sim_event){.fire = call_fire, .kind = SIM_EVENT_CALL};
    call->sim = sim;
    call->call = fn;
    call->arg = arg;
    sim_event_start(sim, &call->event, at_us);
}

/* ---- running ------------------------------------------------------------------------------ */

static bool step(struct sim *sim)
{
    struct sim_key *key = sim_heap_first(&sim->events);
    struct sim_event *event;

    if (key == NULL)
        return false;
    event = CONTAINER_OF(key, struct sim_event, key);
    sim_event_stop(sim, event);
    ASSERT(event->key.at >= sim->now_us);
    sim->now_us = event->key.at;
    sim->event_count++;
    sim_trace(sim, event->node, event_names[event->kind], event->id, 0);
    ASSERT(!sim->is_stepping); /* no callback may step the world */
    sim->is_stepping = true;
    event->fire(event);
    sim->is_stepping = false;
    return true;
}

bool sim_step(struct sim *sim)
{
    bool has_stepped = step(sim);

    driver_enters(sim);
    return has_stepped;
}

void sim_run_until(struct sim *sim, uint64_t until_us)
{
    struct sim_key *key;

    while ((key = sim_heap_first(&sim->events)) != NULL && key->at <= until_us)
        (void)step(sim);
    sim->now_us = MAX(sim->now_us, until_us);
    driver_enters(sim);
}

void sim_run_for(struct sim *sim, uint64_t duration_us)
{
    sim_run_until(sim, sim->now_us + duration_us);
}

bool sim_run_idle(struct sim *sim, uint64_t duration_max_us)
{
    uint64_t until_us = sim->now_us + duration_max_us;
    struct sim_key *key;

    while (sim->work_count > 0 && (key = sim_heap_first(&sim->events)) != NULL &&
           key->at <= until_us)
        (void)step(sim);
    driver_enters(sim);
    return sim->work_count == 0;
}

bool sim_run_while_not(struct sim *sim, const bool *flag, uint64_t duration_max_us)
{
    uint64_t until_us = sim->now_us + duration_max_us;
    struct sim_key *key;

    while (!*flag && (key = sim_heap_first(&sim->events)) != NULL && key->at <= until_us)
        (void)step(sim);
    driver_enters(sim);
    return *flag;
}

/* ---- timers ------------------------------------------------------------------------------- */

static struct sim_key *timer_key(struct io_timer *timer)
{
    _Static_assert(sizeof(struct sim_key) <= sizeof(timer->private_), "room in io_timer");
    return (struct sim_key *)(void *)timer->private_;
}

void sim_timer_start(struct io *io, struct io_timer *timer, uint64_t delay_ms)
{
    struct sim_process *process = sim_process_of(io);
    struct sim *sim = process->node->sim;
    struct sim_key *key = timer_key(timer);

    ASSERT(timer->fire != NULL);
    if (process->is_dead)
        return;
    if (timer->io != NULL)
        sim_heap_remove(&process->timers, key);
    timer->io = io;
    key->place = 0;
    key->at = io->now_us + MIN(delay_ms, TIMER_MS_MAX) * 1000;
    key->tie = sim_random(sim, SIM_RANDOM_CORE);
    key->seq = sim->seq++;
    sim_heap_push(&process->timers, key);
    process_arm(process);
}

void sim_timer_stop(struct io *io, struct io_timer *timer)
{
    struct sim_process *process = sim_process_of(io);

    timer->io = NULL;
    sim_heap_remove(&process->timers, timer_key(timer));
    process_arm(process);
}

/* ---- nodes -------------------------------------------------------------------------------- */

static struct sim_process *process_create(struct sim_node *node)
{
    struct sim_process *process = must_zalloc(sizeof(*process));

    io_init(&process->io, &sim_vtable, node->log);
    process->node = node;
    process->alarm_deadline_us = SIM_NEVER;
    list_init(&process->ready);
    list_init(&process->turning);
    list_init(&process->sockets);
    list_init(&process->jobs);
    list_init(&process->done);
    list_init(&process->watches);
    list_init(&process->files);
    process->turn = (struct sim_event){
        .fire = turn_fire, .kind = SIM_EVENT_TURN, .id = node->life_count, .node = node};
    process->alarm = (struct sim_event){
        .fire = alarm_fire, .kind = SIM_EVENT_ALARM, .id = node->life_count, .node = node};
    sim_prng_seed(&process->random, node->sim->seed,
                  1000 + ((uint64_t)node->id << 32) + node->life_count);
    node->life_count++;
    list_push_back(&node->processes, &process->node_);
    node->process = process;
    process_stamp(process);
    sim_process_wake(process); /* as io_run(): what was set up before may wait for the hooks */
    return process;
}

struct sim_node *sim_node_create(struct sim *sim, const char *name)
{
    struct sim_node *node = must_zalloc(sizeof(*node));

    ASSERT(sim->node_count < SIM_NODES_MAX);
    node->sim = sim;
    sim->nodes[sim->node_count++] = node;
    node->id = sim->node_count;
    (void)snprintf(node->name, sizeof(node->name), "%s", name);
    node->is_up = true;
    list_init(&node->processes);
    list_init(&node->shared);
    clock_init(node);
    node->disk = sim_disk_create(node);
    (void)process_create(node);
    sim_trace(sim, node, "node", node->id, 0);
    return node;
}

struct io *sim_node_io(const struct sim_node *node)
{
    return &node->process->io;
}

const char *sim_node_name(const struct sim_node *node)
{
    return node->name;
}

uint32_t sim_node_id(const struct sim_node *node)
{
    return node->id;
}

void sim_node_addr(const struct sim_node *node, uint16_t port, struct io_addr *out)
{
    *out = (struct io_addr){.len = sizeof(out->in)};
    out->in.sin_family = AF_INET;
    out->in.sin_port = htons(port);
    out->in.sin_addr.s_addr = htonl(0x7f000100u + node->id);
}

void sim_node_log_set(struct sim_node *node, struct log *log)
{
    node->log = log;
    node->process->io.log = log;
}

/* Nothing of the process calls back any more; its structs say that they are not in use. */
static void process_end(struct sim_process *process, bool is_silent)
{
    struct sim *sim = process->node->sim;
    struct list_node *node;

    if (process->is_dead)
        return;
    process->is_dead = true;
    sim_trace(sim, process->node, is_silent ? "power cut" : "kill", process->node->life_count, 0);
    sim_event_stop(sim, &process->turn);
    sim_event_stop(sim, &process->alarm);
    for (size_t i = 0; i < process->timers.count; i++) {
        struct sim_key *key = process->timers.items[i];

        key->place = 0;
        CONTAINER_OF(key, struct io_timer, private_)->io = NULL;
    }
    sim_heap_deinit(&process->timers);
    while ((node = list_pop_front(&process->io.hooks)) != NULL)
        MAYBE(node);
    process->io.hook_next = &process->io.hooks.head;
    sim_watch_forget(process);
    sim_op_forget(process);
    sim_net_process_ended(process, is_silent);
}

void sim_node_kill(struct sim_node *node)
{
    process_end(node->process, false);
    node->is_paused = false;
}

void sim_node_power_cut(struct sim_node *node)
{
    process_end(node->process, true);
    node->is_paused = false;
    node->is_up = false;
    sim_op_host_ended(node);
    sim_disk_crash(node->disk);
    sim_shared_host_ended(node);
}

struct io *sim_node_start(struct sim_node *node)
{
    ASSERT(node->process->is_dead);
    if (!node->is_up) {
        node->is_up = true;
        clock_init(node);
        sim_net_node_up(node);
    }
    sim_trace(node->sim, node, "start", node->life_count, 0);
    return &process_create(node)->io;
}

bool sim_node_is_running(const struct sim_node *node)
{
    return !node->process->is_dead;
}

void sim_node_pause(struct sim_node *node)
{
    node->is_paused = true;
}

void sim_node_resume(struct sim_node *node)
{
    struct sim_process *process = node->process;

    if (!node->is_paused)
        return;
    node->is_paused = false;
    if (process->is_turn_wanted && !process->in_turn) {
        process->is_turn_wanted = false;
        sim_process_wake(process);
    }
}

/* ---- the world ---------------------------------------------------------------------------- */

struct sim *sim_create(uint64_t seed, const struct sim_options *options)
{
    struct sim *sim = must_zalloc(sizeof(*sim));

    if (options != NULL)
        sim->options = *options;
    else
        sim_options_calm(&sim->options);
    sim->seed = seed;
    sim->trace_hash = sim_mix(0, seed);
    for (size_t i = 0; i < SIM_RANDOM_COUNT; i++)
        sim_prng_seed(&sim->random[i], seed, i + 1);
    list_init(&sim->listeners);
    list_init(&sim->conns);
    list_init(&sim->jobs);
    sim->port_next = 32768;
    return sim;
}

static void node_destroy(struct sim_node *node)
{
    struct list_node *at;

    while ((at = list_pop_front(&node->processes)) != NULL) {
        struct sim_process *process = CONTAINER_OF(at, struct sim_process, node_);

        sim_op_process_free(process);
        mem_free(process);
    }
    sim_disk_destroy(&node->disk);
    sim_shared_free(node);
    mem_free(node);
}

void sim_destroy(struct sim **simp)
{
    struct sim *sim = *simp;
    struct sim_key *key;

    if (sim == NULL)
        return;
    for (uint32_t i = 0; i < sim->node_count; i++)
        process_end(sim->nodes[i]->process, true);
    sim_net_deinit(sim);
    sim_op_deinit(sim);
    while ((key = sim_heap_first(&sim->events)) != NULL) {
        struct sim_event *event = CONTAINER_OF(key, struct sim_event, key);

        sim_event_stop(sim, event);
        ASSERT(event->kind == SIM_EVENT_CALL); /* everything else has an owner that is gone */
        mem_free(CONTAINER_OF(event, struct sim_call, event));
    }
    sim_heap_deinit(&sim->events);
    for (uint32_t i = 0; i < sim->node_count; i++)
        node_destroy(sim->nodes[i]);
    mem_free(sim->pairs);
    mem_free(sim);
    *simp = NULL;
}

struct sim_options *sim_options(struct sim *sim)
{
    return &sim->options;
}

uint64_t sim_now_us(const struct sim *sim)
{
    return sim->now_us;
}

uint64_t sim_trace_hash(const struct sim *sim)
{
    return sim->trace_hash;
}

uint64_t sim_event_count(const struct sim *sim)
{
    return sim->event_count;
}

const struct sim_stats *sim_stats(const struct sim *sim)
{
    return &sim->stats;
}

struct sim_pair *sim_pair(struct sim *sim, const struct sim_node *from, const struct sim_node *to)
{
    if (sim->pairs == NULL)
        sim->pairs = must_zalloc(sizeof(struct sim_pair) * SIM_NODES_MAX * SIM_NODES_MAX);
    return &sim->pairs[(size_t)(from->id - 1) * SIM_NODES_MAX + (to->id - 1)];
}

/* ---- struct io ---------------------------------------------------------------------------- */

static uint64_t sim_io_now_us(struct io *io)
{
    struct sim_process *process = sim_process_of(io);

    return sim_clock_us(process->node, sim_process_true_us(process));
}

static uint64_t sim_io_clock_us(struct io *io)
{
    struct sim_process *process = sim_process_of(io);
    struct sim *sim = process->node->sim;

    if (process->in_turn && sim->options.loop.look_us_max > 0)
        process->elapsed_us += sim_random_below(sim, SIM_RANDOM_CORE, (uint64_t)sim->options.loop.look_us_max + 1);
    return sim_io_now_us(io);
}

static uint64_t sim_io_wall_us(struct io *io)
{
    return sim_io_now_us(io) + (uint64_t)sim_process_of(io)->node->clock.wall_us;
}

static void sim_io_wake(struct io *io)
{
    sim_process_wake(sim_process_of(io));
}

/* The process sleeps; what ends meanwhile does not wake it. */
static bool sim_io_linger(struct io *io, uint32_t us, bool is_turn)
{
    struct sim_process *process = sim_process_of(io);

    process->elapsed_us += us;
    if (is_turn)
        sim_process_wake(process);
    return true;
}

static void sim_io_run(struct io *io)
{
    struct sim_process *process = sim_process_of(io);

    while (!process->is_stopped && !process->is_dead && step(process->node->sim))
        MAYBE(process->is_stopped);
    process->is_stopped = false;
    sim_process_wake(process); /* what was ready then */
}

/* No turn follows the one that runs. */
static void sim_io_stop(struct io *io)
{
    struct sim_process *process = sim_process_of(io);

    process->is_stopped = true;
    sim_event_stop(process->node->sim, &process->turn);
}

const struct io_vtable sim_vtable = {
    .clock_us = sim_io_clock_us,
    .cpu_us = sim_io_now_us, /* nobody else has its processor */
    .wall_us = sim_io_wall_us,
    .random64 = sim_random64,
    .shared_map = sim_shared_map, .shared_size = sim_shared_size, .shared_why = sim_shared_why,
    .shared_unmap = sim_shared_unmap, .shared_remove = sim_shared_remove, .boot_id = sim_boot_id,
    .wake = sim_io_wake,
    .linger = sim_io_linger,
    .run = sim_io_run,
    .stop = sim_io_stop,
    .timer_start = sim_timer_start,
    .timer_stop = sim_timer_stop,
    .stream_open = sim_stream_open,
    .stream_connect = sim_stream_connect,
    .stream_resume = sim_stream_resume,
    .stream_pause = sim_stream_pause,
    .stream_send = sim_stream_send,
    .stream_shutdown = sim_stream_shutdown,
    .stream_close = sim_stream_close,
    .stream_detach = sim_stream_detach,
    .stream_peer = sim_stream_peer,
    .stream_local = sim_stream_local,
    .listener_start = sim_listener_start,
    .listener_stop = sim_listener_stop,
    .watch_start = sim_watch_start,
    .watch_stop = sim_watch_stop,
    .resolve_submit = sim_resolve_submit,
    .resolve_cancel = sim_resolve_cancel,
    .file_open = sim_file_open,
    .file_close = sim_file_close,
    .file_submit = sim_file_submit,
    .path_submit = sim_path_submit,
    .list_submit = sim_list_submit,
    .touch = sim_touch,
};
