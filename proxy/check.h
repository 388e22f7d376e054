/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.h - `weir-proxy -t`: is the file right, and what would it do.
 */
#pragma once

#include <stdint.h>

/* Prints as twemproxy does, then each pool's ring fingerprint, and, where a proxy of this configuration's
 * control socket or stats port runs (`stats_port` -1: the file's word), what share of its keys the file would
 * move. The exit code for main(). */
int check_configuration(const char *path, int stats_port);
