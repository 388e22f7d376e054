/* SPDX-License-Identifier: Apache-2.0 */
/* Byte streams of io_ev: what comes in, over socket pairs. */
#include "tests/unit/common/io/io_ev_stream_test.h"

/* ---- receive ------------------------------------------------------------------------------ */

/* Three frames, cut at every byte into two writes: the same frames, and no buffer at rest. */
static void test_frames_survive_any_cut(void **state)
{
    static const char wire[] = "\5\0\0\0first\0\0\0\0\7\0\0\0seconds\3\0\0\0end";
    struct loop *loop = *state;
    size_t len = sizeof(wire) - 1;

    for (size_t cut = 1; cut < len; cut++) {
        struct end end;

        end_open(&end, loop);
        end.mode = TAKE_FRAMES;
        peer_write(&end, wire, cut);
        loop_run_ms(loop, 0);
        end.stop_at = 15;
        peer_write(&end, wire + cut, len - cut);
        loop_run(loop);
        assert_got(&end, "firstsecondsend");
        assert_null(end.stream.rest_);
        end_close(&end);
    }
}

/* A frame of 3 MB in pieces of 1 kB: `need` spares the handler all calls but a few. */
static void test_need_holds_back_until_the_frame_is_there(void **state)
{
    struct loop *loop = *state;
    struct end end;
    uint32_t size = 3000000;
    char *frame = must_alloc(size + 4);
    size_t sent = 0;

    end_open(&end, loop);
    end.mode = TAKE_FRAMES;
    memcpy(frame, &size, 4);
    for (uint32_t i = 0; i < size; i++)
        frame[4 + i] = (char)(i * 7 + i / 1000);
    while (sent < size + 4) {
        size_t step = MIN((size_t)1000, size + 4 - sent);

        peer_write(&end, frame + sent, step);
        sent += step;
        if (end.stream.rest_len_ + 1000 >= size)
            end.stop_at = size;
        loop_run_ms(loop, 0);
        assert_true(end.stream.rest_cap_ <= MAX(2 * end.stream.rest_len_ + 2000, 70000u));
    }
    if (end.got_len < size)
        loop_run(loop);
    assert_int_equal(end.got_len, size);
    assert_memory_equal(end.got, frame + 4, size);
    assert_int_equal(end.recv_count, 2);
    assert_null(end.stream.rest_);
    end_close(&end);
    mem_free(frame);
}

/* Without `need` every arrival is lent, all that is kept in front. */
static void test_what_is_not_consumed_is_lent_again(void **state)
{
    struct loop *loop = *state;
    struct end end;
    char *block = must_zalloc(30000);

    end_open(&end, loop);
    end.mode = TAKE_NONE;
    for (size_t i = 1; i <= 10; i++) {
        end.stop_at = i * 30000;
        peer_write(&end, block, 30000);
        loop_run(loop);
        assert_int_equal(end.last_len, i * 30000);
        assert_int_equal(end.recv_count, i);
    }
    end.mode = TAKE_ALL;
    peer_write(&end, "!", 1);
    end.stop_at = 1;
    loop_run(loop);
    assert_int_equal(end.got_len, 300001);
    assert_int_equal(end.got[300000], '!');
    assert_null(end.stream.rest_);
    end_close(&end);
    mem_free(block);
}

static void test_pause_keeps_and_resume_lends(void **state)
{
    struct loop *loop = *state;
    struct end end;

    end_open(&end, loop);
    end.mode = TAKE_ONE_AND_PAUSE;
    peer_write(&end, "abc", 3);
    end.stop_at = 1;
    loop_run(loop);
    peer_write(&end, "d", 1);
    loop_run_ms(loop, 2);
    assert_got(&end, "a");
    assert_int_equal(end.stream.rest_len_, 2);
    for (size_t i = 2; i <= 4; i++) {
        int before = end.recv_count;

        end.stop_at = i;
        io_stream_resume(&end.stream);
        assert_int_equal(end.recv_count, before); /* I1 */
        loop_run(loop);
    }
    assert_got(&end, "abcd");
    assert_null(end.stream.rest_);
    end_close(&end);
}

