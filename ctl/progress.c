/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define QUIET_S   1.0 /* what is over by then shows nothing */
#define REDRAW_S  0.2
#define BAR_WIDTH 24

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

const char *size_text(uint64_t bytes, char out[SIZE_TEXT_MAX])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double size = (double)bytes;
    size_t unit = 0;

    while (size >= 1000 && unit + 1 < ARRAY_COUNT(units)) {
        size /= 1024;
        unit++;
    }
    (void)snprintf(out, SIZE_TEXT_MAX, unit == 0 ? "%.0f %s" : "%.1f %s", size, units[unit]);
    return out;
}

const char *time_text(uint64_t ms, char out[TIME_TEXT_MAX])
{
    time_t seconds = (time_t)(ms / 1000);
    struct tm parts;
    size_t len;

    if (gmtime_r(&seconds, &parts) == NULL)
        return "-";
    len = strftime(out, TIME_TEXT_MAX, "%Y-%m-%d %H:%M:%S", &parts);
    (void)snprintf(out + len, TIME_TEXT_MAX - len, ".%03uZ", (unsigned)(ms % 1000));
    return out;
}

void progress_start(struct progress *progress, const char *what, uint64_t total)
{
    *progress = (struct progress){
        .what = what, .total = total, .start_s = now_s(), .is_terminal = isatty(STDERR_FILENO) == 1,
    };
}

static void draw(struct progress *progress, double now)
{
    double spent = now - progress->start_s;
    double rate = (double)progress->done / spent;
    double share = progress->total > 0 ? MIN((double)progress->done / (double)progress->total, 1.0) : 0;
    uint64_t left = progress->total > progress->done ? progress->total - progress->done : 0;
    unsigned eta = rate > 0 ? (unsigned)MIN((double)left / rate, 359999.0) : 0;
    char bar[BAR_WIDTH + 1], done[SIZE_TEXT_MAX], total[SIZE_TEXT_MAX], speed[SIZE_TEXT_MAX];
    int filled = (int)(share * BAR_WIDTH);

    for (int i = 0; i < BAR_WIDTH; i++)
        bar[i] = i < filled ? '#' : '.';
    bar[BAR_WIDTH] = '\0';
    fprintf(stderr, "\r%s [%s] %3.0f%%  %s of %s  %s/s  %u:%02u:%02u left\033[K", progress->what, bar, share * 100,
            size_text(progress->done, done), size_text(progress->total, total), size_text((uint64_t)rate, speed),
            eta / 3600, eta / 60 % 60, eta % 60);
    progress->shown_s = now;
    progress->is_shown = true;
}

void progress_add(struct progress *progress, uint64_t bytes)
{
    double now;

    progress->done += bytes;
    if (!progress->is_terminal)
        return;
    now = now_s();
    if (now - progress->start_s >= QUIET_S && now - progress->shown_s >= REDRAW_S)
        draw(progress, now);
}

void progress_clear(struct progress *progress)
{
    if (progress->is_shown)
        fputs("\r\033[K", stderr);
    progress->is_shown = false;
}
