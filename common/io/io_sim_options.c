/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The knobs of a simulated world: calm, or drawn from a seed ("swarm testing": a run in which half
 * of the faults are off finds what a run with all of them hides).
 */
#include "common/io/io_sim_private.h"

#define SWARM_PURPOSE 0x7377726d

void sim_options_calm(struct sim_options *o)
{
    *o = (struct sim_options){0};
    o->net.segment_min = 1 << 16;
    o->net.segment_max = 1 << 20;
    o->net.delay_min_us = 50;
    o->net.delay_mean_us = 20;
    o->net.send_buffer_min = o->net.send_buffer_max = 256 << 10;
    o->net.recv_buffer_min = o->net.recv_buffer_max = 256 << 10;
    o->net.connect_timeout_us = 127000000;
    o->net.retry_us = 200000;
    o->net.dead_us = 924000000;
    o->net.backlog = 512;
    o->net.fd_max = 65536;
    o->loop.wait_us_max = 5;
    o->loop.callback_us_max = 1;
    o->loop.timer_late_us_max = 100;
    o->loop.recv_size = 256 << 10;
    o->clock.wall_start_us = UINT64_C(1700000000000000);
    o->disk.capacity = UINT64_C(1) << 30;
    o->disk.latency_min_us = 10;
    o->disk.latency_mean_us = 50;
    o->disk.flush_min_us = 100;
    o->disk.flush_mean_us = 500;
    o->disk.pending_max = 64 << 20;
    o->disk.crash_old = 1;
    o->disk.crash_names_in_order = true;
}

struct swarm {
    struct sim_prng prng;
};

static bool draw_bool(struct swarm *swarm)
{
    return sim_prng_next(&swarm->prng) % 2 == 0;
}

/* Each power of two between them as likely as the next. */
static uint32_t draw_between(struct swarm *swarm, uint32_t min, uint32_t max)
{
    uint64_t low = MAX(min, 1u), high;
    uint32_t doublings = 0;

    while ((low << (doublings + 1)) <= max)
        doublings++;
    low <<= sim_prng_next(&swarm->prng) % (doublings + 1);
    high = MIN(low * 2, (uint64_t)max);
    return (uint32_t)(low + sim_prng_next(&swarm->prng) % (high - low + 1));
}

/* A fault: off in half of the runs, else with a weight of 1 to 100. */
static uint32_t draw(struct swarm *swarm, uint32_t max)
{
    uint32_t drawn = draw_between(swarm, max / 100, max);

    return draw_bool(swarm) ? drawn : 0;
}

/* A quantity: left as it is in half of the runs. */
static void draw_over(struct swarm *swarm, uint32_t *value, uint32_t min, uint32_t max)
{
    uint32_t drawn = draw_between(swarm, min, max);

    if (draw_bool(swarm))
        *value = drawn;
}

static void draw_net(struct swarm *s, struct sim_options *o)
{
    if (draw_bool(s)) {
        o->net.segment_min = 1;
        o->net.segment_max = draw_between(s, 1, 1 << 16);
    }
    if (draw_bool(s)) { /* both or none: a small buffer over a long way takes for ever */
        o->net.delay_min_us = draw_between(s, 10, 30000);
        o->net.delay_mean_us = draw(s, 100000);
    } else {
        o->net.send_buffer_min = draw_between(s, 16, 256 << 10);
        o->net.recv_buffer_min = draw_between(s, 16, 256 << 10);
    }
    o->net.send_buffer_max = o->net.send_buffer_min + draw(s, 256 << 10);
    o->net.recv_buffer_max = o->net.recv_buffer_min + draw(s, 256 << 10);
    o->net.gap_us_max = draw(s, 500);
    o->net.spike_ppm = draw(s, 20000);
    o->net.spike_us = draw_between(s, 200000, 3000000);
    o->net.rst_ppm = draw(s, 5000);
    o->net.refuse_ppm = draw(s, 300000);
    o->net.syn_loss_ppm = draw(s, 300000);
    draw_over(s, &o->net.connect_timeout_us, 500000, 127000000);
    draw_over(s, &o->net.retry_us, 1000, 2000000);
    draw_over(s, &o->net.dead_us, 10000000, 924000000);
    draw_over(s, &o->net.backlog, 2, 512);
    o->net.kill_fin_ppm = draw(s, 1000000);
}

static void draw_disk(struct swarm *s, struct sim_options *o)
{
    draw_over(s, &o->disk.latency_mean_us, 1, 20000);
    draw_over(s, &o->disk.flush_mean_us, 1, 200000);
    o->disk.stall_ppm = draw(s, 2000);
    o->disk.stall_us = draw_between(s, 100000, 30000000);
    o->disk.read_error_ppm = draw(s, 500);
    o->disk.write_error_ppm = draw(s, 500);
    o->disk.flush_error_ppm = draw(s, 500);
    o->disk.crash_old = draw_between(s, 1, 100);
    o->disk.crash_new = draw(s, 100);
    o->disk.crash_zero = draw(s, 100);
    o->disk.crash_garbage = draw(s, 100);
    o->disk.crash_names_in_order = draw_bool(s);
}

void sim_options_draw(struct sim_options *o, uint64_t seed)
{
    struct swarm swarm;
    struct swarm *s = &swarm;

    sim_prng_seed(&s->prng, seed, SWARM_PURPOSE);
    sim_options_calm(o);
    draw_net(s, o);
    draw_over(s, &o->loop.wait_us_max, 1, 500);
    draw_over(s, &o->loop.callback_us_max, 1, 50);
    draw_over(s, &o->loop.timer_late_us_max, 1, 20000);
    draw_over(s, &o->loop.recv_size, 16, 256 << 10);
    o->clock.offset_us_max = draw(s, 1000000000);
    o->clock.wall_error_us_max = draw(s, 5000000);
    o->clock.rate_ppm_max = draw(s, 500);
    draw_disk(s, o);
    o->loop.look_us_max = draw(s, 500);
}