/* A large rest taken in small bites: it is not moved each time, and shrinks as it goes. */
static void test_small_bites_of_a_large_rest(void **state)
{
    struct loop *loop = *state;
    struct end end;
    size_t len = 100000;
    char *block = must_alloc(len);

    for (size_t i = 0; i < len; i++)
        block[i] = (char)(i % 251);
    end_open(&end, loop);
    end.mode = TAKE_ONE_AND_BOUNCE;
    end.stop_at = 3000;
    peer_write(&end, block, len);
    loop_run(loop);
    assert_memory_equal(end.got, block, 3000);
    end.mode = TAKE_ALL;
    end.stop_at = len;
    loop_run(loop);
    assert_int_equal(end.got_len, len);
    assert_memory_equal(end.got, block, len);
    assert_null(end.stream.rest_);
    end_close(&end);
    mem_free(block);
}

static void test_pause_and_resume_inside_recv_lends_again(void **state)
{
    struct loop *loop = *state;
    struct end end;

    end_open(&end, loop);
    end.mode = TAKE_ONE_AND_BOUNCE;
    end.stop_at = 5;
    peer_write(&end, "hello", 5);
    loop_run(loop);
    assert_got(&end, "hello");
    assert_int_equal(end.recv_count, 5);
    end_close(&end);
}

static void test_nothing_is_received_while_paused(void **state)
{
    struct loop *loop = *state;
    struct end end;

    end_open(&end, loop);
    io_stream_pause(&end.stream);
    peer_write(&end, "x", 1);
    loop_run_ms(loop, 3);
    assert_int_equal(end.recv_count, 0);
    io_stream_resume(&end.stream);
    io_stream_pause(&end.stream);
    loop_run_ms(loop, 3);
    assert_int_equal(end.recv_count, 0);
    io_stream_resume(&end.stream);
    end.stop_at = 1;
    loop_run(loop);
    assert_got(&end, "x");
    end_close(&end);
}

static void test_rest_given_at_open_comes_first(void **state)
{
    struct loop *loop = *state;
    struct end end;

    end_open_rest(&end, loop, BYTES("early "));
    end.mode = TAKE_ALL;
    peer_write(&end, "late", 4);
    loop_run_ms(loop, 2);
    assert_int_equal(end.recv_count, 0);
    end.stop_at = 10;
    io_stream_resume(&end.stream);
    assert_int_equal(end.recv_count, 0);
    loop_run(loop);
    assert_got(&end, "early late");
    end_close(&end);
}

/* A flood must not keep others from being served: the small one gets through while it lasts. */
static void test_a_flood_does_not_starve_others(void **state)
{
    enum { RECV_SIZE = 32 << 10 };
    struct loop loop;
    struct end flood, small;
    size_t len = 1 << 20;
    ssize_t done;
    char *block = must_zalloc(len);

    (void)state;
    loop_open(&loop, (struct io_ev_options){.recv_size = RECV_SIZE});
    end_open(&flood, &loop);
    end_open(&small, &loop);
    assert_int_equal(fcntl(flood.peer, F_SETFL, O_NONBLOCK), 0);
    done = write(flood.peer, block, len); /* what the socket's buffer holds */
    assert_true(done > 3 * RECV_SIZE);
    peer_write(&small, "hi", 2);
    small.stop_at = 2;
    loop_run(&loop);
    assert_true(flood.got_len <= 2 * RECV_SIZE);
    flood.stop_at = (size_t)done;
    loop_run(&loop);
    assert_int_equal(flood.got_len, done);
    end_close(&flood);
    end_close(&small);
    loop_close(&loop);
    mem_free(block);
}

/* ---- receiving ahead ---------------------------------------------------------------------- */

/* Two streams have data in one turn, so both are received before the first is called, which does something to the
 * other one: nothing is lost, doubled or called that should not be. */
static void test_what_was_received_ahead_of_a_stream_is_kept(void **state)
{
    static const enum mode acts[] = {PAUSE_OTHER, CLOSE_OTHER, DETACH_OTHER};
    struct loop *loop = *state;

    for (unsigned i = 0; i < ARRAY_COUNT(acts); i++) {
        struct end ends[2], *first, *second;

        end_open(&ends[0], loop);
        end_open(&ends[1], loop);
        for (int k = 0; k < 2; k++) {
            ends[k].mode = acts[i];
            ends[k].other = &ends[1 - k];
            peer_write(&ends[k], "data", 4);
        }
        loop_run_turns(loop, 3);
        first = ends[0].other == NULL ? &ends[0] : &ends[1];
        second = first == &ends[0] ? &ends[1] : &ends[0];
        assert_int_equal(first->ahead_count + second->ahead_count, 2);
        assert_got(first, "data");
        assert_int_equal(second->recv_count, 0);
        if (acts[i] == PAUSE_OTHER) {
            io_stream_resume(&second->stream);
            peer_write(second, " more", 5);
            loop_run_turns(loop, 3);
            assert_got(second, "data more");
        } else if (acts[i] == DETACH_OTHER) {
            assert_true(second->detached_fd >= 0);
            assert_int_equal(second->detached_len, 4);
            assert_memory_equal(second->detached, "data", 4);
            mem_free(second->detached);
            close(second->detached_fd);
        }
        end_close(first);
        end_close(second);
    }
}

/* Until this one has got so much; a thousand turns at most. */
static void run_until_got(struct loop *loop, const struct end *end, size_t len)
{
    for (int i = 0; i < 1000 && end->got_len < len; i++)
        loop_run_ms(loop, 1);
    assert_int_equal(end->got_len, len);
}

/* More than is received ahead, by many streams at once: all of it comes, in order. */
static void test_long_input_of_many_streams(void **state)
{
    enum { ENDS = 20, SIZE = 60000 };
    struct loop *loop = *state;
    struct end ends[ENDS];
    char data[SIZE];

    for (int i = 0; i < SIZE; i++)
        data[i] = (char)(i % 251);
    for (int k = 0; k < ENDS; k++) {
        end_open(&ends[k], loop);
        peer_write(&ends[k], data, SIZE);
    }
    for (int k = 0; k < ENDS; k++) {
        run_until_got(loop, &ends[k], SIZE);
        assert_memory_equal(ends[k].got, data, SIZE);
        end_close(&ends[k]);
    }
}

/* A turn that has had enough leaves events for the next: nobody is forgotten, and who went away meanwhile stays away. */
static void test_what_a_turn_has_no_time_for_is_served_by_the_next(void **state)
{
    enum { ENDS = 64 };
    struct loop loop;
    struct end ends[ENDS], *closed = &ends[ENDS - 1], *paused = &ends[ENDS - 2];
    unsigned served = 0;

    (void)state;
    loop_open(&loop, (struct io_ev_options){.streams_us = 1, .sockets = IO_SOCKETS_TOGETHER});
    for (int k = 0; k < ENDS; k++)
        end_open(&ends[k], &loop);
    for (int k = 0; k < ENDS; k++)
        peer_write(&ends[k], "hi", 2);
    ends[0].mode = CLOSE_OTHER;
    ends[0].other = closed;
    ends[1].mode = PAUSE_OTHER;
    ends[1].other = paused;
    ends[0].stop_at = 1;
    loop_run(&loop);
    for (int k = 0; k < ENDS; k++)
        served += ends[k].got_len > 0;
    assert_true(served >= 1 && served < ENDS - 2);
    for (int k = 0; k < ENDS - 2; k++)
        run_until_got(&loop, &ends[k], 2);
    loop_run_turns(&loop, 2);
    assert_int_equal(closed->got_len + paused->got_len, 0);
    io_stream_resume(&paused->stream);
    run_until_got(&loop, paused, 2);
    for (int k = 0; k < ENDS; k++)
        end_close(&ends[k]);
    loop_close(&loop);
}

struct busy {
    struct io_timer timer;
    struct io *io;
    uint64_t us;
};

static void busy_fire(struct io_timer *timer)
{
    const struct busy *busy = timer->arg;
    uint64_t until_us = io_clock_us(busy->io) + busy->us;

    while (io_clock_us(busy->io) < until_us)
        ;
}

struct turns {
    struct io_hook hook;
    unsigned count, early; /* in so many `again` had more than `len` while `last` still waited */
    const struct end *again, *last;
    size_t len;
};

static void turns_run(struct io_hook *hook)
{
    struct turns *turns = CONTAINER_OF(hook, struct turns, hook);

    turns->count++;
    turns->early += turns->again != NULL && turns->again->got_len > turns->len && turns->last->got_len == 0;
}

/* Each receive takes longer than the turn has: of what was received ahead all but the first four are put off. They are
 * served first in the next turns, four and more in each, and all of them before anyone is asked again. */
static void put_off_open(struct loop *loop, struct end *ends, int count, const char *data, size_t len)
{
    loop_open(loop, (struct io_ev_options){.streams_us = 2000, .sockets = IO_SOCKETS_TOGETHER});
    for (int k = 0; k < count; k++) {
        end_open(&ends[k], loop);
        ends[k].burn_us = 1000;
    }
    for (int k = 0; k < count; k++)
        peer_write(&ends[k], data, len);
}

static void test_who_was_put_off_comes_first(void **state)
{
    enum { ENDS = 50, AHEAD = 32, AGAIN = 8 };
    struct loop loop;
    struct end ends[ENDS];
    struct turns turns = {.hook.run = turns_run, .again = &ends[0], .last = &ends[AHEAD - 1], .len = 2};

    (void)state;
    put_off_open(&loop, ends, ENDS, "hi", 2);
    io_hook_add(loop.io, &turns.hook);
    ends[0].stop_at = 2;
    loop_run(&loop);
    assert_int_equal(ends[AGAIN].got_len, 0); /* received ahead, and put off */
    assert_true(ends[AGAIN].stream.rest_len_ > 0);
    for (int k = 0; k < AGAIN; k++)
        peer_write(&ends[k], "!", 1); /* they are back before the others had their turn */
    ends[0].stop_at = 0;
    ends[AHEAD - 1].stop_at = 2; /* the last that was received ahead */
    loop_run(&loop);
    for (int k = 0; k < AHEAD; k++)
        assert_true(ends[k].got_len >= 2);
    assert_true(turns.count <= 2 + AHEAD / 4);
    assert_int_equal(turns.early, 0);
    for (int k = 0; k < ENDS; k++) {
        run_until_got(&loop, &ends[k], k < AGAIN ? 3 : 2);
        end_close(&ends[k]);
    }
    io_hook_remove(loop.io, &turns.hook);
    loop_close(&loop);
}

/* What happens to streams while they are put off; and their input is longer than what was received of it. */
static void test_what_happens_to_who_was_put_off(void **state)
{
    enum { ENDS = 50, SIZE = 10000 };
    struct loop loop;
    struct end ends[ENDS];
    struct end *closed = &ends[20], *paused = &ends[21], *detached = &ends[22], *left = &ends[23];
    char *data = must_alloc(SIZE);

    (void)state;
    for (int i = 0; i < SIZE; i++)
        data[i] = (char)(i * 31 + i / 256);
    put_off_open(&loop, ends, ENDS, data, SIZE);
    ends[0].stop_at = 1;
    loop_run(&loop);
    assert_int_equal(closed->got_len + paused->got_len + detached->got_len + left->got_len, 0);
    io_stream_close(&closed->stream);
    io_stream_pause(&paused->stream);
    detached->detached_fd = io_stream_detach(&detached->stream, &detached->detached, &detached->detached_len);
    assert_true(detached->detached_fd >= 0 && detached->detached_len > 0 && detached->detached_len < SIZE);
    assert_memory_equal(detached->detached, data, detached->detached_len);
    left->keeps_open = true;
    shutdown(left->peer, SHUT_WR);
    for (int k = 0; k < ENDS; k++)
        ends[k].burn_us = 0;
    while (left->closed_count == 0)
        loop_run(&loop);
    run_until_got(&loop, &ends[ENDS - 1], SIZE);
    assert_int_equal(closed->got_len + paused->got_len + detached->got_len, 0);
    assert_int_equal(left->closed_count, 1);
    io_stream_resume(&paused->stream);
    for (int k = 0; k < ENDS; k++) {
        if (&ends[k] != closed && &ends[k] != detached) {
            run_until_got(&loop, &ends[k], SIZE);
            assert_memory_equal(ends[k].got, data, SIZE);
        }
        end_close(&ends[k]);
    }
    close(detached->detached_fd);
    mem_free(detached->detached);
    mem_free(data);
    loop_close(&loop);
}

/* A timer has taken all of the turn's time: the streams have half of it still, of which these take next to nothing. */
static void test_timers_leave_time_for_streams(void **state)
{
    enum { ENDS = 64, TURN_US = 1000000 };
    struct loop loop;
    struct end ends[ENDS];
    struct busy busy = {.us = TURN_US};

    (void)state;
    loop_open(&loop, (struct io_ev_options){.streams_us = TURN_US});
    busy.io = loop.io;
    busy.timer = (struct io_timer){.fire = busy_fire, .arg = &busy};
    for (int k = 0; k < ENDS; k++)
        end_open(&ends[k], &loop);
    for (int k = 0; k < ENDS; k++)
        peer_write(&ends[k], "hi", 2);
    io_timer_start(loop.io, &busy.timer, 0);
    ends[0].stop_at = 1; /* after this turn */
    loop_run(&loop);
    for (int k = 0; k < ENDS; k++) {
        assert_int_equal(ends[k].got_len, 2);
        end_close(&ends[k]);
    }
    loop_close(&loop);
}

/* Who has itself called again in the next turn (a bite a turn) lets others come in between: those that an event tells of,
 * and, where a turn has no time for all, those of its like. */
static void test_who_asks_to_be_called_again_goes_behind_others(void **state)
{
    enum { ENDS = 16, SIZE = 50 };
    struct loop loop;
    struct end ends[ENDS], other;
    const char data[SIZE] = "in order";

    (void)state;
    loop_open(&loop, (struct io_ev_options){.streams_us = 1});
    end_open(&other, &loop);
    for (int k = 0; k < ENDS; k++) {
        end_open(&ends[k], &loop);
        ends[k].mode = TAKE_ONE_AND_BOUNCE;
        peer_write(&ends[k], data, SIZE);
    }
    ends[0].stop_at = 2;
    loop_run(&loop);
    for (int k = 0; k < ENDS; k++)
        assert_in_range(ends[k].got_len, k == 0 ? 2 : 0, 3);
    peer_write(&other, "hi", 2);
    other.stop_at = 2;
    ends[0].stop_at = 0;
    loop_run(&loop);
    assert_got(&other, "hi");
    for (int k = 0; k < ENDS; k++) {
        assert_true(ends[k].got_len < SIZE);
        shutdown(ends[k].peer, SHUT_WR);
        ends[k].keeps_open = true;
    }
    for (int k = 0; k < ENDS; k++)
        while (ends[k].closed_count == 0)
            loop_run(&loop);
    for (int k = 0; k < ENDS; k++) {
        assert_int_equal(ends[k].got_len, SIZE);
        assert_memory_equal(ends[k].got, data, SIZE);
        assert_int_equal(ends[k].recv_count, SIZE);
        assert_int_equal(ends[k].rest_len, 0);
        end_close(&ends[k]);
    }
    end_close(&other);
    loop_close(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOP_TEST(test_frames_survive_any_cut),
        LOOP_TEST(test_need_holds_back_until_the_frame_is_there),
        LOOP_TEST(test_what_is_not_consumed_is_lent_again),
        LOOP_TEST(test_pause_keeps_and_resume_lends),
        LOOP_TEST(test_small_bites_of_a_large_rest),
        LOOP_TEST(test_pause_and_resume_inside_recv_lends_again),
        LOOP_TEST(test_nothing_is_received_while_paused),
        LOOP_TEST(test_rest_given_at_open_comes_first),
        cmocka_unit_test(test_a_flood_does_not_starve_others),
        LOOP_TEST(test_what_was_received_ahead_of_a_stream_is_kept),
        LOOP_TEST(test_long_input_of_many_streams),
        cmocka_unit_test(test_what_a_turn_has_no_time_for_is_served_by_the_next),
        cmocka_unit_test(test_who_was_put_off_comes_first),
        cmocka_unit_test(test_what_happens_to_who_was_put_off),
        cmocka_unit_test(test_timers_leave_time_for_streams),
        cmocka_unit_test(test_who_asks_to_be_called_again_goes_behind_others),
    };

    return cmocka_run_group_tests_name("io_ev_stream", tests, NULL, NULL);
}
